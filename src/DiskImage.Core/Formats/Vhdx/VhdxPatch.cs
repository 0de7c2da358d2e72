using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// Changes to structures of the file, as whole sectors for the log. What it reads must have no changes waiting elsewhere.
/// </summary>
internal sealed class VhdxPatch(BlockNode file)
{
    private readonly SortedDictionary<long, byte[]> _sectors = [];

    /// <summary>The sectors as they will be.</summary>
    public IReadOnlyList<VhdxLogUpdate> Updates => [.. _sectors.Select(s => VhdxLogUpdate.Sector(s.Key, s.Value))];

    /// <summary>Puts bytes at an offset of the file.</summary>
    public async ValueTask PutAsync(long offset, ReadOnlyMemory<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            long at = Round.Down(offset, VhdxLayout.Sector);
            if (!_sectors.TryGetValue(at, out byte[]? sector))
            {
                sector = new byte[VhdxLayout.Sector];
                await file.ReadPaddedAsync(at, sector).ConfigureAwait(false);
                _sectors.Add(at, sector);
            }
            int start = (int)(offset - at), count = Math.Min(bytes.Length, VhdxLayout.Sector - start);
            bytes[..count].CopyTo(sector.AsMemory(start));
            (offset, bytes) = (offset + count, bytes[count..]);
        }
    }
}
