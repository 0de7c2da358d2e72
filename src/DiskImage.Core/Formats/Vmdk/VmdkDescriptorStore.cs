using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>The descriptor in its file: of its own, or the sectors of a sparse extent that are set aside for it.</summary>
/// <param name="file">The file.</param>
/// <param name="offset">Where it begins.</param>
/// <param name="room">Bytes set aside for it; null if the file ends with it.</param>
/// <param name="there">Its bytes, and what follows them.</param>
internal sealed class VmdkDescriptorStore(BlockNode file, long offset, long? room, byte[] there)
{
    private byte[] _there = there;
    private bool _isSure = true; // that it is there

    /// <summary>What it says.</summary>
    public VmdkDescriptor Current { get; private set; } = VmdkDescriptor.Parse(there, file.Name);

    /// <summary>Reads the one that lies inside a sparse extent; null if there is none, or no text where it is said to be.</summary>
    public static async ValueTask<VmdkDescriptorStore?> ReadEmbeddedAsync(BlockNode file, VmdkHeader header,
        CancellationToken cancellationToken)
    {
        if (header.DescriptorSector == 0 || header.DescriptorSectors == 0)
        {
            return null;
        }
        long offset = header.DescriptorSector * VmdkHeader.SectorSize, room = RoomOf(header);
        int count = (int)Math.Clamp(Math.Min(room, file.Length - offset), 0, VmdkDescriptor.MaxBytes + 1L);
        byte[] bytes = new byte[count];
        await file.ReadPaddedAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
        return !VmdkDescriptor.IsSigned(bytes) ? null : new VmdkDescriptorStore(file, offset, room, bytes);
    }

    /// <summary>Bytes that are set aside for it: not more than there are before the next structure.</summary>
    public static long RoomOf(VmdkHeader header)
    {
        long sectors = header.DescriptorSectors;
        foreach (ulong next in new[] { header.DirectorySector, header.HasRedundant ? header.RedundantSector : VmdkHeader.AtEnd })
        {
            sectors = next > (ulong)header.DescriptorSector ? (long)Math.Min((ulong)sectors, next - (ulong)header.DescriptorSector)
                : sectors;
        }
        return sectors * VmdkHeader.SectorSize;
    }

    /// <summary>Reads a file that is a descriptor.</summary>
    public static async ValueTask<VmdkDescriptorStore> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[(int)Math.Min(file.Length, VmdkDescriptor.MaxBytes + 1L)];
        await file.ReadAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        return new VmdkDescriptorStore(file, 0, null, bytes);
    }

    /// <summary>
    /// Writes another in its place, durably: what differs, in one request, so that another CID changes eight bytes and no more.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption: there is no room.</exception>
    public async ValueTask SetAsync(VmdkDescriptor descriptor)
    {
        byte[] bytes = descriptor.ToBytes();
        long most = room ?? VmdkDescriptor.MaxBytes;
        if (bytes.Length > most)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{file.Name}: the descriptor would have {bytes.Length:#,0} bytes; there is room for {most:#,0}. Use a shorter name.",
                file.Name);
        }
        byte[] next = new byte[Math.Max(bytes.Length, _there.Length)]; // zeroes end a descriptor, until the file does
        bytes.CopyTo(next, 0);
        int first = _isSure ? next.AsSpan().CommonPrefixLength(_there) : 0, end = next.Length;
        while (_isSure && end > first && end <= _there.Length && next[end - 1] == _there[end - 1])
        {
            end--;
        }
        (_there, _isSure) = (next, false);
        if (end > first)
        {
            await file.WriteAsync(offset + first, next.AsMemory(first, end - first)).ConfigureAwait(false);
        }
        if (room is null && bytes.Length < file.Length)
        {
            await file.ResizeAsync(bytes.Length).ConfigureAwait(false);
            _there = bytes;
        }
        await file.FlushAsync().ConfigureAwait(false);
        (_isSure, Current) = (true, descriptor);
    }
}
