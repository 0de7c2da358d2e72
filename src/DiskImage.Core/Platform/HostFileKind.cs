namespace DiskImage.Platform;

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
