namespace DiskImage.Protocols.Ssh;

/// <summary>
/// The numbers of SFTP, version 3. Sources: draft-ietf-secsh-filexfer-02, and the file PROTOCOL of OpenSSH for its extensions. All integers
/// on the wire are big-endian; a string is its length in 32 bits and its bytes.
/// </summary>
internal static class SftpWire
{
    /// <summary>The version that is spoken.</summary>
    public const uint Version = 3;

    /// <summary>Bytes of a packet before what its type decides: length, type, and the number of its request.</summary>
    public const int HeadLength = 9;

    /// <summary>Bytes of a handle at most. Draft, section 3.</summary>
    public const int LongestHandle = 256;

    /// <summary>Bytes of a path at most. Ours; Linux and macOS have no longer ones.</summary>
    public const int LongestPath = 4096;

    /// <summary>Bytes of an answer without a file's data at most. Ours: paths and texts are shorter.</summary>
    public const int LongestReply = 64 << 10;

    /// <summary>Bytes of data in one request that every server takes. Draft, section 3: packets of 34000 bytes.</summary>
    public const int SafeTransfer = 32 << 10;

    /// <summary>Bytes of data in one request at most, whatever a server allows: OpenSSH has no room for more.</summary>
    public const int LargestTransfer = 256 << 10;

    /// <summary>Replaces the file that has the new name, in one step.</summary>
    public const string PosixRename = "posix-rename@openssh.com";

    /// <summary>Has the server's host write a file back.</summary>
    public const string FileSync = "fsync@openssh.com";

    /// <summary>Tells how much one request may move.</summary>
    public const string Limits = "limits@openssh.com";

    /// <summary>Tells how much room there is.</summary>
    public const string FileSystem = "fstatvfs@openssh.com";
}

/// <summary>What a packet is.</summary>
internal enum SftpPacket : byte
{
    None = 0,
    Init = 1,
    Version = 2,
    Open = 3,
    Close = 4,
    Read = 5,
    Write = 6,
    LinkStat = 7,
    FileStat = 8,
    SetStat = 9,
    FileSetStat = 10,
    Remove = 13,
    RealPath = 16,
    Stat = 17,
    Rename = 18,
    Status = 101,
    Handle = 102,
    Data = 103,
    Name = 104,
    Attributes = 105,
    Extended = 200,
    ExtendedReply = 201,
}

/// <summary>How a request ended.</summary>
internal enum SftpStatus : uint
{
    Ok = 0,
    EndOfFile = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    NoConnection = 6,
    ConnectionLost = 7,
    Unsupported = 8,
}

/// <summary>How a file is opened.</summary>
[Flags]
internal enum SftpOpen : uint
{
    None = 0,
    Read = 1,
    Write = 2,
    Create = 8,
    Truncate = 16,
    Exclusive = 32,
}

/// <summary>What is told of a file.</summary>
[Flags]
internal enum SftpAttributeFlags : uint
{
    None = 0,
    Size = 1,
    Owner = 2,
    Permissions = 4,
    Times = 8,
    Extended = 1u << 31,
}
