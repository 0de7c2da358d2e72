namespace DiskImage.Partitions;

/// <summary>How a disk says where its partitions are.</summary>
public enum PartitionScheme
{
    /// <summary>In its first sector, and in a chain of such sectors for more than four.</summary>
    Mbr,

    /// <summary>In a table with checksums, and a copy of it at the disk's end.</summary>
    Gpt,
}

/// <summary>A partition of a disk.</summary>
/// <param name="Offset">Where it begins.</param>
/// <param name="Length">Its bytes, at least a sector.</param>
/// <param name="Type">Its type as the table has it: two hexadecimal digits of an MBR, or a GUID of a GPT.</param>
/// <param name="IsExtended">It is a container of logical partitions, which stand in the list too.</param>
public sealed record DiskPartition(long Offset, long Length, string Type, bool IsExtended = false)
{
    /// <summary>Where it ends.</summary>
    public long End => Offset + Length;
}
