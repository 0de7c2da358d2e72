using DiskImage.Options;

namespace DiskImage.Formats.Qcow2;

/// <summary>Features that a program must know to open the image. Spec: qcow2, "Header", bytes 72-79.</summary>
[Flags]
internal enum Qcow2Incompatible : ulong
{
    None = 0,

    /// <summary>Refcounts may be wrong and must be rebuilt before they are relied on.</summary>
    Dirty = 1,

    /// <summary>Some structure is broken; the image may be read but not written.</summary>
    Corrupt = 2,

    /// <summary>Guest data lives in another file.</summary>
    ExternalDataFile = 4,

    /// <summary>Compressed clusters are not zlib.</summary>
    CompressionType = 8,

    /// <summary>L2 entries are 128 bits, with a bitmap of 32 subclusters.</summary>
    ExtendedL2 = 16,

    /// <summary>What this program reads.</summary>
    Known = Dirty | Corrupt | ExternalDataFile | CompressionType | ExtendedL2,
}

/// <summary>Features that may be ignored. Spec: qcow2, "Header", bytes 80-87.</summary>
[Flags]
internal enum Qcow2Compatible : ulong
{
    None = 0,

    /// <summary>Writers may postpone refcount updates while the dirty bit is set.</summary>
    LazyRefcounts = 1,
}

/// <summary>Features whose bits a writer that does not know them clears. Spec: qcow2, "Header", bytes 88-95.</summary>
[Flags]
internal enum Qcow2AutoClear : ulong
{
    None = 0,

    /// <summary>The bitmaps extension is consistent with the image.</summary>
    Bitmaps = 1,

    /// <summary>The external data file can be read as a raw image.</summary>
    RawExternalData = 2,

    /// <summary>What this program keeps right.</summary>
    Known = Bitmaps | RawExternalData,
}

/// <summary>How clusters are compressed. Spec: qcow2, "Header", byte 104.</summary>
internal enum Qcow2CompressionType
{
    /// <summary>Raw deflate streams.</summary>
    Zlib,

    /// <summary>Zstandard frames.</summary>
    Zstd,
}

/// <summary>The version of the format.</summary>
public enum Qcow2Compat
{
    /// <summary>Version 2: read by QEMU since 0.10.</summary>
    [OptionText("0.10", "v2")]
    V2 = 2,

    /// <summary>Version 3: read by QEMU since 1.1.</summary>
    [OptionText("1.1", "v3")]
    V3 = 3,
}
