using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>A contiguous piece of the file with a purpose. Spec: MS-VHDX 2.2.3.2.</summary>
internal readonly record struct VhdxRegion(Guid Id, long Offset, long Length, bool IsRequired)
{
    public static readonly Guid Bat = new("2DC27766-F623-4200-9D64-115E9BFD4A08");
    public static readonly Guid Metadata = new("8B7CA206-4790-4B9A-B8FE-575F050F886E");

    public long End => Offset + Length;

    /// <summary>What it is, for messages.</summary>
    public string Name => Id == Bat ? "the BAT region" : Id == Metadata ? "the metadata region" : $"region {Id}";

    public bool Overlaps(long offset, long length) => offset < End && Offset < offset + length;
}

/// <summary>The region table, of which the file has two equal copies. Spec: MS-VHDX 2.2.3.</summary>
internal sealed class VhdxRegionTable
{
    public const int Size = 64 << 10;
    public const uint Signature = 0x69676572; // "regi"
    public const int MaxEntries = 2047;
    private const int ChecksumAt = 4, CountAt = 8, EntriesAt = 16, EntryBytes = 32;

    private readonly byte[] _bytes;

    private VhdxRegionTable(byte[] bytes, IReadOnlyList<VhdxRegion> regions) => (_bytes, Regions) = (bytes, regions);

    public IReadOnlyList<VhdxRegion> Regions { get; }

    public VhdxRegion Bat => Find(VhdxRegion.Bat)!.Value;

    public VhdxRegion Metadata => Find(VhdxRegion.Metadata)!.Value;

    /// <summary>The table as it stands in the file.</summary>
    public ReadOnlyMemory<byte> Bytes => _bytes;

    /// <summary>The region of a purpose, or null.</summary>
    public VhdxRegion? Find(Guid id)
    {
        foreach (VhdxRegion region in Regions)
        {
            if (region.Id == id)
            {
                return region;
            }
        }
        return null;
    }

    /// <summary>Reads the first copy that is right, and checks that its regions can be what it says.</summary>
    /// <param name="file">The file.</param>
    /// <param name="header">The header that counts.</param>
    /// <param name="forRepair">True to believe copies under wrong checksums if they say the same.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Corrupt; Unsupported if a required region is unknown.</exception>
    public static async ValueTask<VhdxRegionTable> ReadAsync(
        BlockNode file, VhdxHeader header, bool forRepair, CancellationToken cancellationToken)
    {
        var faults = new string?[2];
        byte[][] copies = [new byte[Size], new byte[Size]];
        for (int i = 0; i < 2; i++)
        {
            await file.ReadPaddedAsync(PlaceOf(i), copies[i], cancellationToken).ConfigureAwait(false);
            if (TryParse(copies[i], out faults[i]) is { } table)
            {
                table.Require(file, header, PlaceOf(i));
                return table;
            }
        }
        Array.ForEach(copies, Seal);
        bool isBelieved = copies[0].AsSpan().SequenceEqual(copies[1]) && TryParse(copies[0], out _) is { } same && same.HasNothingElse;
        if (isBelieved && forRepair)
        {
            VhdxRegionTable table = TryParse(copies[0], out _)!;
            table.Require(file, header, PlaceOf(0));
            return table;
        }
        Wording rest = isBelieved ? (Wording)$". They say the same: {new Remedy(RemedyKind.Repair)} writes them anew" : "";
        throw VhdxLayout.Corrupt(
            file.Name,
            $"neither region table can be used: of the first, {faults[0]}; of the second, {faults[1]}{rest}",
            VhdxLayout.RegionTable1At);
    }

    /// <summary>Where the first (0) and second (1) copy lies.</summary>
    public static long PlaceOf(int index) => index == 0 ? VhdxLayout.RegionTable1At : VhdxLayout.RegionTable2At;

    /// <summary>A table of these regions.</summary>
    public static VhdxRegionTable Of(params VhdxRegion[] regions)
    {
        byte[] bytes = new byte[Size];
        LittleEndian.U32(bytes, 0, Signature);
        LittleEndian.U32(bytes, CountAt, (uint)regions.Length);
        for (int i = 0; i < regions.Length; i++)
        {
            Put(bytes, i, regions[i]);
        }
        Seal(bytes);
        return new(bytes, regions);
    }

    /// <summary>The same table with one region moved or resized. What else it holds, known or not, stays.</summary>
    public VhdxRegionTable With(VhdxRegion changed)
    {
        byte[] bytes = (byte[])_bytes.Clone();
        VhdxRegion[] regions = [.. Regions];
        int index = Array.FindIndex(regions, r => r.Id == changed.Id);
        regions[index] = changed;
        Put(bytes, index, changed);
        Seal(bytes);
        return new(bytes, regions);
    }

    /// <summary>Reads a table whose signature, checksum and count are right; else null, and what is wrong with it.</summary>
    public static VhdxRegionTable? TryParse(byte[] bytes, out string? fault)
    {
        uint signature = LittleEndian.U32(bytes, 0), stored = LittleEndian.U32(bytes, ChecksumAt), count = LittleEndian.U32(bytes, CountAt);
        fault = signature != Signature ? $"its signature is 0x{signature:X8}; allowed: 0x{Signature:X8} (\"regi\")"
            : stored != Crc32C.OfAllBut(bytes, ChecksumAt)
            ? $"its checksum is 0x{stored:X8}; computed: 0x{Crc32C.OfAllBut(bytes, ChecksumAt):X8}"
            : count > MaxEntries ? $"it has {count} entries; allowed: at most {MaxEntries}"
            : null;
        if (fault is not null)
        {
            return null;
        }
        var regions = new VhdxRegion[count];
        for (int i = 0; i < regions.Length; i++)
        {
            ReadOnlySpan<byte> entry = bytes.AsSpan(EntriesAt + (i * EntryBytes), EntryBytes);
            regions[i] = new(
                LittleEndian.Guid(entry, 0),
                (long)Math.Min(LittleEndian.U64(entry, 16), long.MaxValue - uint.MaxValue),
                LittleEndian.U32(entry, 24),
                (LittleEndian.U32(entry, 28) & 1) != 0);
        }
        return new(bytes, regions);
    }

    /// <summary>True if every byte behind the entries is zero.</summary>
    private bool HasNothingElse => !_bytes.AsSpan(EntriesAt + (Regions.Count * EntryBytes)).ContainsAnyExcept((byte)0);

    private static void Seal(byte[] bytes) => LittleEndian.U32(bytes, ChecksumAt, Crc32C.OfAllBut(bytes, ChecksumAt));

    private static void Put(byte[] bytes, int index, VhdxRegion region)
    {
        Span<byte> entry = bytes.AsSpan(EntriesAt + (index * EntryBytes), EntryBytes);
        LittleEndian.Guid(entry, 0, region.Id);
        LittleEndian.U64(entry, 16, (ulong)region.Offset);
        LittleEndian.U32(entry, 24, (uint)region.Length);
        LittleEndian.U32(entry, 28, region.IsRequired ? 1u : 0);
    }

    private void Require(BlockNode file, VhdxHeader header, long at)
    {
        VhdxRegion[] sorted = [.. Regions.Append(
            new VhdxRegion(Guid.Empty, header.LogOffset, header.LogLength, IsRequired: false)).OrderBy(r => r.Offset)];
        for (int i = 0; i < sorted.Length; i++)
        {
            VhdxRegion region = sorted[i];
            string name = region.Id == Guid.Empty ? "the log" : region.Name;
            if (region.Offset < VhdxLayout.MiB || region.Offset % VhdxLayout.MiB != 0 || region.Length % VhdxLayout.MiB != 0
                || region.Length == 0)
            {
                throw VhdxLayout.Corrupt(
                    file.Name,
                    $"{name} has {region.Length:#,0} bytes at offset {region.Offset:#,0}; allowed: whole MiB, after the first MiB",
                    at);
            }
            if (i > 0 && sorted[i - 1].End > region.Offset)
            {
                throw VhdxLayout.Corrupt(
                    file.Name,
                    $"{name} at offset {region.Offset:#,0} overlaps what begins at offset "
                        + $"{sorted[i - 1].Offset:#,0} and ends at {sorted[i - 1].End:#,0}",
                    at);
            }
        }
        var ids = new HashSet<Guid>();
        foreach (VhdxRegion region in Regions)
        {
            if (!ids.Add(region.Id))
            {
                throw VhdxLayout.Corrupt(file.Name, $"{region.Name} stands in the region table twice", at);
            }
            if (region.IsRequired && region.Id != VhdxRegion.Bat && region.Id != VhdxRegion.Metadata)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{file.Name}: {region.Name} is marked required and is unknown to this program, so the image cannot be used",
                    file.Name,
                    at);
            }
        }
        foreach (Guid id in new[] { VhdxRegion.Bat, VhdxRegion.Metadata })
        {
            if (Find(id) is not { } region)
            {
                throw VhdxLayout.Corrupt(file.Name, $"the region table has no entry for {new VhdxRegion(id, 0, 0, false).Name}", at);
            }
            if (region.Offset >= file.Length)
            {
                throw VhdxLayout.Corrupt(
                    file.Name,
                    $"{region.Name} begins at offset {region.Offset:#,0}, past the end of the file's {file.Length:#,0} bytes",
                    at);
            }
        }
    }
}
