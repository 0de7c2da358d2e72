using DiskImage.Block;

namespace DiskImage.Protocols.Nvme;

/// <summary>What became of a command. Spec: NVM Express Base 2.0, section 3.3.3.2.1; NVM Command Set 1.0, section 3.2.</summary>
/// <param name="Bits">The status field without the phase: code, type, retry delay, more, do not retry.</param>
internal readonly record struct NvmeStatus(ushort Bits)
{
    private const int Generic = 0, Specific = 1, Media = 2, Path = 3, Vendor = 7;
    private const int InvalidOpcode = 0x01, InvalidField = 0x02, InvalidNamespace = 0x0B, WriteProtected = 0x20, CapacityExceeded = 0x81;
    private const int SizeLimit = 0x83, OperationDenied = 0x15, AccessDenied = 0x86, Conflict = 0x83;

    /// <summary>All went well.</summary>
    public bool IsGood => (Bits & 0x7FF) == 0;

    /// <summary>The same command would fail again.</summary>
    public bool IsFinal => (Bits & 0x4000) != 0;

    /// <summary>The controller does not know the command, or not so: something else must do.</summary>
    public bool IsUnknown => (Type, Code) is (Generic, InvalidOpcode or InvalidField) or (Specific, SizeLimit);

    /// <summary>There is no such namespace.</summary>
    public bool IsNoNamespace => (Type, Code) is (Generic, InvalidNamespace or InvalidField);

    /// <summary>What kind of failure it is.</summary>
    /// <param name="changes">Something was to be changed.</param>
    public DiskImageErrorKind KindOf(bool changes) => (Type, Code) switch
    {
        (Generic, WriteProtected) or (Specific, 0x82) => DiskImageErrorKind.ReadOnly,
        (Generic, CapacityExceeded) => DiskImageErrorKind.NoSpace,
        (Generic, Conflict) => DiskImageErrorKind.Locked,
        (Generic, OperationDenied) or (Media, AccessDenied) => DiskImageErrorKind.AccessDenied,
        _ => changes ? DiskImageErrorKind.WriteFailed : DiskImageErrorKind.Io,
    };

    /// <summary>In words, with the numbers for whoever looks them up.</summary>
    public override string ToString() => $"{Words ?? "a status that has no name"} ({TypeName} status 0x{Code:x2})";

    private int Code => Bits & 0xFF;

    private int Type => (Bits >> 8) & 7;

    private string TypeName => Type switch
    {
        Generic => "generic",
        Specific => "command specific",
        Media => "media and data integrity",
        Path => "path related",
        Vendor => "vendor specific",
        _ => "reserved",
    };

    private string? Words => (Type, Code) switch
    {
        (Generic, 0x00) => "success",
        (Generic, InvalidOpcode) => "invalid command opcode",
        (Generic, InvalidField) => "invalid field in the command",
        (Generic, 0x03) => "command number in use",
        (Generic, 0x04) => "data transfer error",
        (Generic, 0x05) => "aborted because power is being lost",
        (Generic, 0x06) => "internal error of the controller",
        (Generic, 0x07) => "abort requested",
        (Generic, 0x08) => "aborted because its queue was deleted",
        (Generic, InvalidNamespace) => "invalid namespace or format",
        (Generic, 0x0C) => "command sequence error",
        (Generic, 0x13) => "offset of the memory page invalid",
        (Generic, 0x14) => "atomic write unit exceeded",
        (Generic, OperationDenied) => "operation denied",
        (Generic, 0x1C) => "a sanitize operation failed",
        (Generic, 0x1D) => "a sanitize operation is under way",
        (Generic, WriteProtected) => "the namespace is write-protected",
        (Generic, 0x21) => "command interrupted",
        (Generic, 0x22) => "transient transport error",
        (Generic, 0x80) => "block address out of range",
        (Generic, CapacityExceeded) => "capacity exceeded",
        (Generic, 0x82) => "namespace not ready",
        (Generic, Conflict) => "another host has a reservation",
        (Generic, 0x84) => "a format is under way",
        (Specific, 0x00) => "completion queue invalid",
        (Specific, 0x01) => "invalid number of a queue",
        (Specific, 0x02) => "invalid size of a queue",
        (Specific, 0x08) => "invalid interrupt vector",
        (Specific, 0x80) => "conflicting attributes",
        (Specific, 0x81) => "invalid protection information",
        (Specific, 0x82) => "attempted write to a range that is read only",
        (Specific, SizeLimit) => "size limit of the command exceeded",
        (Specific, 0xB8) => "zone boundary error",
        (Specific, 0xB9) => "the zone is full",
        (Specific, 0xBA) => "the zone is read only",
        (Specific, 0xBB) => "the zone is offline",
        (Specific, 0xBC) => "write not at the zone's write pointer",
        (Media, 0x80) => "write fault",
        (Media, 0x81) => "unrecovered read error",
        (Media, 0x82) => "end-to-end guard check error",
        (Media, 0x83) => "end-to-end application tag check error",
        (Media, 0x84) => "end-to-end reference tag check error",
        (Media, 0x85) => "compare failure",
        (Media, AccessDenied) => "access denied: the namespace may be locked",
        (Media, 0x87) => "deallocated or unwritten block",
        (Path, 0x00) => "internal path error",
        (Path, 0x01) => "namespace not to be reached for good",
        (Path, 0x02) => "namespace not to be reached this way",
        (Path, 0x03) => "the way to the namespace is changing",
        _ => null,
    };
}
