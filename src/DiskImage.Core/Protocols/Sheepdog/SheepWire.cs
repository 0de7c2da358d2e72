using System.Text;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>What a request asks for. Source: sheepdog, include/sheepdog_proto.h.</summary>
internal enum SheepOperation : byte
{
    CreateObject = 0x01,
    ReadObject = 0x02,
    WriteObject = 0x03,
    NewVdi = 0x11,
    LockVdi = 0x12,
    ReleaseVdi = 0x13,
    GetVdiInfo = 0x14,
    ReadVdis = 0x15,
    FlushVdi = 0x16,
    DeleteVdi = 0x17,
}

/// <summary>How it is to be done. Source: the same.</summary>
[Flags]
internal enum SheepFlags : ushort
{
    None = 0,

    /// <summary>Data follow the request.</summary>
    Write = 0x01,

    /// <summary>A new object begins as a copy of another.</summary>
    CopyOnWrite = 0x02,

    /// <summary>The gateway may answer when it has the data in its cache.</summary>
    Cache = 0x04,
}

/// <summary>How it ended. Source: the same; what is not here is said by its number.</summary>
internal enum SheepResult : uint
{
    Success = 0x00,
    Unknown = 0x01,
    NoObject = 0x02,
    InputOutput = 0x03,
    VdiExists = 0x04,
    InvalidParameters = 0x05,
    SystemError = 0x06,
    VdiLocked = 0x07,
    NoVdi = 0x08,
    NoBaseVdi = 0x09,
    VdiRead = 0x0A,
    VdiWrite = 0x0B,
    BaseVdiRead = 0x0C,
    BaseVdiWrite = 0x0D,
    NoTag = 0x0E,
    StartingUp = 0x0F,
    VdiNotLocked = 0x10,
    ShuttingDown = 0x11,
    NoMemory = 0x12,
    NoVdiFree = 0x13,
    VersionMismatch = 0x14,
    NoSpace = 0x15,
    WaitForFormat = 0x16,
    WaitForJoin = 0x17,
    JoinFailed = 0x18,
    Halted = 0x19,
    ReadOnly = 0x1A,
}

/// <summary>Lengths and numbers of the protocol, little-endian throughout. Source: sheepdog, include/sheepdog_proto.h.</summary>
internal static class SheepWire
{
    /// <summary>The version that all servers know.</summary>
    public const byte Version = 1;

    /// <summary>Where servers listen if nobody says otherwise.</summary>
    public const int Port = 7000;

    /// <summary>Bytes of a request's or an answer's header.</summary>
    public const int HeaderLength = 48;

    /// <summary>Bytes of the header that differ by operation, at its end.</summary>
    public const int FieldsLength = 32;

    /// <summary>Bytes of the field of a name or a tag; the last is zero.</summary>
    public const int NameLength = 256;

    /// <summary>Numbers that VDIs may have.</summary>
    public const int Vdis = 1 << 24;

    /// <summary>Objects of a VDI at most: its inode has no room for more.</summary>
    public const int MostObjects = 1 << 20;

    /// <summary>Copies of an object at most.</summary>
    public const int MostCopies = 31;

    /// <summary>Bytes of a VDI's objects, as shifts.</summary>
    public const int SmallestShift = 20, LargestShift = 31;

    /// <summary>The object that describes a VDI.</summary>
    public static ulong InodeOf(uint vdi) => (1UL << 63) | ((ulong)vdi << 32);

    /// <summary>One of a VDI's data objects.</summary>
    public static ulong DataOf(uint vdi, int index) => ((ulong)vdi << 32) | (uint)index;

    /// <summary>The number where looking for a VDI of a name begins: 24 bits of FNV-1a.</summary>
    public static int HashOf(string name)
    {
        ulong hash = 0xcbf29ce484222325;
        foreach (byte b in Encoding.UTF8.GetBytes(name))
        {
            hash = (hash ^ b) * 0x100000001b3;
        }
        return (int)(hash & (Vdis - 1));
    }

    /// <summary>Fields of names, one behind the other.</summary>
    public static byte[] Names(params string[] names)
    {
        byte[] fields = new byte[names.Length * NameLength];
        for (int i = 0; i < names.Length; i++)
        {
            _ = Encoding.UTF8.GetBytes(names[i], fields.AsSpan(i * NameLength, NameLength - 1));
        }
        return fields;
    }

    /// <summary>The text of such a field: up to its first zero.</summary>
    public static string Name(ReadOnlySpan<byte> field)
    {
        int end = field.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? field : field[..end]);
    }

    /// <summary>True if a name fits its field.</summary>
    public static bool IsName(string name)
        => Encoding.UTF8.GetByteCount(name) < NameLength && !name.Contains('\0', StringComparison.Ordinal);
}
