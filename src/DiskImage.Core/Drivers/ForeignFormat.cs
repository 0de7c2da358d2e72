namespace DiskImage.Drivers;

/// <summary>
/// Something that is known by its first or last bytes and that no driver here opens. The one list of them: an entry that names its format
/// is passed over as soon as a driver of that name is registered, and goes when that driver comes.
/// </summary>
/// <param name="Format">The name that a driver for it has, as QEMU spells it; null if none is to come.</param>
/// <param name="Kind">Whether it is a disk.</param>
/// <param name="Description">What to call it, with its article.</param>
/// <param name="Extensions">File name endings that promise it, with the dot.</param>
/// <param name="Offset">Where its signature stands in the file; negative: that many bytes before the end.</param>
/// <param name="Magic">The signature.</param>
internal sealed record ForeignFormat(
    string? Format, ContentsKind Kind, string Description, IReadOnlyList<string> Extensions, int Offset, ReadOnlyMemory<byte> Magic)
{
    /// <summary>All of them. The signatures are facts of the formats' published descriptions.</summary>
    public static IReadOnlyList<ForeignFormat> All { get; } =
    [
        Disk(null, "an Apple sparse image", 0, "sprs"u8, ".sparseimage"),
        Disk(null, "an EnCase image (E01)", 0, [(byte)'E', (byte)'V', (byte)'F', 9, 13, 10, 255, 0], ".e01"),
        Disk(null, "a Windows image (WIM)", 0, "MSWIM\0\0\0"u8, ".wim"),
        NoDisk("a gzip archive", 0, [0x1F, 0x8B, 8]),
        NoDisk("an xz archive", 0, [0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0]),
        NoDisk("a zstd archive", 0, [0x28, 0xB5, 0x2F, 0xFD]),
        NoDisk("a bzip2 archive", 4, [0x31, 0x41, 0x59, 0x26, 0x53, 0x59]), // behind "BZh" and the level
        NoDisk("an lz4 archive", 0, [4, 0x22, 0x4D, 0x18]),
        NoDisk("a 7z archive", 0, [(byte)'7', (byte)'z', 0xBC, 0xAF, 0x27, 0x1C]),
        NoDisk("a zip archive", 0, [(byte)'P', (byte)'K', 3, 4]),
        NoDisk("an empty zip archive", 0, [(byte)'P', (byte)'K', 5, 6]),
        NoDisk("a rar archive", 0, "Rar!\x1A\x07"u8),
        NoDisk("a cabinet archive", 0, "MSCF\0\0\0\0"u8),
        NoDisk("a tar archive", 257, "ustar"u8), // OVA files too
        NoDisk("a PDF document", 0, "%PDF-"u8),
    ];

    /// <summary>True if the signature is there.</summary>
    public bool Has(ReadOnlySpan<byte> header, ReadOnlySpan<byte> tail)
    {
        ReadOnlySpan<byte> part = Offset < 0 ? tail : header;
        int at = Offset < 0 ? tail.Length + Offset : Offset;
        return at >= 0 && at <= part.Length && part[at..].StartsWith(Magic.Span);
    }

    private static ForeignFormat Disk(string? format, string description, int offset, ReadOnlySpan<byte> magic, params string[] extensions)
        => new(format, ContentsKind.Container, description, extensions, offset, magic.ToArray());

    private static ForeignFormat NoDisk(string description, int offset, ReadOnlySpan<byte> magic)
        => new(null, ContentsKind.NoDisk, description, [], offset, magic.ToArray());
}
