using System.Buffers.Binary;

namespace DiskImage.Protocols.Ssh;

/// <summary>What a server tells of a file, or is to make of it. What is null is not told, or stays.</summary>
/// <param name="Size">Bytes.</param>
/// <param name="Owner">The numbers of user and group.</param>
/// <param name="Permissions">Access rights, and the kind of file in the upper bits, as POSIX has them.</param>
/// <param name="Modified">When it was last changed, in seconds since 1970, UTC.</param>
internal readonly record struct SftpAttributes(
    long? Size = null, (uint User, uint Group)? Owner = null, uint? Permissions = null, uint? Modified = null)
{
    private const uint KindBits = 0xF000, RegularFile = 0x8000, Folder = 0x4000, Link = 0xA000, RightBits = 0xFFF;

    /// <summary>True for a regular file, and where the server does not say.</summary>
    public bool IsRegular => (Permissions & KindBits) is null or 0 or RegularFile;

    /// <summary>True for a folder.</summary>
    public bool IsFolder => (Permissions & KindBits) == Folder;

    /// <summary>True for a symbolic link.</summary>
    public bool IsLink => (Permissions & KindBits) == Link;

    /// <summary>The access rights alone.</summary>
    public uint? Rights => Permissions & RightBits;

    /// <summary>Reads them; false if they are cut short or a number is none.</summary>
    public static bool TryRead(ReadOnlySpan<byte> from, out SftpAttributes attributes)
    {
        attributes = default;
        if (from.Length < 4)
        {
            return false;
        }
        var flags = (SftpAttributeFlags)BinaryPrimitives.ReadUInt32BigEndian(from);
        from = from[4..];
        int needed = (flags.HasFlag(SftpAttributeFlags.Size) ? 8 : 0) + (flags.HasFlag(SftpAttributeFlags.Owner) ? 8 : 0)
            + (flags.HasFlag(SftpAttributeFlags.Permissions) ? 4 : 0) + (flags.HasFlag(SftpAttributeFlags.Times) ? 8 : 0);
        if (from.Length < needed)
        {
            return false;
        }
        if (flags.HasFlag(SftpAttributeFlags.Size))
        {
            attributes = attributes with { Size = BinaryPrimitives.ReadInt64BigEndian(from) };
            from = from[8..];
        }
        if (flags.HasFlag(SftpAttributeFlags.Owner))
        {
            attributes = attributes with
            {
                Owner = (BinaryPrimitives.ReadUInt32BigEndian(from), BinaryPrimitives.ReadUInt32BigEndian(from[4..])),
            };
            from = from[8..];
        }
        if (flags.HasFlag(SftpAttributeFlags.Permissions))
        {
            attributes = attributes with { Permissions = BinaryPrimitives.ReadUInt32BigEndian(from) };
            from = from[4..];
        }
        if (flags.HasFlag(SftpAttributeFlags.Times))
        {
            attributes = attributes with { Modified = BinaryPrimitives.ReadUInt32BigEndian(from[4..]) };
        }
        return attributes.Size is not < 0; // what extensions add behind them is of no use here
    }

    /// <summary>Puts them into a request. The time is not set by anybody here.</summary>
    public void Write(SftpText into)
    {
        into.Number((uint)((Size is null ? SftpAttributeFlags.None : SftpAttributeFlags.Size)
            | (Owner is null ? SftpAttributeFlags.None : SftpAttributeFlags.Owner)
            | (Permissions is null ? SftpAttributeFlags.None : SftpAttributeFlags.Permissions)));
        if (Size is { } size)
        {
            into.Long(size);
        }
        if (Owner is { } owner)
        {
            into.Number(owner.User);
            into.Number(owner.Group);
        }
        if (Permissions is { } permissions)
        {
            into.Number(permissions);
        }
    }
}
