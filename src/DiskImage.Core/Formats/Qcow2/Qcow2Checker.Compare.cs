using System.Buffers;
using DiskImage.Binary;

namespace DiskImage.Formats.Qcow2;

/// <summary>The comparison of what was counted with what is stored.</summary>
internal sealed partial class Qcow2Checker
{
    private async ValueTask CompareRefcountsAsync()
    {
        int perBlock = 1 << _geometry.RefcountsPerBlockBits;
        long countedEnd = References.End;
        byte[] block = new byte[_geometry.ClusterSize];
        var run = new MismatchRun(this);
        for (int i = 0; i < RefcountTable.Length; i++)
        {
            if (RefcountTable[i] == 0)
            {
                continue;
            }
            _cancellationToken.ThrowIfCancellationRequested();
            await _file.ReadPaddedAsync((long)RefcountTable[i], block, _cancellationToken).ConfigureAwait(false);
            long first = (long)i << _geometry.RefcountsPerBlockBits;
            int end = first + perBlock > countedEnd ? Math.Max((int)Math.Clamp(countedEnd - first, 0, perBlock), Math.Min(perBlock, LastUsed(block) + 1)) : perBlock;
            for (int k = 0; k < end; k++)
            {
                ulong stored = RefcountBlock.Get(block, k, _geometry.RefcountOrder), counted = References[first + k];
                if ((stored | counted) != 0)
                {
                    _highest = Math.Max(_highest, first + k);
                    if (stored == counted)
                    {
                        run.End();
                        continue;
                    }
                    NeedsRebuild |= counted > _geometry.MaxRefcount;
                    _hasTooLow |= stored < counted;
                    _headerIsUnused |= first + k == 0 && stored == 0;
                    _rootIsUnused |= stored == 0 && counted > 0 && IsTable((first + k) << _geometry.ClusterBits, ActiveL1);
                    run.Add(first + k, stored, counted);
                }
            }
        }
        run.End();
        foreach ((long first, long count) in References.Ranges)
        {
            for (long cluster = first; cluster < first + count; cluster++)
            {
                long index = cluster >> _geometry.RefcountsPerBlockBits;
                if (References[cluster] != 0 && (index >= RefcountTable.Length || RefcountTable[index] == 0))
                {
                    _highest = Math.Max(_highest, cluster);
                    run.Add(cluster, 0, References[cluster]);
                    NeedsRebuild = true;
                }
            }
        }
        run.End();

        static int LastUsed(ReadOnlySpan<byte> bytes)
        {
            int last = bytes.LastIndexOfAnyExcept((byte)0);
            return last < 0 ? -1 : Math.Min(int.MaxValue - 1, (last + 1) * 8);
        }
    }

    /// <summary>An active table entry bears the flag exactly if what it points to has one reference.</summary>
    private async ValueTask CheckCopiedFlagsAsync()
    {
        if (!IsTable(_header.L1TableOffset, ActiveL1))
        {
            return;
        }
        ulong[] l1 = await ReadTableAsync(_header.L1TableOffset, L1Entries).ConfigureAwait(false);
        byte[] table = ArrayPool<byte>.Shared.Rent(_geometry.ClusterSize);
        var shared = new HashSet<long>(); // looked at already
        for (int i = 0; i < l1.Length; i++)
        {
            long l2 = L2Entry.OffsetOf(l1[i]);
            if (l2 == 0 || !IsTable(l2, L2Table))
            {
                continue;
            }
            _cancellationToken.ThrowIfCancellationRequested();
            CheckFlag(l1[i], l2, i * _geometry.L2Span, _header.L1TableOffset + (i * 8L), "L2 table");
            if (References[l2 >> _geometry.ClusterBits] > 1 && !shared.Add(l2))
            {
                continue;
            }
            await _file.ReadPaddedAsync(l2, table.AsMemory(0, _geometry.ClusterSize), _cancellationToken).ConfigureAwait(false);
            for (int k = 0; k < _geometry.L2Entries; k++)
            {
                var entry = new L2Entry(BigEndian.U64(table, k * _geometry.L2EntryBytes));
                if (!_external && entry.IsCopied && References[entry.Place.Value >> _geometry.ClusterBits] == 1)
                {
                    continue;
                }
                if (_external && !entry.IsCompressed && entry.HasPlace && !entry.IsCopied) // what lies there has no refcounts
                {
                    Findings.Corruption(
                        "CopiedFlag", $"The data cluster for guest offset {(i * _geometry.L2Span) + ((long)k << _geometry.ClusterBits):#,0} lies in the external data file and lacks the flag that says it has one reference.",
                        "set the flag", (i * _geometry.L2Span) + ((long)k << _geometry.ClusterBits), _geometry.ClusterSize, l2 + (k * _geometry.L2EntryBytes));
                }
                else if (!entry.IsCompressed && entry.HasPlace && _geometry.InCluster(entry.Place.Value) == 0 && !_external)
                {
                    CheckFlag(entry.Raw, entry.Place.Value, (i * _geometry.L2Span) + ((long)k << _geometry.ClusterBits), l2 + (k * _geometry.L2EntryBytes), "data cluster");
                }
            }
        }
        ArrayPool<byte>.Shared.Return(table);
    }

    private void CheckFlag(ulong raw, long host, long guest, long at, string what)
    {
        bool flag = new L2Entry(raw).IsCopied;
        ulong count = References[host >> _geometry.ClusterBits];
        if (flag != (count == 1))
        {
            Findings.Corruption(
                "CopiedFlag", $"The {what} for guest offset {guest:#,0} has {count} references and {(flag ? "bears" : "lacks")} the flag that says it has one.",
                flag ? "clear the flag" : "set the flag", guest, _geometry.ClusterSize, at);
        }
    }

    /// <summary>Joins neighbouring clusters with the same wrong refcount into one finding.</summary>
    private sealed class MismatchRun(Qcow2Checker checker)
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
                long host = _first << checker._geometry.ClusterBits;
                string which = _count == 1 ? $"The cluster at host offset {host:#,0} has" : $"{_count:#,0} clusters from host offset {host:#,0} on have";
                string message = $"{which} refcount {_stored} and {_counted} references.";
                if (_stored > _counted)
                {
                    checker.Findings.Leak(message, "give the space back", host, _count);
                }
                else
                {
                    checker.Findings.Corruption("Refcount", message, $"set the refcount to {_counted}", host: host, count: _count);
                }
            }
            _count = 0;
        }
    }
}
