namespace DiskImage.Protocols.Iscsi;

/// <summary>How a command ended. Spec: SAM-5, status codes.</summary>
internal enum ScsiStatus : byte
{
    Good = 0x00,
    CheckCondition = 0x02,
    ConditionMet = 0x04,
    Busy = 0x08,
    ReservationConflict = 0x18,
    TaskSetFull = 0x28,
    AcaActive = 0x30,
    TaskAborted = 0x40,
}

/// <summary>What kind of thing went wrong. Spec: SPC-4, sense keys.</summary>
internal enum ScsiSenseKey : byte
{
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    VendorSpecific = 0x9,
    CopyAborted = 0xA,
    AbortedCommand = 0xB,
    VolumeOverflow = 0xD,
    Miscompare = 0xE,
    Completed = 0xF,
}

/// <summary>Why a command failed. Spec: SPC-4, sense data in both formats; the words are those of T10's list of ASC and ASCQ.</summary>
/// <param name="Key">The kind of thing.</param>
/// <param name="Asc">Additional sense code.</param>
/// <param name="Ascq">Its qualifier.</param>
internal readonly record struct ScsiSense(ScsiSenseKey Key, byte Asc, byte Ascq)
{
    private static readonly Dictionary<int, string> s_words = new()
    {
        [0x0000] = "no additional sense information",
        [0x0400] = "logical unit not ready, cause not reportable",
        [0x0401] = "logical unit is in process of becoming ready",
        [0x0402] = "logical unit not ready, initializing command required",
        [0x0403] = "logical unit not ready, manual intervention required",
        [0x0404] = "logical unit not ready, format in progress",
        [0x0407] = "logical unit not ready, operation in progress",
        [0x040A] = "logical unit not accessible, asymmetric access state transition",
        [0x040B] = "logical unit not accessible, target port in standby state",
        [0x040C] = "logical unit not accessible, target port in unavailable state",
        [0x0412] = "logical unit not ready, offline",
        [0x0414] = "logical unit not ready, space allocation in progress",
        [0x0500] = "logical unit does not respond to selection",
        [0x0800] = "logical unit communication failure",
        [0x0801] = "logical unit communication time-out",
        [0x0C00] = "write error",
        [0x0C02] = "write error, auto reallocation failed",
        [0x0E00] = "invalid information unit",
        [0x1000] = "ID CRC or ECC error",
        [0x1100] = "unrecovered read error",
        [0x1101] = "read retries exhausted",
        [0x1104] = "unrecovered read error, auto reallocate failed",
        [0x1400] = "recorded entity not found",
        [0x1A00] = "parameter list length error",
        [0x1B00] = "synchronous data transfer error",
        [0x1D00] = "miscompare during verify operation",
        [0x2000] = "invalid command operation code",
        [0x2002] = "access denied, no access rights",
        [0x2100] = "logical block address out of range",
        [0x2400] = "invalid field in CDB",
        [0x2500] = "logical unit not supported",
        [0x2600] = "invalid field in parameter list",
        [0x2700] = "write protected",
        [0x2701] = "hardware write protected",
        [0x2702] = "logical unit software write protected",
        [0x2707] = "space allocation failed write protect",
        [0x2800] = "not ready to ready change, medium may have changed",
        [0x2900] = "power on, reset, or bus device reset occurred",
        [0x2901] = "power on occurred",
        [0x2902] = "SCSI bus reset occurred",
        [0x2903] = "bus device reset function occurred",
        [0x2904] = "device internal reset",
        [0x2907] = "I_T nexus loss occurred",
        [0x2A00] = "parameters changed",
        [0x2A01] = "mode parameters changed",
        [0x2A03] = "reservations preempted",
        [0x2A06] = "asymmetric access state changed",
        [0x2A09] = "capacity data has changed",
        [0x2C00] = "command sequence error",
        [0x2F00] = "commands cleared by another initiator",
        [0x3000] = "incompatible medium installed",
        [0x3100] = "medium format corrupted",
        [0x3807] = "thin provisioning soft threshold reached",
        [0x3A00] = "medium not present",
        [0x3A01] = "medium not present, tray closed",
        [0x3A02] = "medium not present, tray open",
        [0x3E00] = "logical unit has not self-configured yet",
        [0x3F01] = "microcode has been changed",
        [0x3F03] = "inquiry data has changed",
        [0x3F0E] = "reported LUNs data has changed",
        [0x4400] = "internal target failure",
        [0x4700] = "SCSI parity error",
        [0x4900] = "invalid message error",
        [0x4B00] = "data phase error",
        [0x4E00] = "overlapped commands attempted",
        [0x5300] = "media load or eject failed",
        [0x5302] = "medium removal prevented",
        [0x5500] = "system resource failure",
        [0x6400] = "illegal mode for this track",
        [0x6F00] = "copy protection key exchange failure, authentication failure",
        [0x7400] = "security error",
    };

    /// <summary>What is wrong, in words and numbers.</summary>
    public override string ToString()
    {
        string key = Key switch
        {
            ScsiSenseKey.NoSense => "NO SENSE",
            ScsiSenseKey.RecoveredError => "RECOVERED ERROR",
            ScsiSenseKey.NotReady => "NOT READY",
            ScsiSenseKey.MediumError => "MEDIUM ERROR",
            ScsiSenseKey.HardwareError => "HARDWARE ERROR",
            ScsiSenseKey.IllegalRequest => "ILLEGAL REQUEST",
            ScsiSenseKey.UnitAttention => "UNIT ATTENTION",
            ScsiSenseKey.DataProtect => "DATA PROTECT",
            ScsiSenseKey.BlankCheck => "BLANK CHECK",
            ScsiSenseKey.VendorSpecific => "VENDOR SPECIFIC",
            ScsiSenseKey.CopyAborted => "COPY ABORTED",
            ScsiSenseKey.AbortedCommand => "ABORTED COMMAND",
            ScsiSenseKey.VolumeOverflow => "VOLUME OVERFLOW",
            ScsiSenseKey.Miscompare => "MISCOMPARE",
            ScsiSenseKey.Completed => "COMPLETED",
            _ => "a reserved sense key",
        };
        string words = s_words.TryGetValue((Asc << 8) | Ascq, out string? exact) ? $", {exact}"
            : s_words.TryGetValue(Asc << 8, out string? general) ? $", {general}"
            : "";
        return $"{key}{words} (key {(int)Key:X}h, ASC/ASCQ {Asc:X2}h/{Ascq:X2}h)";
    }

    /// <summary>
    /// From what a target sent: fixed format (response codes 70h, 71h) or descriptor format (72h, 73h). What is too short says nothing.
    /// </summary>
    public static ScsiSense Read(ReadOnlySpan<byte> sense)
    {
        if (sense.IsEmpty)
        {
            return default;
        }
        byte At(ReadOnlySpan<byte> bytes, int at) => at < bytes.Length ? bytes[at] : (byte)0;
        return (sense[0] & 0x7F) switch
        {
            0x70 or 0x71 => new((ScsiSenseKey)(At(sense, 2) & 0x0F), At(sense, 12), At(sense, 13)),
            0x72 or 0x73 => new((ScsiSenseKey)(At(sense, 1) & 0x0F), At(sense, 2), At(sense, 3)),
            _ => default,
        };
    }
}
