namespace DiskImage.Protocols.Iscsi;

/// <summary>What a login has agreed on. The defaults are those of RFC 7143, section 13.</summary>
internal sealed record IscsiAgreement
{
    /// <summary>Headers are followed by a CRC-32C.</summary>
    public bool HeaderDigest { get; init; }

    /// <summary>Data segments are.</summary>
    public bool DataDigest { get; init; }

    /// <summary>Data may go out with the command.</summary>
    public bool ImmediateData { get; init; } = true;

    /// <summary>No data goes out behind the command before it is asked for.</summary>
    public bool InitialR2T { get; init; } = true;

    /// <summary>Bytes of a data segment that the target takes.</summary>
    public int TargetSegment { get; init; } = IscsiWire.DefaultSegment;

    /// <summary>Bytes of data that may be asked for at once.</summary>
    public int MaxBurst { get; init; } = 262_144;

    /// <summary>Bytes of a command's data that go out without being asked for.</summary>
    public int FirstBurst { get; init; } = 65_536;

    /// <summary>Serial number of the next command.</summary>
    public uint CommandNumber { get; init; }

    /// <summary>Serial number of the target's next status.</summary>
    public uint StatusNumber { get; init; }

    /// <summary>The last command that the target takes now.</summary>
    public uint LastCommand { get; init; }
}
