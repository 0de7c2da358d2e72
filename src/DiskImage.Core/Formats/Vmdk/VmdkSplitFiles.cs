using System.Globalization;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vmdk;

/// <summary>The files of a split disk that come and go with its length.</summary>
/// <remarks>
/// A new one is complete and durable, its name too, before the descriptor names it; one that the descriptor does not name any more is
/// removed after that. A crash between leaves a file that nothing names. A name that is taken is passed over, whatever bears it.
/// </remarks>
/// <param name="extents">Opens what is new.</param>
/// <param name="siblings">Makes and removes files.</param>
/// <param name="parent">What the disk stands on; null for nothing, or for this layer alone.</param>
internal sealed class VmdkSplitFiles(VmdkExtents extents, ISiblingFiles siblings, BlockNode? parent)
{
    private const int MostTaken = 10_000; // names that are passed over. Ours
    private const string Ending = ".vmdk";

    /// <summary>Makes the files that a disk is to get, under temporary names, and flushes them.</summary>
    /// <param name="last">The disk's last extent, which they are to be like.</param>
    /// <param name="start">Where on the disk the first one begins.</param>
    /// <param name="lengths">Bytes of the disk in each.</param>
    /// <param name="preallocation">How the space of flat ones is claimed.</param>
    /// <param name="claimed">Told how many bytes are claimed.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask<VmdkAddedFiles> MakeAsync(
        VmdkExtent last,
        long start,
        IEnumerable<long> lengths,
        PreallocationMode preallocation,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        var added = new VmdkAddedFiles();
        try
        {
            using IEnumerator<string> names = Names(last.Line.FileName!).GetEnumerator();
            long done = 0;
            foreach (long length in lengths)
            {
                (PendingNode pending, string name) = await BeginAsync(names, cancellationToken).ConfigureAwait(false);
                added.Add(pending, last.Line with { Sectors = length / VmdkHeader.SectorSize, FileName = name, StartSector = 0 });
                if (last.Node is VmdkSparseExtent model)
                {
                    await WriteSparseAsync(pending.Node, model, start + done, length, cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    await pending.Node.ResizeAsync(length, preallocation, VmdkUpkeep.Shifted(claimed, done),
                        cancellationToken).ConfigureAwait(false);
                }
                await pending.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
                await pending.Node.DisposeAsync().ConfigureAwait(false);
                done += length;
            }
            return added;
        }
        catch
        {
            await added.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Opens what was made and has its name.</summary>
    public ValueTask<IReadOnlyList<VmdkExtent>> OpenAsync(IReadOnlyList<VmdkExtentLine> lines, long start,
        CancellationToken cancellationToken) => extents.OpenListedAsync(lines, start, cancellationToken);

    /// <summary>Closes extents that a disk has lost, and removes their files as far as they are named like those of a split disk.</summary>
    /// <exception cref="DiskImageException">A file cannot be removed; the others are, as far as they can be.</exception>
    public async ValueTask RemoveAsync(IReadOnlyList<VmdkExtent> lost, string disk)
    {
        DiskImageException? first = null;
        foreach (VmdkExtent extent in lost)
        {
            NodeIdentity? identity = extent.File?.Identity;
            await CloseAsync(extent).ConfigureAwait(false);
            if (identity is { } known && IsOwn(extent.Line))
            {
                try
                {
                    await siblings.RemoveAsync(LocalOf(extent.Line.FileName!), known).ConfigureAwait(false);
                }
                catch (DiskImageException e)
                {
                    first ??= e;
                }
            }
        }
        if (first is not null)
        {
            throw new DiskImageException(
                first.Kind, $"{disk}: has its new size; a file that is not its own any more could not be removed: {first.Wording}", disk,
                cause: first);
        }
    }

    /// <summary>Closes an extent and its file.</summary>
    public static ValueTask CloseAsync(VmdkExtent extent)
        => Closing.AllAsync(new[] { extent.Node, extent.File }.OfType<BlockNode>().Select(n => (Func<ValueTask>)n.DisposeAsync));

    /// <summary>Only what bears such a name in the disk's folder is taken for a file of the disk alone.</summary>
    private static bool IsOwn(VmdkExtentLine line)
        => line is { Access: VmdkAccess.ReadWrite, FileName: { } name } && name.AsSpan().IndexOfAny('/', '\\') < 0
            && TryParse(name, out _, out _);

    /// <summary>The name as that of a file, whatever it looks like.</summary>
    private static string LocalOf(string name) => WindowsPath.ToLocalFile(name) ?? name;

    /// <summary>The names that come after one; numbers that programs count by are of three digits or more.</summary>
    private static IEnumerable<string> Names(string last)
    {
        if (!TryParse(last, out string prefix, out int number))
        {
            (prefix, number) = (last.EndsWith(Ending, StringComparison.OrdinalIgnoreCase) ? last[..^Ending.Length] + "-s" : last + "-s", 1);
        }
        return Enumerable.Range(number + 1, MostTaken + VmdkDescriptor.MaxExtents)
            .Select(n => string.Create(CultureInfo.InvariantCulture, $"{prefix}{n:000}{Ending}"));
    }

    /// <summary>Takes a name like disk-s001.vmdk apart.</summary>
    private static bool TryParse(string name, out string prefix, out int number)
    {
        (prefix, number) = ("", 0);
        if (!name.EndsWith(Ending, StringComparison.OrdinalIgnoreCase))
        {
            return false;
        }
        string stem = name[..^Ending.Length];
        int digits = stem.Length - stem.AsSpan().TrimEnd("0123456789").Length;
        prefix = stem[..^digits];
        return digits is >= 3 and <= 6 && prefix.Length > 2 && prefix[^2] == '-' && prefix[^1] is 's' or 'f' or 'S' or 'F'
            && int.TryParse(stem[^digits..], NumberStyles.None, CultureInfo.InvariantCulture, out number);
    }

    private async ValueTask<(PendingNode Pending, string Name)> BeginAsync(IEnumerator<string> names, CancellationToken cancellationToken)
    {
        while (names.MoveNext())
        {
            if (await siblings.TryBeginAsync(LocalOf(names.Current), cancellationToken).ConfigureAwait(false) is { } pending)
            {
                return (pending, names.Current);
            }
        }
        throw new DiskImageException(
            DiskImageErrorKind.AlreadyExists, $"{names.Current}: all names up to this one are taken, so there is none for a further file"
                + " of the disk");
    }

    /// <summary>What a parent shows there reads as zeroes first.</summary>
    private async ValueTask WriteSparseAsync(
        BlockNode file, VmdkSparseExtent model, long start, long length, CancellationToken cancellationToken)
    {
        VmdkHeader header = VmdkCreator.Plan(length, hasDescriptor: false, model.Header.HasZeroedGrains);
        await VmdkCreator.WriteSparseAsync(file, header, cancellationToken).ConfigureAwait(false);
        long shown = !model.HasParent ? 0 : parent is null ? length : Math.Clamp(parent.Length - start, 0, length);
        if (shown > 0)
        {
            VmdkSparseExtent extent = await VmdkSparseExtent.OpenAsync(
                file, backing: null, header, new VmdkExtentTraits(HasParent: true), forRepair: false,
                cancellationToken).ConfigureAwait(false);
            await using (extent.ConfigureAwait(false))
            {
                await extent.WriteZeroesAsync(0, shown, cancellationToken: cancellationToken).ConfigureAwait(false);
            }
        }
    }
}

/// <summary>Files that a disk is to get. Disposed before they are published they are gone without a trace.</summary>
internal sealed class VmdkAddedFiles : IAsyncDisposable
{
    private readonly List<PendingNode> _files = [];
    private readonly List<VmdkExtentLine> _lines = [];

    /// <summary>How they are to be described.</summary>
    public IReadOnlyList<VmdkExtentLine> Lines => _lines;

    /// <summary>Takes one, from now on its owner.</summary>
    public void Add(PendingNode file, VmdkExtentLine line)
    {
        _files.Add(file);
        _lines.Add(line);
    }

    /// <summary>Gives them their names, durably.</summary>
    public async ValueTask PublishAsync()
    {
        foreach (PendingNode file in _files)
        {
            await file.PublishAsync(durable: true, revocable: true, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Takes them back.</summary>
    public void Withdraw() => _files.ForEach(f => f.Withdraw());

    public async ValueTask DisposeAsync()
    {
        foreach (PendingNode file in _files)
        {
            await file.DisposeAsync().ConfigureAwait(false);
        }
    }
}
