using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Decompresses compressed clusters: an entry that is astray, or data that was cut off with the file, is told by nothing else.
/// </summary>
internal sealed class Qcow2PackedCheck(Qcow2Census census)
{
    /// <summary>
    /// Compressed clusters that do not decompress: they were cut off with the file, or their entry leads to something else.
    /// </summary>
    public HashSet<L2Entry> Broken { get; } = [];

    public async ValueTask RunAsync(Dictionary<L2Entry, (long Guest, long At)> clusters)
    {
        if (clusters.Count == 0)
        {
            return;
        }
        BlockNode file = census.File;
        int size = census.Geometry.ClusterSize;
        IBlockDecompressor decompressor = Qcow2Compression.Decompressor(census.Header.CompressionType);
        byte[] cluster = new byte[size], packed = new byte[(2 * size) + 512];
        foreach ((L2Entry entry, (long guest, long at)) in clusters)
        {
            census.CancellationToken.ThrowIfCancellationRequested();
            (HostOffset place, int length) = entry.CompressedRange(census.Geometry.ClusterBits);
            bool isCut = length > file.Length - place.Value;
            length = (int)Math.Min(Math.Min(length, packed.Length), file.Length - place.Value);
            await file.ReadAsync(place.Value, packed.AsMemory(0, length), census.CancellationToken).ConfigureAwait(false);
            if (!decompressor.TryDecompress(packed.AsSpan(0, length), cluster))
            {
                _ = Broken.Add(entry);
                Wording what = isCut
                    ? (Wording)($"goes on past the end of the file of {file.Length:#,0} bytes, which has {length:#,0} of its bytes:"
                        + $" it was cut off")
                    : "does not decompress";
                census.Findings.Corruption(
                    "CompressedData", $"The compressed cluster for guest offset {guest:#,0} at offset {place.Value:#,0} {what}.",
                    "make it read as zeroes", guest, size, at);
            }
        }
    }
}
