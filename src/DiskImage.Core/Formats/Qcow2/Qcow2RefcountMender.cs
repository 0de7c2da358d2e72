using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Sets refcounts to what was counted, and the flags that say that a count is one.</summary>
internal sealed class Qcow2RefcountMender(Qcow2RepairImage image)
{
    private StagedNode File => image.File;

    private Qcow2Geometry Geometry => image.Geometry;

    /// <summary>Sets all refcounts: in place where their structure is sound, else in a new one at the end of the file.</summary>
    public async ValueTask RunAsync()
    {
        Qcow2Checker counted = image.NewChecker();
        _ = await counted.RunAsync().ConfigureAwait(false);
        if (counted.NeedsRebuild)
        {
            counted = await image.CountAsync().ConfigureAwait(false);
            int order = image.Header.RefcountOrder;
            order = image.Header.Version < 3 ? order : Qcow2RefcountBuilder.OrderFor(counted.References, order);
            image.Switched(await Qcow2RefcountBuilder.BuildAsync(
                File, image.Header, counted.References, order, image.CancellationToken).ConfigureAwait(false));
        }
        else
        {
            await SetAsync(counted, leaksOnly: false).ConfigureAwait(false);
        }
        await SetFlagsAsync(counted.References).ConfigureAwait(false);
    }

    /// <summary>Sets refcounts in place.</summary>
    public async ValueTask SetAsync(Qcow2Checker counted, bool leaksOnly)
    {
        int perBlock = 1 << Geometry.RefcountsPerBlockBits, order = Geometry.RefcountOrder;
        byte[] block = new byte[Geometry.ClusterSize];
        for (int i = 0; i < counted.RefcountTable.Length; i++)
        {
            long offset = (long)counted.RefcountTable[i], first = (long)i << Geometry.RefcountsPerBlockBits;
            if (offset == 0)
            {
                continue;
            }
            await File.ReadPaddedAsync(offset, block, image.CancellationToken).ConfigureAwait(false);
            bool changed = false;
            for (int k = 0; k < perBlock; k++)
            {
                ulong stored = RefcountBlock.Get(block, k, order);
                ulong count = Math.Min(counted.References[first + k], Geometry.MaxRefcount); // version 2 has no wider ones
                if (stored != count && (stored > count || !leaksOnly))
                {
                    _ = RefcountBlock.Set(block, k, order, count);
                    changed = true;
                }
            }
            if (changed)
            {
                await File.WriteAsync(offset, block, image.CancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async ValueTask SetFlagsAsync(SparseCounters references)
    {
        Qcow2Header header = image.Header;
        byte[] l1 = new byte[header.L1Size * 8], table = new byte[Geometry.ClusterSize];
        await File.ReadPaddedAsync(header.L1TableOffset, l1, image.CancellationToken).ConfigureAwait(false);
        bool l1Changed = false;
        var done = new HashSet<HostOffset>();
        for (int i = 0; i < header.L1Size; i++)
        {
            var entry = new L2Entry(BigEndian.U64(l1, i * 8));
            if (!entry.HasPlace)
            {
                continue;
            }
            l1Changed |= SetFlag(l1, i * 8, entry, references[Geometry.ClusterOf(entry.Place)] == 1);
            if (!done.Add(entry.Place))
            {
                continue;
            }
            await File.ReadPaddedAsync(entry.Place.Value, table, image.CancellationToken).ConfigureAwait(false);
            if (SetFlags(table, references))
            {
                await File.WriteAsync(entry.Place.Value, table, image.CancellationToken).ConfigureAwait(false);
            }
        }
        if (l1Changed)
        {
            await File.WriteAsync(header.L1TableOffset, l1, image.CancellationToken).ConfigureAwait(false);
        }
    }

    private bool SetFlags(byte[] table, SparseCounters references)
    {
        bool changed = false;
        for (int at = 0; at < table.Length; at += Geometry.L2EntryBytes)
        {
            var entry = new L2Entry(BigEndian.U64(table, at));
            if (entry is { IsCompressed: false, HasPlace: true }) // an external data file's offset 0 bears the flag, or is none
            {
                // what lies in a data file has no refcounts
                bool isOne = image.IsExternal || references[Geometry.ClusterOf(entry.Place)] == 1;
                changed |= SetFlag(table, at, entry, isOne);
            }
        }
        return changed;
    }

    private static bool SetFlag(byte[] bytes, int at, L2Entry entry, bool copied)
    {
        if (entry.IsCopied == copied)
        {
            return false;
        }
        BigEndian.U64(bytes, at, entry.WithCopied(copied).Raw);
        return true;
    }
}
