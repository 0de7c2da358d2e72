namespace DiskImage.Protocols.Nbd;

/// <summary>
/// The numbers of the NBD protocol. Source: doc/proto.md of the NetworkBlockDevice project. All integers on the wire are big-endian.
/// </summary>
internal static class NbdWire
{
    public const ulong Magic = 0x4e42444d41474943; // "NBDMAGIC"
    public const ulong OptionMagic = 0x49484156454F5054; // "IHAVEOPT"
    public const ulong OldMagic = 0x00420281861253;
    public const ulong OptionReplyMagic = 0x3e889045565a9;

    public const uint RequestMagic = 0x25609513;
    public const uint ExtendedRequestMagic = 0x21e41c71;
    public const uint SimpleReplyMagic = 0x67446698;
    public const uint StructuredReplyMagic = 0x668e33ef;
    public const uint ExtendedReplyMagic = 0x6e8a278c;

    public const int RequestLength = 28, ExtendedRequestLength = 32;
    public const int SimpleReplyLength = 16, StructuredReplyLength = 20, ExtendedReplyLength = 32;

    /// <summary>Bytes of zeroes that end the answer to the oldest way of choosing an export.</summary>
    public const int ExportPadding = 124;

    /// <summary>Bytes of a name or another text at most. Spec.</summary>
    public const int MaximumText = 4096;

    /// <summary>Bytes of data in one request at most where a server says nothing else. Spec.</summary>
    public const int MaximumPayload = 32 << 20;

    /// <summary>The port of NBD, by IANA.</summary>
    public const int Port = 10809;

    /// <summary>The context of allocation that every server with contexts has.</summary>
    public const string AllocationContext = "base:allocation";

    /// <summary>QEMU's context of how deep in a chain bytes are decided.</summary>
    public const string DepthContext = "qemu:allocation-depth";

    /// <summary>What the names of QEMU's contexts of dirty bitmaps begin with.</summary>
    public const string BitmapContext = "qemu:dirty-bitmap:";
}

/// <summary>What a server says of itself before anything else, and a client answers.</summary>
[Flags]
internal enum NbdHandshakeFlags
{
    None = 0,
    FixedNewStyle = 1,
    NoZeroes = 2,
}

/// <summary>What a server can do with an export.</summary>
[Flags]
internal enum NbdExportFlags
{
    None = 0,
    HasFlags = 1,
    ReadOnly = 1 << 1,
    SendFlush = 1 << 2,
    SendFua = 1 << 3,
    Rotational = 1 << 4,
    SendTrim = 1 << 5,
    SendWriteZeroes = 1 << 6,
    SendDontFragment = 1 << 7,
    CanMultiConnect = 1 << 8,
    SendResize = 1 << 9,
    SendCache = 1 << 10,
    SendFastZero = 1 << 11,
    BlockStatusPayload = 1 << 12,
}

/// <summary>What a client asks of a server before it chooses an export.</summary>
internal enum NbdOption : uint
{
    ExportName = 1,
    Abort = 2,
    List = 3,
    StartTls = 5,
    Info = 6,
    Go = 7,
    StructuredReply = 8,
    ListMetaContext = 9,
    SetMetaContext = 10,
    ExtendedHeaders = 11,
}

/// <summary>How a server answers an option. Those with the highest bit are errors.</summary>
internal enum NbdOptionReply : uint
{
    Ack = 1,
    Server = 2,
    Info = 3,
    MetaContext = 4,
    Error = 1u << 31,
    Unsupported = Error + 1,
    Policy = Error + 2,
    Invalid = Error + 3,
    Platform = Error + 4,
    TlsRequired = Error + 5,
    Unknown = Error + 6,
    Shutdown = Error + 7,
    BlockSizeRequired = Error + 8,
    TooBig = Error + 9,
    ExtendedHeadersRequired = Error + 10,
}

/// <summary>What is told of an export.</summary>
internal enum NbdInfo
{
    Export = 0,
    Name = 1,
    Description = 2,
    BlockSize = 3,
}

/// <summary>What is asked of an export.</summary>
internal enum NbdCommand
{
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    Cache = 5,
    WriteZeroes = 6,
    BlockStatus = 7,
    Resize = 8,
}

/// <summary>How it is asked.</summary>
[Flags]
internal enum NbdCommandFlags
{
    None = 0,
    Fua = 1,
    NoHole = 2,
    DontFragment = 4,
    OneExtent = 8,
    FastZero = 16,
    PayloadLength = 32,
}

/// <summary>What a piece of an answer holds. Those with the highest bit are errors.</summary>
internal enum NbdChunk
{
    None = 0,
    Data = 1,
    Hole = 2,
    BlockStatus = 5,
    BlockStatusExtended = 6,
    Error = 0x8001,
    ErrorOffset = 0x8002,
}

/// <summary>Errors of requests; the numbers are those of Linux.</summary>
internal enum NbdError
{
    None = 0,
    NotPermitted = 1,
    Io = 5,
    NoMemory = 12,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    NotSupported = 95,
    Shutdown = 108,
}

/// <summary>Bits of an extent in the context of allocation.</summary>
[Flags]
internal enum NbdAllocation
{
    Data = 0,
    Hole = 1,
    Zero = 2,
}
