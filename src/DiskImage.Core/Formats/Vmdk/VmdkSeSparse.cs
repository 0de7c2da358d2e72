using System.Buffers.Binary;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// The tables of a space-efficient sparse extent (seSparse), which ESXi writes for snapshots on VMFS 6. Source: the layout as published
/// with QEMU's patch "vmdk: Add read-only support for seSparse snapshots" of 2019; see SPEC.md.
/// </summary>
/// <remarks>All numbers are little-endian with 64 bits, all places and lengths sectors.</remarks>
internal sealed record VmdkSeSparseHeader
{
    public const ulong Magic = 0xCAFE_BABE, VolatileMagic = 0xCAFE_CAFE;

    private const ulong Version21 = 0x2_0000_0001;
    private const int ReadBytes = 512, MaxGrainSectors = (64 << 20) / VmdkHeader.SectorSize, MaxDirectoryBytes = 64 << 20; // ours

    public required long Capacity { get; init; }

    public required int GrainBytes { get; init; }

    /// <summary>Bytes of a grain table.</summary>
    public required int TableBytes { get; init; }

    public required long DirectoryOffset { get; init; }

    public required int DirectoryEntries { get; init; }

    public required long TablesOffset { get; init; }

    public required long GrainsOffset { get; init; }

    public int TableEntries => TableBytes / sizeof(ulong);

    public static bool IsSigned(ReadOnlySpan<byte> bytes)
        => bytes.Length >= 16 && LittleEndian.U64(bytes, 0) == Magic && LittleEndian.U64(bytes, 8) == Version21;

    /// <summary>Reads both headers.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Unsupported, Corrupt.</exception>
    public static async ValueTask<VmdkSeSparseHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[ReadBytes];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(bytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat, $"{file.Name}: no seSparse header of version 2.1: it does not begin with BE BA"
                    + " FE CA 00 00 00 00 01 00 00 00 02", file.Name, 0);
        }
        long capacity = Field(2, VmdkHeader.MaxSectors), grain = Field(3, MaxGrainSectors), table = Field(4, MaxGrainSectors);
        if (grain < 1 || !long.IsPow2(grain) || table < 1 || !long.IsPow2(table))
        {
            throw Corrupt(3,
                $"a grain has {grain:#,0} sectors and a grain table {table:#,0}; allowed: powers of two, up to {MaxGrainSectors:#,0}");
        }
        int tableBytes = (int)table * VmdkHeader.SectorSize;
        long entries = VmdkHeader.UnitsOf(capacity, grain * (tableBytes / sizeof(ulong)));
        if (entries > Field(17, VmdkHeader.MaxSectors) * (VmdkHeader.SectorSize / sizeof(ulong))
            || entries > MaxDirectoryBytes / sizeof(ulong))
        {
            throw Corrupt(17,
                $"a capacity of {capacity:#,0} sectors needs {entries:#,0} grain tables, and the grain directory"
                    + $" has {LittleEndian.U64(bytes, 17 * 8):#,0} sectors");
        }
        byte[] changing = new byte[ReadBytes];
        await file.ReadPaddedAsync(Field(10, VmdkHeader.MaxSectors) * VmdkHeader.SectorSize, changing,
            cancellationToken).ConfigureAwait(false);
        if (LittleEndian.U64(changing, 0) != VolatileMagic)
        {
            throw Corrupt(10, "its volatile header is not where the constant header says");
        }
        return LittleEndian.U64(changing, 24) != 0
            ? throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{file.Name}: its journal holds changes that are not carried out, since it was not closed. Let the ESXi host"
                    + " that it is from open and close it once.",
                file.Name)
            : new VmdkSeSparseHeader
            {
                Capacity = capacity,
                GrainBytes = (int)grain * VmdkHeader.SectorSize,
                TableBytes = tableBytes,
                DirectoryOffset = Field(16, VmdkHeader.MaxSectors) * VmdkHeader.SectorSize,
                DirectoryEntries = (int)entries,
                TablesOffset = Field(18, VmdkHeader.MaxSectors) * VmdkHeader.SectorSize,
                GrainsOffset = Field(24, VmdkHeader.MaxSectors) * VmdkHeader.SectorSize,
            };

        long Field(int index, long most)
            => LittleEndian.U64(bytes, index * 8) is var value && value <= (ulong)most ? (long)value
                : throw Corrupt(index, $"field {index} is {value:#,0}; allowed: up to {most:#,0} sectors");

        DiskImageException Corrupt(int index, string what)
            => new(DiskImageErrorKind.Corrupt, $"{file.Name}: seSparse header: {what}", file.Name, index * 8);
    }
}

/// <summary>What a grain is, whichever way its extent says it.</summary>
/// <param name="Kind">The kind.</param>
/// <param name="Place">Where it is in the file, for one that is stored.</param>
internal readonly record struct VmdkGrain(VmdkGrainKind Kind, long Place = 0);

/// <summary>The kinds of grains.</summary>
internal enum VmdkGrainKind
{
    /// <summary>The parent's, or zero.</summary>
    Nowhere,

    /// <summary>Zero.</summary>
    Zero,

    /// <summary>In the file.</summary>
    Stored,
}

/// <summary>Reads the two levels of tables.</summary>
internal sealed class VmdkSeSparseTables(BlockNode file, VmdkSeSparseHeader header)
{
    private const int PieceBytes = 4096, MaxPieces = 4096; // 16 MiB. Ours

    private readonly Lock _sync = new(); // guards the pieces
    private readonly Dictionary<long, byte[]> _pieces = [];
    private byte[] _directory = [];

    public async ValueTask LoadAsync(CancellationToken cancellationToken)
    {
        long length = (long)header.DirectoryEntries * sizeof(ulong);
        if (header.DirectoryOffset + length > file.Length)
        {
            throw Corrupt($"the grain directory at offset {header.DirectoryOffset:#,0} reaches past the end of the file",
                header.DirectoryOffset);
        }
        _directory = new byte[length];
        await file.ReadAsync(header.DirectoryOffset, _directory, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The grain of a number; and how many grains from it on are nowhere for sure, if it is.</summary>
    public async ValueTask<(VmdkGrain Grain, long Run)> GetAsync(long number, CancellationToken cancellationToken)
    {
        int index = (int)(number / header.TableEntries), within = (int)(number % header.TableEntries);
        ulong entry = BinaryPrimitives.ReadUInt64LittleEndian(_directory.AsSpan(index * sizeof(ulong)));
        if (entry == 0)
        {
            return (default, header.TableEntries - within);
        }
        long table = header.TablesOffset + ((long)(entry & 0xFFFF_FFFF) * header.TableBytes);
        if (entry >> 32 != 0x1000_0000 || table + header.TableBytes > file.Length)
        {
            throw Corrupt($"entry {index:#,0} of the grain directory is 0x{entry:x16}, which leads to no grain table in the file",
                header.DirectoryOffset + (index * 8L));
        }
        long at = table + ((long)within * sizeof(ulong));
        byte[] piece = await PieceAsync(at / PieceBytes * PieceBytes, cancellationToken).ConfigureAwait(false);
        return (Decode(BinaryPrimitives.ReadUInt64LittleEndian(piece.AsSpan((int)(at % PieceBytes))), number, at), 1);
    }

    private VmdkGrain Decode(ulong entry, long number, long at)
    {
        ulong index = ((entry & 0x0FFF_0000_0000_0000) >> 48) | ((entry & 0x0000_FFFF_FFFF_FFFF) << 12);
        switch (entry >> 60)
        {
            case 0 when entry == 0:
                return default;
            case 1 or 2: // given up by the guest; zeroes
                return new(VmdkGrainKind.Zero);
            case 3 when index <= (ulong)(long.MaxValue - header.GrainsOffset) / (ulong)header.GrainBytes:
                long place = header.GrainsOffset + ((long)index * header.GrainBytes);
                if (place < file.Length)
                {
                    return new(VmdkGrainKind.Stored, place);
                }
                break;
        }
        throw Corrupt(
            $"the entry of grain {number:#,0} (guest offset {number * header.GrainBytes:#,0}) is 0x{entry:x16}, which leads to"
                + " nothing in the file", at);
    }

    private async ValueTask<byte[]> PieceAsync(long offset, CancellationToken cancellationToken)
    {
        lock (_sync)
        {
            if (_pieces.TryGetValue(offset, out byte[]? known))
            {
                return known;
            }
        }
        byte[] piece = new byte[PieceBytes];
        await file.ReadPaddedAsync(offset, piece, cancellationToken).ConfigureAwait(false);
        lock (_sync)
        {
            if (_pieces.Count >= MaxPieces)
            {
                _pieces.Clear();
            }
            _pieces[offset] = piece;
        }
        return piece;
    }

    private DiskImageException Corrupt(string what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{file.Name}: {what}", file.Name, offset);
}
