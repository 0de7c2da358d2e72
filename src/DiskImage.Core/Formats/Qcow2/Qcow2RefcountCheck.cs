using System.Runtime.InteropServices;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The refcount structure: where it lies, and whether it says what was counted. Spec: qcow2, "Host cluster management".</summary>
internal sealed class Qcow2RefcountCheck(Qcow2Census census)
{
    private const string Rebuild = "build the refcounts anew";
    private const int OnesLength = 256; // counts that are looked at together: most are 1

    /// <summary>The refcount table, as far as it could be read.</summary>
    public ulong[] Table { get; private set; } = [];

    /// <summary>The last cluster that is in use, or said to be.</summary>
    public long Highest { get; private set; } = -1;

    /// <summary>Some cluster is used more than its refcount says.</summary>
    public bool HasTooLow { get; private set; }

    /// <summary>The refcounts call the cluster of the header free.</summary>
    public bool IsHeaderUnused { get; private set; }

    /// <summary>The refcounts call a cluster of the active L1 table free.</summary>
    public bool IsRootUnused { get; private set; }

    private Qcow2Geometry Geometry => census.Geometry;

    /// <summary>Counts the clusters of the structure itself.</summary>
    public async ValueTask CountAsync()
    {
        Qcow2Header header = census.Header;
        long length = (long)header.RefcountTableClusters << Geometry.ClusterBits;
        bool isThere = census.AddTable(header.RefcountTableOffset, length, Qcow2Census.RefcountTable, repair: Rebuild);
        if (!isThere || length == 0)
        {
            census.NeedsRebuild = true;
            return;
        }
        Table = await census.ReadTableAsync(header.RefcountTableOffset, (int)(length / 8)).ConfigureAwait(false);
        for (int i = 0; i < Table.Length; i++)
        {
            if (Table[i] == 0)
            {
                continue;
            }
            // then it counts something else
            bool isTaken = Table[i] <= long.MaxValue && census.HoldsTable((long)Table[i], Geometry.ClusterSize);
            if (!census.AddTable((long)Table[i], Geometry.ClusterSize, Qcow2Census.RefcountBlock, repair: Rebuild) || isTaken)
            {
                Table[i] = 0;
                census.NeedsRebuild = true;
            }
        }
    }

    /// <summary>Compares what was counted with what is stored.</summary>
    public async ValueTask CompareAsync()
    {
        byte[] block = new byte[Geometry.ClusterSize];
        var run = new MismatchRun(census);
        for (int i = 0; i < Table.Length; i++)
        {
            if (Table[i] != 0)
            {
                census.CancellationToken.ThrowIfCancellationRequested();
                await census.File.ReadPaddedAsync((long)Table[i], block, census.CancellationToken).ConfigureAwait(false);
                Compare(block, (long)i << Geometry.RefcountsPerBlockBits, run);
            }
        }
        run.End();
        FindUncounted(run);
        run.End();
    }

    /// <summary>Compares a block's counts, as far as either of both has any.</summary>
    private void Compare(byte[] block, long first, MismatchRun run)
    {
        int perBlock = 1 << Geometry.RefcountsPerBlockBits, end = perBlock;
        SparseCounters references = census.References;
        int order = Geometry.RefcountOrder;
        long countedEnd = references.End;
        if (first + perBlock > countedEnd)
        {
            end = Math.Max((int)Math.Clamp(countedEnd - first, 0, perBlock), Math.Min(perBlock, LastUsed(block) + 1));
        }
        for (int k = 0; k < end; k++)
        {
            if (k % OnesLength == 0 && k + OnesLength <= end && order == 4 && AreAllOne(block, k)
                && references.AreAll(first + k, OnesLength, 1))
            {
                k += OnesLength - 1;
                Highest = Math.Max(Highest, first + k);
                run.End();
                continue;
            }
            ulong stored = RefcountBlock.Get(block, k, order), counted = references[first + k];
            if ((stored | counted) == 0)
            {
                continue;
            }
            Highest = Math.Max(Highest, first + k);
            if (stored == counted)
            {
                run.End();
                continue;
            }
            census.NeedsRebuild |= counted > Geometry.MaxRefcount;
            HasTooLow |= stored < counted;
            IsHeaderUnused |= first + k == 0 && stored == 0;
            IsRootUnused |= stored == 0 && counted > 0 && census.IsTable((first + k) << Geometry.ClusterBits, Qcow2Census.ActiveL1);
            run.Add(first + k, stored, counted);
        }

        static bool AreAllOne(ReadOnlySpan<byte> block, int index) // of 16 bits each, big-endian
            => !MemoryMarshal.Cast<byte, ushort>(block).Slice(index, OnesLength).ContainsAnyExcept((ushort)0x0100);

        static int LastUsed(ReadOnlySpan<byte> bytes)
        {
            int last = bytes.LastIndexOfAnyExcept((byte)0);
            return last < 0 ? -1 : Math.Min(int.MaxValue - 1, (last + 1) * 8);
        }
    }

    /// <summary>Finds clusters in use that no block counts.</summary>
    private void FindUncounted(MismatchRun run)
    {
        foreach ((long first, long count) in census.References.Ranges)
        {
            for (long cluster = first; cluster < first + count; cluster++)
            {
                long index = cluster >> Geometry.RefcountsPerBlockBits;
                if (census.References[cluster] != 0 && (index >= Table.Length || Table[index] == 0))
                {
                    Highest = Math.Max(Highest, cluster);
                    run.Add(cluster, 0, census.References[cluster]);
                    census.NeedsRebuild = true;
                }
            }
        }
    }

    /// <summary>Joins neighbouring clusters with the same wrong refcount into one finding.</summary>
    private sealed class MismatchRun(Qcow2Census census)
    {
        private long _first, _count;
        private ulong _stored, _counted;

        public void Add(long cluster, ulong stored, ulong counted)
        {
            if (_count > 0 && cluster == _first + _count && stored == _stored && counted == _counted)
            {
                _count++;
                return;
            }
            End();
            if (stored != counted)
            {
                (_first, _count, _stored, _counted) = (cluster, 1, stored, counted);
            }
        }

        public void End()
        {
            if (_count > 0)
            {
                long host = _first << census.Geometry.ClusterBits;
                Wording which = _count == 1
                    ? (Wording)$"The cluster at host offset {host:#,0} has"
                    : (Wording)$"{_count:#,0} clusters from host offset {host:#,0} on have";
                if (_stored > _counted)
                {
                    census.Findings.Leak($"{which} refcount {_stored} and {_counted} references.", "give the space back", host, _count);
                }
                else
                {
                    census.Findings.Corruption(
                        "Refcount",
                        $"{which} refcount {_stored} and {_counted} references.",
                        $"set the refcount to {_counted}", host: host, count: _count);
                }
            }
            _count = 0;
        }
    }
}
