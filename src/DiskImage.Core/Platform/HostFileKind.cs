using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>An open file whose reads and writes go past the host's cache.</summary>
/// <param name="Handle">The file.</param>
/// <param name="RequestAlignment">Offset and length of a request are multiples of it; 1 where any will do.</param>
/// <param name="MemoryAlignment">The address of a request's first byte is a multiple of it; 1 where any will do.</param>
internal readonly record struct DirectFile(SafeFileHandle Handle, int RequestAlignment, int MemoryAlignment);

/// <summary>What a path leads to.</summary>
internal enum HostFileKind
{
    /// <summary>Nothing there.</summary>
    None,

    /// <summary>A regular file.</summary>
    Regular,

    /// <summary>A folder.</summary>
    Directory,

    /// <summary>A device: block or character device, <c>\\.\</c> name.</summary>
    Device,

    /// <summary>A pipe with a name: bytes in order, and no others.</summary>
    Pipe,

    /// <summary>A socket or anything else that has no bytes at offsets.</summary>
    Other,
}

/// <summary>Whom an open file is shared with, among programs that heed the runtime's kind of file sharing.</summary>
internal enum HostSharing
{
    /// <summary>Nobody: for writing.</summary>
    Nobody,

    /// <summary>Readers.</summary>
    Readers,

    /// <summary>Everybody, writers too.</summary>
    Everybody,
}

/// <summary>What became of a byte lock, or of a look for one.</summary>
internal enum ByteLockResult
{
    /// <summary>It is held now; or nobody holds the byte.</summary>
    Free,

    /// <summary>Another open file holds the byte.</summary>
    Taken,

    /// <summary>The file system or host has no such locks.</summary>
    Unsupported,
}
