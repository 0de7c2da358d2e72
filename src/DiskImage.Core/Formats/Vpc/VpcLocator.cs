using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>One parent locator entry: where in the file the parent's path for one platform is. Spec: "Parent Locator Entries".</summary>
/// <param name="Platform">Four characters as a number.</param>
/// <param name="DataSpace">Room for the path. The specification counts sectors, Windows writes bytes; nothing is read by it here.</param>
/// <param name="DataLength">Bytes of the path.</param>
/// <param name="DataOffset">Where the path begins.</param>
internal readonly record struct VpcLocator(uint Platform, uint DataSpace, uint DataLength, ulong DataOffset)
{
    /// <summary>Bytes of an entry.</summary>
    public const int Length = 24;

    /// <summary>Bytes of a path at most. Ours: Windows paths have up to 32767 UTF-16 units.</summary>
    public const int MaxDataLength = 64 << 10;

    /// <summary>Relative, UTF-16LE.</summary>
    public const uint W2ru = 0x5732_7275;

    /// <summary>Absolute, UTF-16LE.</summary>
    public const uint W2ku = 0x5732_6B75;

    /// <summary>Relative, in some single-byte code page; deprecated.</summary>
    public const uint Wi2r = 0x5769_3272;

    /// <summary>Absolute, in some single-byte code page; deprecated.</summary>
    public const uint Wi2k = 0x5769_326B;

    /// <summary>A file URL, UTF-8.</summary>
    public const uint MacX = 0x4D61_6358;

    /// <summary>A Mac OS alias, which is no text.</summary>
    public const uint Mac = 0x4D61_6320;

    /// <summary>
    /// The platform codes whose paths are read, in the order in which they are tried: what survives a move of both files first.
    /// </summary>
    public static IReadOnlyList<uint> Readable { get; } = [W2ru, W2ku, MacX, Wi2r, Wi2k];

    public bool IsUsed => Platform != 0;

    public bool IsKnown => Platform == Mac || Readable.Contains(Platform);

    /// <summary>The platform code as text.</summary>
    public string PlatformText => string.Create(4, Platform, static (chars, code) =>
    {
        for (int i = 0; i < 4; i++)
        {
            char c = (char)((code >> (24 - (8 * i))) & 0xFF);
            chars[i] = c is >= ' ' and <= '~' ? c : '?';
        }
    });

    /// <summary>True if there is a path, inside a file of a length.</summary>
    public bool HasData(long fileLength) => IsUsed && DataLength > 0 && Fault(fileLength) is null;

    /// <summary>The sectors of the file that the path takes.</summary>
    public (long Start, long End) Extent => ((long)DataOffset, Round.Up((long)DataOffset + DataLength, VpcGeometry.SectorSize));

    public static VpcLocator Parse(ReadOnlySpan<byte> bytes)
        => new(BigEndian.U32(bytes, 0), BigEndian.U32(bytes, 4), BigEndian.U32(bytes, 8), BigEndian.U64(bytes, 16));

    public void Write(Span<byte> bytes)
    {
        BigEndian.U32(bytes, 0, Platform);
        BigEndian.U32(bytes, 4, DataSpace);
        BigEndian.U32(bytes, 8, DataLength);
        BigEndian.U32(bytes, 12, 0);
        BigEndian.U64(bytes, 16, DataOffset);
    }

    /// <summary>What is wrong with the entry's place and length; null if nothing.</summary>
    public string? Fault(long fileLength)
    {
        if (DataLength > MaxDataLength)
        {
            return $"its path has {DataLength:#,0} bytes; allowed: up to {MaxDataLength:#,0}";
        }
        return DataOffset < VpcFooter.Length || DataOffset > (ulong)fileLength || DataLength > fileLength - (long)DataOffset
            ? $"its path, {DataLength:#,0} bytes at offset {DataOffset:#,0}, lies outside the file ({fileLength:#,0} bytes)"
            : null;
    }

    /// <summary>The path; null if the entry has none that can be read.</summary>
    public async ValueTask<string?> ReadTextAsync(BlockNode file, CancellationToken cancellationToken)
    {
        if (!Readable.Contains(Platform) || Fault(file.Length) is not null)
        {
            return null;
        }
        byte[] bytes = new byte[DataLength];
        await file.ReadAsync((long)DataOffset, bytes, cancellationToken).ConfigureAwait(false);
        string text = Platform switch
        {
            W2ru or W2ku => Encoding.Unicode.GetString(bytes),
            MacX => Encoding.UTF8.GetString(bytes),
            _ => Encoding.Latin1.GetString(bytes),
        };
        int end = text.IndexOf('\0', StringComparison.Ordinal);
        text = end < 0 ? text : text[..end];
        return text.Length == 0 || text.Any(char.IsControl) ? null : text;
    }
}
