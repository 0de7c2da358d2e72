using System.Text;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Flags of a bitmap directory entry. Spec: qcow2, "Bitmap directory".</summary>
[Flags]
internal enum Qcow2BitmapFlags : uint
{
    None = 0,

    /// <summary>The bitmap was not saved correctly: what it says cannot be relied on.</summary>
    InUse = 1,

    /// <summary>The bitmap must record every write: it is enabled.</summary>
    Auto = 2,

    /// <summary>Programs may use the bitmap without knowing its extra data.</summary>
    ExtraDataCompatible = 4,

    /// <summary>All that the specification has; the others must be clear.</summary>
    Known = InUse | Auto | ExtraDataCompatible,
}

/// <summary>One entry of the bitmap directory. Spec: qcow2, "Bitmap directory".</summary>
internal sealed record Qcow2BitmapEntry
{
    public const int FixedBytes = 24;
    public const int MaxNameBytes = 1023, MinGranularityBits = 9, MaxGranularityBits = 31; // QEMU's limits
    public const byte DirtyTracking = 1;

    public required string Name { get; init; }
    public required long TableOffset { get; init; }

    /// <summary>Entries of the bitmap table; each maps one cluster of bits.</summary>
    public required int TableSize { get; init; }

    public Qcow2BitmapFlags Flags { get; init; }
    public byte Type { get; init; } = DirtyTracking;
    public required int GranularityBits { get; init; }
    public byte[] ExtraData { get; init; } = [];

    /// <summary>The name as it stands in the image, where that is not UTF-8; else null.</summary>
    public byte[]? RawName { get; init; }

    public byte[] NameBytes => RawName ?? Encoding.UTF8.GetBytes(Name);

    public int Length => FixedBytes + ExtraData.Length + NameBytes.Length;
}

/// <summary>The bitmaps header extension and the directory it points to. Spec: qcow2, "Bitmaps extension", "Bitmap directory".</summary>
internal sealed record Qcow2BitmapDirectory(HostOffset Place, long Length, IReadOnlyList<Qcow2BitmapEntry> Entries)
{
    public const int ExtensionBytes = 24;
    public const int MaxBitmaps = 65535, MaxDirectoryBytes = 64 << 20, MaxTableEntries = 0x8000000 / 8; // QEMU's limits

    public static Qcow2BitmapDirectory Empty { get; } = new(default, 0, []);

    /// <summary>Reads the directory; empty if the image has none.</summary>
    /// <exception cref="DiskImageException">Corrupt; it names the field, its value and what is allowed.</exception>
    public static async ValueTask<Qcow2BitmapDirectory> ReadAsync(BlockNode file, Qcow2Header header, CancellationToken cancellationToken)
    {
        if (header.Extension(Qcow2Extension.Bitmaps) is not { } extension)
        {
            return Empty;
        }
        if (extension.Length < ExtensionBytes)
        {
            throw Wrong(file, 0, $"the bitmaps extension is {extension.Length} bytes long; allowed: {ExtensionBytes}");
        }
        uint count = BigEndian.U32(extension, 0);
        ulong length = BigEndian.U64(extension, 8), offset = BigEndian.U64(extension, 16);
        bool isPlace = offset != 0 && (offset & (ulong)(header.ClusterSize - 1)) == 0 && offset <= (ulong)file.Length
            && length <= (ulong)file.Length - offset;
        if (count is 0 or > MaxBitmaps || length > MaxDirectoryBytes || !isPlace)
        {
            throw Wrong(
                file, (long)Math.Min(offset, long.MaxValue),
                $"the bitmaps extension names {count} bitmaps in {length} bytes at offset {offset};"
                    + $" allowed: 1 to {MaxBitmaps} bitmaps, at most {MaxDirectoryBytes} bytes, at a cluster inside the file");
        }
        byte[] directory = new byte[length];
        await file.ReadAsync((long)offset, directory, cancellationToken).ConfigureAwait(false);
        var entries = new List<Qcow2BitmapEntry>();
        int at = 0;
        for (int i = 0; i < count; i++)
        {
            (Qcow2BitmapEntry entry, int used) = Parse(
                directory.AsSpan(Math.Min(at, directory.Length)), i, file, (long)offset + at, header);
            entries.Add(entry);
            at += used;
        }
        return new(new((long)offset), (long)length, entries);
    }

    /// <summary>The directory as it stands in the file.</summary>
    public static byte[] ToBytes(IEnumerable<Qcow2BitmapEntry> entries)
    {
        using var stream = new MemoryStream();
        foreach (Qcow2BitmapEntry entry in entries)
        {
            byte[] name = entry.NameBytes, bytes = new byte[Round.Up(entry.Length, 8)];
            BigEndian.U64(bytes, 0, (ulong)entry.TableOffset);
            BigEndian.U32(bytes, 8, (uint)entry.TableSize);
            BigEndian.U32(bytes, 12, (uint)entry.Flags);
            (bytes[16], bytes[17]) = (entry.Type, (byte)entry.GranularityBits);
            BigEndian.U16(bytes, 18, (ushort)name.Length);
            BigEndian.U32(bytes, 20, (uint)entry.ExtraData.Length);
            entry.ExtraData.CopyTo(bytes, Qcow2BitmapEntry.FixedBytes);
            name.CopyTo(bytes, Qcow2BitmapEntry.FixedBytes + entry.ExtraData.Length);
            stream.Write(bytes);
        }
        return stream.ToArray();
    }

    /// <summary>The header extension that points to a directory.</summary>
    public static Qcow2Extension ToExtension(int count, long offset, long length)
    {
        byte[] bytes = new byte[ExtensionBytes];
        BigEndian.U32(bytes, 0, (uint)count);
        BigEndian.U64(bytes, 8, (ulong)length);
        BigEndian.U64(bytes, 16, (ulong)offset);
        return new(Qcow2Extension.Bitmaps, bytes);
    }

    private static (Qcow2BitmapEntry Entry, int Length) Parse(
        ReadOnlySpan<byte> bytes, int index, BlockNode file, long at, Qcow2Header header)
    {
        if (bytes.Length < Qcow2BitmapEntry.FixedBytes)
        {
            throw Wrong(file, at, $"bitmap directory entry {index} lies past the end of the directory");
        }
        int nameLength = BigEndian.U16(bytes, 18);
        uint extraLength = BigEndian.U32(bytes, 20), tableSize = BigEndian.U32(bytes, 8);
        long tableOffset = (long)BigEndian.U64(bytes, 0);
        long total = Qcow2BitmapEntry.FixedBytes + (long)extraLength + nameLength;
        if (total > bytes.Length || nameLength is 0 or > Qcow2BitmapEntry.MaxNameBytes)
        {
            throw Wrong(
                file, at,
                $"bitmap directory entry {index} has a name of {nameLength} and extra data of {extraLength} bytes;"
                    + $" allowed: a name of 1 to {Qcow2BitmapEntry.MaxNameBytes}, all inside the directory");
        }
        if (bytes[17] is < Qcow2BitmapEntry.MinGranularityBits or > Qcow2BitmapEntry.MaxGranularityBits)
        {
            throw Wrong(
                file, at,
                $"bitmap directory entry {index} has granularity_bits {bytes[17]};"
                    + $" allowed: {Qcow2BitmapEntry.MinGranularityBits} to {Qcow2BitmapEntry.MaxGranularityBits}");
        }
        bool isPlace = tableOffset > 0 && (tableOffset & (header.ClusterSize - 1)) == 0 && tableOffset <= file.Length - (tableSize * 8L);
        if (tableSize is 0 or > MaxTableEntries || !isPlace)
        {
            throw Wrong(
                file, at,
                $"bitmap directory entry {index} has a table of {tableSize} entries at offset {tableOffset};"
                    + $" allowed: 1 to {MaxTableEntries} entries at a cluster inside the file");
        }
        byte[] nameBytes = bytes.Slice(Qcow2BitmapEntry.FixedBytes + (int)extraLength, nameLength).ToArray();
        string name = Encoding.UTF8.GetString(nameBytes);
        var entry = new Qcow2BitmapEntry
        {
            TableOffset = tableOffset,
            TableSize = (int)tableSize,
            Flags = (Qcow2BitmapFlags)BigEndian.U32(bytes, 12),
            Type = bytes[16],
            GranularityBits = bytes[17],
            ExtraData = bytes.Slice(Qcow2BitmapEntry.FixedBytes, (int)extraLength).ToArray(),
            Name = name,
            RawName = Encoding.UTF8.GetBytes(name).AsSpan().SequenceEqual(nameBytes) ? null : nameBytes,
        };
        return (entry, (int)Round.Up(total, 8));
    }

    private static DiskImageException Wrong(BlockNode file, long offset, string what)
        => new(
            DiskImageErrorKind.Corrupt, $"{file.Name}: {what}. Look at all of it with {new Remedy(RemedyKind.Check)}.", file.Name, offset);
}
