namespace DiskImage.Metadata;

/// <summary>An offset in a file of blocks, in bytes. It has a type of its own where it meets offsets of the disk.</summary>
internal readonly record struct HostOffset(long Value)
{
    public static HostOffset operator +(HostOffset offset, long bytes) => new(offset.Value + bytes);
}

/// <summary>An offset of the disk that a file holds, in bytes.</summary>
internal readonly record struct GuestOffset(long Value)
{
    public static GuestOffset operator +(GuestOffset offset, long bytes) => new(offset.Value + bytes);
}
