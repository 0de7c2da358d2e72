using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>Makes a disk's file smaller: blocks that say nothing are dropped, the last ones move into the gaps, the file is cut.</summary>
internal sealed class VpcCompactor(VpcDisk disk)
{
    /// <summary>Compacts the file.</summary>
    /// <param name="held">The lock.</param>
    /// <param name="dropEmpty">True to look for blocks that say nothing.</param>
    /// <param name="bytes">Told how far the looking is.</param>
    /// <param name="cancellationToken">Stops it between two blocks.</param>
    public async ValueTask RunAsync(MetadataSession.Held held, bool dropEmpty, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        VpcSpace space = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (dropEmpty)
        {
            await DropEmptyAsync(held, space, bytes, cancellationToken).ConfigureAwait(false);
        }
        await MoveLocatorsAsync(held, space).ConfigureAwait(false);
        try
        {
            await disk.Maintenance.CompactAsync(held, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            disk.Session.Space = null; // what lies where has changed
        }
        await (await disk.SpaceAsync(held).ConfigureAwait(false)).TrimAsync(held).ConfigureAwait(false);
    }

    /// <summary>Drops all blocks: the parent shows through everywhere, or zeroes do.</summary>
    public async ValueTask EmptyAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await disk.RequireNothingBehindAsync("emptied", disk.ClaimedEnd, cancellationToken).ConfigureAwait(false);
        VpcSpace space = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        for (int block = disk.Bat.NextUsed(0), end = disk.Blocks; block < end; block = disk.Bat.NextUsed(block + 1))
        {
            disk.Drop(held, space, block);
        }
        await disk.Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        if (disk.HasParent && disk.Backing is { } parent && VpcParent.InfoOf(parent) is { } info
            && info.UniqueId == disk.Header.ParentUniqueId)
        {
            // Whatever was written to the parent fits an empty disk.
            uint time = VpcFooter.Seconds(new DateTimeOffset(info.Created));
            await disk.WriteHeaderAsync(held, disk.Header with { ParentTimeStamp = time }).ConfigureAwait(false);
            space = await disk.NewSpaceAsync(held).ConfigureAwait(false);
        }
        await space.TrimAsync(held).ConfigureAwait(false);
    }

    /// <summary>Drops blocks that can be missing: without a bit; or all zeroes, where nothing but zeroes could show through.</summary>
    private async ValueTask DropEmptyAsync(
        MetadataSession.Held held, VpcSpace space, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        for (int block = disk.Bat.NextUsed(0), end = disk.Blocks; block < end; block = disk.Bat.NextUsed(block + 1))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (await IsEmptyAsync(block, cancellationToken).ConfigureAwait(false))
            {
                disk.Drop(held, space, block);
            }
            bytes?.Report(block * disk.BlockSize);
        }
        await disk.Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask<bool> IsEmptyAsync(int block, CancellationToken cancellationToken)
    {
        HostOffset place = disk.PlaceOf(block)!.Value;
        var guest = new GuestOffset(block * disk.BlockSize);
        long count = Math.Min(disk.BlockSize, Round.Up(disk.ClaimedEnd, VpcGeometry.SectorSize) - guest.Value);
        for (long within = 0; within < count;)
        {
            (bool isSet, long run) = await disk.RunAsync(place, within, count - within, cancellationToken).ConfigureAwait(false);
            run = Math.Min(run, count - within);
            if (isSet && !(await BelowIsZeroAsync(guest + within, run, cancellationToken).ConfigureAwait(false)
                && await StoredBytes.IsZeroAsync(
                    disk.File, disk.DataAt(place, within).Value, run, cancellationToken).ConfigureAwait(false)))
            {
                return false;
            }
            within += run;
        }
        return true;
    }

    private async ValueTask<bool> BelowIsZeroAsync(GuestOffset guest, long length, CancellationToken cancellationToken)
    {
        if (!disk.HasParent)
        {
            return true;
        }
        if (disk.Backing is not { } parent)
        {
            return false;
        }
        for (long offset = guest.Value, end = Math.Min(offset + length, parent.Length); offset < end;)
        {
            BlockExtent extent = await parent.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if (!extent.IsZero)
            {
                return false;
            }
            offset = extent.End;
        }
        return true;
    }

    /// <summary>Moves the locators' data to the lowest place, so that they do not keep the file long.</summary>
    private async ValueTask MoveLocatorsAsync(MetadataSession.Held held, VpcSpace space)
    {
        for (int i = 0; i < disk.Header.Locators.Count && disk.HasParent; i++)
        {
            VpcLocator locator = disk.Header.Locators[i];
            if (!locator.HasData(disk.File.Length))
            {
                continue;
            }
            (long start, long end) = locator.Extent;
            HostOffset place = await space.AllocateSectorsAsync(held, end - start, VpcFooter.Length).ConfigureAwait(false);
            if (place.Value < start)
            {
                await StoredBytes.CopyAsync(disk.File, start, place.Value, end - start, CancellationToken.None).ConfigureAwait(false);
                await disk.File.FlushAsync().ConfigureAwait(false);
                VpcLocator[] locators = [.. disk.Header.Locators];
                locators[i] = locator with { DataOffset = (ulong)place.Value };
                await disk.WriteHeaderAsync(held, disk.Header with { Locators = locators }).ConfigureAwait(false);
                space = await disk.NewSpaceAsync(held).ConfigureAwait(false);
            }
        }
    }
}
