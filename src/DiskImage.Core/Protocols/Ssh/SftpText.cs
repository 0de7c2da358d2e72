using System.Buffers.Binary;
using System.Text;

namespace DiskImage.Protocols.Ssh;

/// <summary>Puts the parts of a request one behind the other.</summary>
internal sealed class SftpText
{
    private readonly List<byte> _bytes = [];

    /// <summary>What there is so far.</summary>
    public byte[] ToArray() => [.. _bytes];

    /// <summary>A number of 32 bits.</summary>
    public SftpText Number(uint value)
    {
        Span<byte> four = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(four, value);
        _bytes.AddRange(four);
        return this;
    }

    /// <summary>A number of 64 bits.</summary>
    public SftpText Long(long value)
    {
        Span<byte> eight = stackalloc byte[8];
        BinaryPrimitives.WriteInt64BigEndian(eight, value);
        _bytes.AddRange(eight);
        return this;
    }

    /// <summary>A string of bytes.</summary>
    public SftpText Bytes(ReadOnlySpan<byte> value)
    {
        _ = Number((uint)value.Length);
        _bytes.AddRange(value);
        return this;
    }

    /// <summary>A text, as UTF-8.</summary>
    public SftpText Text(string value) => Bytes(Encoding.UTF8.GetBytes(value));

    /// <summary>Attributes.</summary>
    public SftpText Attributes(SftpAttributes value)
    {
        value.Write(this);
        return this;
    }

    /// <summary>The string that bytes begin with, which are those behind it afterwards; false if they are cut short.</summary>
    public static bool TryTake(ref ReadOnlySpan<byte> from, out ReadOnlySpan<byte> text)
    {
        text = default;
        if (from.Length < 4 || BinaryPrimitives.ReadUInt32BigEndian(from) is var length && length > from.Length - 4)
        {
            return false;
        }
        text = from.Slice(4, (int)length);
        from = from[(4 + (int)length)..];
        return true;
    }
}
