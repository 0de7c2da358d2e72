using DiskImage.Block;
using DiskImage.Crypto.Luks;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Luks;

/// <summary>Options when a LUKS image is opened.</summary>
internal sealed record LuksOpenOptions
{
    /// <summary>What every LUKS header is opened with.</summary>
    [DriverOptionGroup]
    public LuksOpening Opening { get; init; } = new();
}

/// <summary>Options when a LUKS image is made. Names and defaults are QEMU's.</summary>
internal sealed record LuksCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>The version of the format.</summary>
    [DriverOption("version", "Version of the format: 1, which QEMU reads and writes, or 2 (keys by Argon2id)", Minimum = 1, Maximum = 2)]
    public int Version { get; init; } = 1;

    /// <summary>What every LUKS header is made with.</summary>
    [DriverOptionGroup]
    public LuksParameters Parameters { get; init; } = new();

    /// <summary>The header alone.</summary>
    [DriverOption("detached-header", "Make the header alone; the data is in a file of its own")]
    public bool DetachedHeader { get; init; }

    /// <summary>Space claimed ahead of its use.</summary>
    [DriverOption("preallocation", "Space claimed ahead: off, falloc (reserved), full (written)")]
    public LuksPreallocation Preallocation { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>The preallocation modes of a format without tables.</summary>
internal enum LuksPreallocation
{
    /// <summary>A hole.</summary>
    Off = PreallocationMode.Off,

    /// <summary>Reserved without being written.</summary>
    Falloc = PreallocationMode.Falloc,

    /// <summary>Every byte is written.</summary>
    Full = PreallocationMode.Full,
}
