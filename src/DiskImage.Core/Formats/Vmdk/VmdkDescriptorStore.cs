using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>The descriptor in its file: of its own, or the sectors of a sparse extent that are set aside for it.</summary>
/// <param name="file">The file.</param>
/// <param name="offset">Where it begins.</param>
/// <param name="room">Bytes set aside for it; null if the file ends with it.</param>
/// <param name="current">What it says.</param>
internal sealed class VmdkDescriptorStore(BlockNode file, long offset, long? room, VmdkDescriptor current)
{
    /// <summary>What it says.</summary>
    public VmdkDescriptor Current { get; private set; } = current;

    /// <summary>Reads the one that lies inside a sparse extent; null if there is none, or no text where it is said to be.</summary>
    public static async ValueTask<VmdkDescriptorStore?> ReadEmbeddedAsync(BlockNode file, VmdkHeader header, CancellationToken cancellationToken)
    {
        if (header.DescriptorSector == 0 || header.DescriptorSectors == 0)
        {
            return null;
        }
        long offset = header.DescriptorSector * VmdkHeader.SectorSize, room = RoomOf(header);
        int count = (int)Math.Clamp(Math.Min(room, file.Length - offset), 0, VmdkDescriptor.MaxBytes + 1L);
        byte[] bytes = new byte[count];
        await file.ReadPaddedAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
        return !VmdkDescriptor.IsSigned(bytes) ? null : new VmdkDescriptorStore(file, offset, room, VmdkDescriptor.Parse(bytes, file.Name));
    }

    /// <summary>Bytes that are set aside for it: not more than there are before the next structure.</summary>
    public static long RoomOf(VmdkHeader header)
    {
        long sectors = header.DescriptorSectors;
        foreach (ulong next in new[] { header.DirectorySector, header.HasRedundant ? header.RedundantSector : VmdkHeader.AtEnd })
        {
            sectors = next > (ulong)header.DescriptorSector ? (long)Math.Min((ulong)sectors, next - (ulong)header.DescriptorSector) : sectors;
        }
        return sectors * VmdkHeader.SectorSize;
    }

    /// <summary>Reads a file that is a descriptor.</summary>
    public static async ValueTask<VmdkDescriptorStore> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[(int)Math.Min(file.Length, VmdkDescriptor.MaxBytes + 1L)];
        await file.ReadAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        return new VmdkDescriptorStore(file, 0, null, VmdkDescriptor.Parse(bytes, file.Name));
    }

    /// <summary>Writes another in its place, in one request, durably.</summary>
    /// <exception cref="DiskImageException">InvalidOption: there is no room.</exception>
    public async ValueTask SetAsync(VmdkDescriptor descriptor)
    {
        byte[] bytes = descriptor.ToBytes(), old = Current.ToBytes();
        if (bytes.Length > (room ?? VmdkDescriptor.MaxBytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{file.Name}: the descriptor would have {bytes.Length:#,0} bytes; there is room for {room ?? VmdkDescriptor.MaxBytes:#,0}. Use a shorter name.",
                file.Name);
        }
        if (room is long most)
        {
            byte[] padded = new byte[Math.Min(most, Round.Up(Math.Max(bytes.Length, old.Length), VmdkHeader.SectorSize))];
            bytes.CopyTo(padded, 0);
            await file.WriteAsync(offset, padded).ConfigureAwait(false);
        }
        else
        {
            byte[] padded = new byte[Math.Max(bytes.Length, old.Length)]; // zeroes end a descriptor, until the file does
            bytes.CopyTo(padded, 0);
            await file.WriteAsync(offset, padded).ConfigureAwait(false);
            if (bytes.Length < file.Length)
            {
                await file.ResizeAsync(bytes.Length).ConfigureAwait(false);
            }
        }
        await file.FlushAsync().ConfigureAwait(false);
        Current = descriptor;
    }
}
