using System.Buffers;
using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The "refcount is exactly one" flags: an active table entry bears it exactly if what it points to has one reference.</summary>
internal sealed class Qcow2FlagCheck(Qcow2Census census)
{
    private Qcow2Geometry Geometry => census.Geometry;

    /// <summary>Looks at the flags of an active L1 table of so many entries. Everything must be counted.</summary>
    public async ValueTask RunAsync(int l1Entries)
    {
        long l1Offset = census.Header.L1TableOffset;
        if (!census.IsTable(l1Offset, Qcow2Census.ActiveL1))
        {
            return;
        }
        ulong[] l1 = await census.ReadTableAsync(l1Offset, l1Entries).ConfigureAwait(false);
        byte[] table = ArrayPool<byte>.Shared.Rent(Geometry.ClusterSize);
        var shared = new HashSet<long>(); // looked at already
        for (int i = 0; i < l1.Length; i++)
        {
            long l2 = L2Entry.OffsetOf(l1[i]), guest = i * Geometry.L2Span;
            if (l2 == 0 || !census.IsTable(l2, Qcow2Census.L2Table))
            {
                continue;
            }
            census.CancellationToken.ThrowIfCancellationRequested();
            Check(l1[i], l2, guest, l1Offset + (i * 8L), "L2 table");
            if (census.References[l2 >> Geometry.ClusterBits] > 1 && !shared.Add(l2))
            {
                continue;
            }
            await census.File.ReadPaddedAsync(l2, table.AsMemory(0, Geometry.ClusterSize), census.CancellationToken).ConfigureAwait(false);
            CheckL2(table.AsSpan(0, Geometry.ClusterSize), l2, guest);
        }
        ArrayPool<byte>.Shared.Return(table);
    }

    private void CheckL2(ReadOnlySpan<byte> table, long l2, long guest)
    {
        SparseCounters references = census.References;
        int bits = Geometry.ClusterBits, clusterSize = Geometry.ClusterSize;
        int bytesOfEntry = Geometry.L2EntryBytes, entries = Geometry.L2Entries;
        bool isExternal = census.IsExternal, plain = !isExternal && !Geometry.HasSubclusters;
        for (int k = 0; k < entries; k++, guest += clusterSize)
        {
            var entry = new L2Entry(BigEndian.U64(table, k * bytesOfEntry));
            long host = entry.Place.Value, at = l2 + (k * bytesOfEntry);
            if (!isExternal && entry.IsCopied && references[host >> bits] == 1)
            {
                int run = plain && !entry.IsCompressed ? L2Entry.RunIn(table, k, entry.Raw, clusterSize) : 1;
                if (run > 1 && references.AreAll(host >> bits, run, 1))
                {
                    (k, guest) = (k + run - 1, guest + ((run - 1L) * clusterSize));
                }
                continue;
            }
            if (isExternal && entry is { IsCompressed: false, HasPlace: true, IsCopied: false }) // what lies there has no refcounts
            {
                census.Findings.Corruption(
                    "CopiedFlag",
                    $"The data cluster for guest offset {guest:#,0} lies in the external data file and lacks the flag that says it has"
                        + $" one reference.",
                    "set the flag", guest, Geometry.ClusterSize, at);
            }
            else if (entry is { IsCompressed: false, HasPlace: true } && Geometry.InCluster(host) == 0 && !isExternal)
            {
                Check(entry.Raw, host, guest, at, "data cluster");
            }
        }
    }

    private void Check(ulong raw, long host, long guest, long at, string what)
    {
        bool flag = new L2Entry(raw).IsCopied;
        ulong count = census.References[host >> Geometry.ClusterBits];
        if (flag != (count == 1))
        {
            census.Findings.Corruption(
                "CopiedFlag",
                $"The {what} for guest offset {guest:#,0} has {count} references and {(flag ? "bears" : "lacks")} the flag that says it"
                    + $" has one.",
                flag ? "clear the flag" : "set the flag", guest, Geometry.ClusterSize, at);
        }
    }
}
