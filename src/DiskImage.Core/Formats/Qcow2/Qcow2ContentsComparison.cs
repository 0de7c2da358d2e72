using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Looks whether changes that are held back keep all that can be read of an image: what its own layer holds of the disk, and of snapshots
/// with their machine state. Other than a comparison of disks it goes table by table, so its time follows the file and not the size of the
/// disk.
/// </summary>
/// <remarks>
/// A pair of L2 tables, before and after, is looked at once however many L1 entries lead to it. Entries that say the same of a place that
/// the changes do not touch are the same; entries that cannot be read before do not count; for the rest, both are read.
/// </remarks>
internal sealed class Qcow2ContentsComparison(
    BlockNode file, Qcow2Header before, StagedNode staged, Qcow2Header after, BlockNode? dataFile, CancellationToken cancellationToken)
{
    private readonly Qcow2Geometry _geometry = new(before);
    private readonly HashSet<(long Before, long After)> _done = [];
    private readonly byte[] _old = new byte[before.ClusterSize], _new = new byte[before.ClusterSize];

    /// <summary>What would be lost, in words; null if nothing.</summary>
    /// <param name="snapshots">The snapshots that are kept, as they were and as they are.</param>
    public async ValueTask<string?> FindLossAsync(IEnumerable<(Qcow2Snapshot Was, Qcow2Snapshot Now)> snapshots)
    {
        int entries = (int)_geometry.L1EntriesFor(before.Size); // what the table has beyond them shows nowhere
        if (await FirstLossAsync(before, after, entries).ConfigureAwait(false) is long lost)
        {
            return $"guest offset {lost:#,0}";
        }
        foreach ((Qcow2Snapshot was, Qcow2Snapshot now) in snapshots)
        {
            Qcow2Header then = before with { L1TableOffset = was.L1Offset, L1Size = was.L1Size };
            Qcow2Header kept = after with { L1TableOffset = now.L1Offset, L1Size = now.L1Size };
            if (await FirstLossAsync(then, kept, was.L1Size).ConfigureAwait(false) is long inSnapshot)
            {
                return $"offset {inSnapshot:#,0} of snapshot '{was.Name}'";
            }
        }
        return null;
    }

    private async ValueTask<long?> FirstLossAsync(Qcow2Header was, Qcow2Header now, int entries)
    {
        byte[] old = new byte[entries * 8], present = new byte[entries * 8];
        await file.ReadPaddedAsync(was.L1TableOffset, old, cancellationToken).ConfigureAwait(false);
        await staged.ReadPaddedAsync(now.L1TableOffset, present, cancellationToken).ConfigureAwait(false);
        var view = new View(this, was, now, entries);
        await using (view.ConfigureAwait(false))
        {
            for (int i = 0; i < entries; i++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                long oldTable = L2Entry.OffsetOf(BigEndian.U64(old, i * 8)), newTable = L2Entry.OffsetOf(BigEndian.U64(present, i * 8));
                bool isReadable = _geometry.InCluster(oldTable) == 0 && oldTable < file.Length;
                if ((oldTable | newTable) == 0 || !isReadable || !_done.Add((oldTable, newTable)))
                {
                    continue;
                }
                await ReadTableAsync(file, oldTable, _old).ConfigureAwait(false);
                await ReadTableAsync(staged, newTable, _new).ConfigureAwait(false);
                if (await FirstLossAsync(view, i * _geometry.L2Span).ConfigureAwait(false) is long lost)
                {
                    return lost;
                }
            }
        }
        return null;
    }

    private async ValueTask ReadTableAsync(BlockNode node, long offset, byte[] table)
    {
        if (offset == 0)
        {
            Array.Clear(table);
            return;
        }
        await node.ReadPaddedAsync(offset, table, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask<long?> FirstLossAsync(View view, long guest)
    {
        for (int at = 0; at < _geometry.ClusterSize; at += _geometry.L2EntryBytes, guest += _geometry.ClusterSize)
        {
            ulong oldRaw = BigEndian.U64(_old, at), newRaw = BigEndian.U64(_new, at);
            if ((oldRaw | newRaw) == 0 && !_geometry.HasSubclusters)
            {
                continue;
            }
            if (IsSame(EntryAt(_old, at), EntryAt(_new, at)) || IsLost(EntryAt(_old, at), guest))
            {
                continue;
            }
            if (await view.FirstLossAsync(guest).ConfigureAwait(false) is long lost)
            {
                return lost;
            }
        }
        return null;

        L2Entry EntryAt(byte[] table, int at) => new(BigEndian.U64(table, at), _geometry.HasSubclusters ? BigEndian.U64(table, at + 8) : 0);
    }

    /// <summary>True if two entries say the same, of a place whose bytes stay.</summary>
    private bool IsSame(L2Entry old, L2Entry present)
    {
        bool extended = _geometry.HasSubclusters;
        (old, present) = (old.WithCopied(false).WithoutReserved(extended), present.WithCopied(false).WithoutReserved(extended));
        if (old != present)
        {
            return false;
        }
        (HostOffset place, int length) = old.IsCompressed
            ? old.CompressedRange(_geometry.ClusterBits)
            : (old.Place, old.HasPlace ? _geometry.ClusterSize : 0);
        return length == 0 || dataFile is not null || staged.IsUntouched(place.Value, Math.Min(length, file.Length - place.Value));
    }

    /// <summary>True if an entry leads nowhere, so that nothing of it can be read.</summary>
    private bool IsLost(L2Entry entry, long guest)
        => entry is { IsCompressed: false, HasPlace: true } && !_geometry.HasSubclusters && (entry.Raw & 1) == 0
            && (dataFile is null ? _geometry.InCluster(entry.Place) != 0 || entry.Place.Value >= file.Length : entry.Place.Value != guest);

    /// <summary>The disk, or a snapshot, before and after; opened when an entry has to be read.</summary>
    private sealed class View(Qcow2ContentsComparison owner, Qcow2Header was, Qcow2Header now, int entries) : IAsyncDisposable
    {
        private Qcow2Node? _before, _after;
        private LayerComparison? _comparison;

        public async ValueTask<long?> FirstLossAsync(long guest)
        {
            if (_comparison is null)
            {
                _before = await OpenAsync(owner.File, was).ConfigureAwait(false);
                _after = await OpenAsync(owner.Staged, now).ConfigureAwait(false);
                _comparison = new LayerComparison(_before, _after, owner.Staged, owner._geometry.SubclusterSize);
            }
            return await _comparison.FirstLossAsync(guest, guest + owner._geometry.ClusterSize, owner.Token).ConfigureAwait(false);
        }

        public ValueTask DisposeAsync()
            => Closing.AllAsync(new[] { _before, _after }.OfType<Qcow2Node>().Select(node => (Func<ValueTask>)node.DisposeAsync));

        /// <summary>A disk as long as its table reaches: machine state lies behind the end of the disk.</summary>
        private ValueTask<Qcow2Node> OpenAsync(BlockNode file, Qcow2Header header)
            => Qcow2Node.OpenAsync(
                new BorrowedNode(file, isReadOnly: true),
                owner.DataFile is null ? null : new BorrowedNode(owner.DataFile, isReadOnly: true),
                null,
                header with { L1Size = entries, Size = entries * owner._geometry.L2Span },
                new Qcow2OpenOptions(),
                encryption: null, // where the bytes are is what is compared
                forRepair: true,
                owner.Token);
    }

    private BlockNode File => file;

    private StagedNode Staged => staged;

    private BlockNode? DataFile => dataFile;

    private CancellationToken Token => cancellationToken;
}
