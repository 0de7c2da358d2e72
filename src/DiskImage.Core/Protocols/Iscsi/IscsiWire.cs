namespace DiskImage.Protocols.Iscsi;

/// <summary>Kinds of PDUs. Spec: RFC 7143, section 11.2.1.2.</summary>
internal enum IscsiOpcode
{
    NopOut = 0x00,
    Command = 0x01,
    LoginRequest = 0x03,
    TextRequest = 0x04,
    DataOut = 0x05,
    LogoutRequest = 0x06,
    NopIn = 0x20,
    Response = 0x21,
    LoginResponse = 0x23,
    TextResponse = 0x24,
    DataIn = 0x25,
    LogoutResponse = 0x26,
    ReadyToTransfer = 0x31,
    AsyncMessage = 0x32,
    Reject = 0x3F,
}

/// <summary>Numbers of the protocol. Spec: RFC 7143.</summary>
internal static class IscsiWire
{
    /// <summary>The port that targets listen at.</summary>
    public const int Port = 3260;

    /// <summary>Bytes of a PDU's basic header segment.</summary>
    public const int HeaderLength = 48;

    /// <summary>Bytes of a digest.</summary>
    public const int DigestLength = 4;

    /// <summary>Stands for no tag (sections 11.2.1.8 and 11.7.4).</summary>
    public const uint NoTag = uint.MaxValue;

    /// <summary>What a side takes in one data segment that says nothing else (section 13.12).</summary>
    public const int DefaultSegment = 8192;

    /// <summary>Bytes of a data segment that we take at most. Ours.</summary>
    public const int LongestSegment = 256 << 10;

    /// <summary>Bytes of names of initiators and targets at most (section 4.2.7.2).</summary>
    public const int LongestName = 223;

    /// <summary>In the first byte: the command does not wait for its turn.</summary>
    public const byte Immediate = 0x40;

    /// <summary>In the second byte: the last PDU of its kind; a login moves on to its next stage.</summary>
    public const byte Final = 0x80;

    /// <summary>In the second byte of text and login: more text follows.</summary>
    public const byte Continue = 0x40;

    /// <summary>A data segment's bytes with what fills them up to a multiple of four (section 11.1).</summary>
    public static int Padded(int length) => (length + 3) & ~3;

    /// <summary>Serial numbers go round (section 4.2.2.1, RFC 1982).</summary>
    public static bool IsAfter(uint one, uint other) => (int)(one - other) > 0;

    /// <summary>A PDU's kind.</summary>
    public static IscsiOpcode OpcodeOf(ReadOnlySpan<byte> header) => (IscsiOpcode)(header[0] & 0x3F);

    /// <summary>The length of a PDU's data segment.</summary>
    public static int SegmentOf(ReadOnlySpan<byte> header) => (header[5] << 16) | (header[6] << 8) | header[7];

    /// <summary>Sets the length of a PDU's data segment.</summary>
    public static void SetSegment(Span<byte> header, int length)
        => (header[5], header[6], header[7]) = ((byte)(length >> 16), (byte)(length >> 8), (byte)length);

    /// <summary>Writes the number of a unit as eight bytes. Spec: SAM-5, peripheral and flat addressing.</summary>
    public static void SetLun(Span<byte> header, int lun)
    {
        header[8] = (byte)(lun < 256 ? 0 : 0x40 | (lun >> 8));
        header[9] = (byte)lun;
    }
}
