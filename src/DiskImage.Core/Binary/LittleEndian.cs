using System.Buffers.Binary;

namespace DiskImage.Binary;

/// <summary>Little-endian fields at byte offsets of a structure.</summary>
internal static class LittleEndian
{
    private const int GuidBytes = 16;

    public static ushort U16(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes[at..]);

    public static uint U32(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);

    public static ulong U64(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..]);

    /// <summary>A GUID as Windows stores it: three little-endian numbers, then eight bytes.</summary>
    public static Guid Guid(ReadOnlySpan<byte> bytes, int at) => new(bytes.Slice(at, GuidBytes));

    public static void U16(Span<byte> bytes, int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(bytes[at..], value);

    public static void U32(Span<byte> bytes, int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(bytes[at..], value);

    public static void U64(Span<byte> bytes, int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(bytes[at..], value);

    public static void Guid(Span<byte> bytes, int at, Guid value) => _ = value.TryWriteBytes(bytes.Slice(at, GuidBytes));
}
