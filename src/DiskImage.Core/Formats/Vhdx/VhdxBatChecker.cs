using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>Checks every entry of the BAT against the specification, the file and the other entries. Spec: MS-VHDX 2.5.1.</summary>
internal sealed class VhdxBatChecker(VhdxDisk disk, IProgress<long>? bytes, CancellationToken cancellationToken)
{
    private const string Clear = "clear the entry", Copy = "give each entry a copy of its own";

    private readonly VhdxGeometry _geometry = disk.Geometry;
    private readonly SpaceMap _space = VhdxDisk.EmptySpace(disk.Name);
    private readonly List<(long Index, BatEntry Instead)> _replacements = [];
    private readonly List<long> _shared = [];
    private readonly List<long> _partial = []; // blocks of the chunk at hand that are partially present
    private long _before = -1, _missing;

    public CheckFindings Findings { get; } = new();

    public IReadOnlyList<(long Index, BatEntry Instead)> Replacements => _replacements;

    public IReadOnlyList<long> Shared => _shared;

    public long Allocated { get; private set; }

    public long Fragmented { get; private set; }

    public long End => _space.End;

    public async ValueTask RunAsync()
    {
        disk.MarkStructures(_space);
        byte[] part = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            long total = disk.Bat.EntriesInUse;
            for (long index = 0; index < total;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int count = (int)Math.Min(VhdxLayout.MiB / VhdxGeometry.EntryBytes, total - index);
                await disk.File.ReadPaddedAsync(
                    disk.Regions.Bat.Offset + (index * VhdxGeometry.EntryBytes),
                    part.AsMemory(0, count * VhdxGeometry.EntryBytes),
                    cancellationToken).ConfigureAwait(false);
                for (int i = 0; i < count; i++)
                {
                    if (_geometry.IsInUse(index + i, disk.Metadata.HasParent))
                    {
                        await CheckEntryAsync(
                            index + i, new BatEntry(LittleEndian.U64(part, i * VhdxGeometry.EntryBytes))).ConfigureAwait(false);
                    }
                }
                index += count;
                bytes?.Report(Math.Min(_geometry.VirtualSize, _geometry.StartOf(_geometry.BlockAt(index))));
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(part);
        }
        foreach (long block in _partial)
        {
            Findings.Corruption(
                "Bitmap",
                $"payload block {block} is partially present, and the BAT region has no room for the entry of its sector bitmap",
                guest: _geometry.StartOf(block),
                guestLength: _geometry.BytesOf(block));
        }
        await disk.Bat.EachStaleAsync(CheckStale, cancellationToken).ConfigureAwait(false);
        CheckLeaks();
    }

    /// <summary>An entry behind the last block means nothing, until a program makes the disk larger or frees what it names.</summary>
    private void CheckStale(long index, BatEntry entry)
    {
        string what = $"BAT entry {index} is behind the disk's last block and names offset {entry.FileOffset:#,0}";
        if (disk.Bat.IsStalePlace(entry) && _space.IsUsed(entry.FileOffset, _geometry.BlockSize))
        {
            Findings.Corruption(
                "Stale",
                $"{what}, which is in use: a program that makes the disk larger or smaller would show or free that",
                Clear,
                host: PlaceOf(index));
        }
        else
        {
            Findings.Warning("Stale", $"{what}, which nothing else does", Clear, PlaceOf(index));
        }
        disk.Bat.MarkStale(_space, entry);
        Replace(index, default);
    }

    private async ValueTask CheckEntryAsync(long index, BatEntry entry)
    {
        if (entry.HasReservedBits)
        {
            Findings.Warning(
                "Reserved", $"BAT entry {index} is 0x{entry.Raw:X16}; bits 3 to 19 must be zero", "clear them", PlaceOf(index));
            entry = new BatEntry(entry.State, entry.Place);
            Replace(index, entry);
        }
        if (_geometry.IsBitmapIndex(index))
        {
            await CheckBitmapAsync(index, entry).ConfigureAwait(false);
        }
        else
        {
            CheckPayload(index, _geometry.BlockAt(index), entry);
        }
    }

    private void CheckPayload(long index, long block, BatEntry entry)
    {
        int length = _geometry.BytesOf(block);
        _missing += entry.IsStored ? 0 : 1;
        switch (entry.State)
        {
            case BlockState.FullyPresent or BlockState.PartiallyPresent:
                Allocated++;
                Fragmented += _before >= 0 && entry.FileOffset != _before ? 1 : 0;
                _before = entry.FileOffset + _geometry.BlockSize;
                if (entry.State == BlockState.PartiallyPresent && !disk.Metadata.HasParent)
                {
                    Wrong(
                        "State",
                        "is partially present, which only a block of a differencing disk can be",
                        new BatEntry(BlockState.FullyPresent, entry.Place),
                        "mark it fully present");
                }
                else if (entry.State == BlockState.PartiallyPresent)
                {
                    _partial.Add(block);
                }
                if (FaultOf(entry.FileOffset, length) is { } fault)
                {
                    Wrong("Place", fault, default, Clear);
                }
                else if (!_space.TryMark(entry.FileOffset, _geometry.BlockSize))
                {
                    Findings.Corruption(
                        "Overlap",
                        $"payload block {block} lies at offset {entry.FileOffset:#,0}, where another block lies",
                        Copy,
                        _geometry.StartOf(block),
                        length,
                        entry.FileOffset);
                    Share(index);
                }
                break;
            case BlockState.NotPresent or BlockState.Zero when entry.FileOffset != 0:
                Findings.Warning(
                    "Reserved",
                    $"payload block {block} is not stored, and its entry has the offset {entry.FileOffset:#,0}; it "
                        + $"must be zero, or Hyper-V refuses the file",
                    "clear it",
                    PlaceOf(index));
                Replace(index, new BatEntry(entry.State));
                break;
            case BlockState.Undefined or BlockState.Unmapped or BlockState.UnmappedOld when entry.FileOffset != 0
                && (FaultOf(entry.FileOffset, length) is not null || !_space.TryMark(entry.FileOffset, _geometry.BlockSize)):
                Findings.Warning(
                    "Place",
                    $"payload block {block} is discarded, and its entry has the offset {entry.FileOffset:#,0}, where it has no place",
                    "clear it",
                    PlaceOf(index));
                Replace(index, new BatEntry(entry.State));
                break;
            case BlockState.NotPresent or BlockState.Zero or BlockState.Undefined or BlockState.Unmapped or BlockState.UnmappedOld:
                break;
            default:
                Wrong("State", $"has the state {(int)entry.State}, which does not exist", default, Clear);
                break;
        }

        void Wrong(string kind, string what, BatEntry instead, string repair)
        {
            Findings.Corruption(kind, $"payload block {block} {what}", repair, _geometry.StartOf(block), length, PlaceOf(index));
            Replace(index, instead);
        }
    }

    private async ValueTask CheckBitmapAsync(long index, BatEntry entry)
    {
        long chunk = index / (_geometry.ChunkRatio + 1L);
        string? fault = entry.State switch
        {
            BlockState.NotPresent => null,
            BlockState.FullyPresent when !disk.Metadata.HasParent => "is present, which only that of a differencing disk can be",
            BlockState.FullyPresent => FaultOf(entry.FileOffset, VhdxLayout.BitmapBlockSize)
                ?? (_space.TryMark(entry.FileOffset, VhdxLayout.BitmapBlockSize)
                    ? null
                    : $"lies at offset {entry.FileOffset:#,0}, where another block lies"),
            _ => $"has the state {(int)entry.State}, which a sector bitmap cannot have",
        };
        if (fault is not null)
        {
            Findings.Corruption("Bitmap", $"the sector bitmap of chunk {chunk} {fault}", _partial.Count == 0
                ? Clear
                : null, host: PlaceOf(index));
            if (_partial.Count == 0)
            {
                Replace(index, default);
            }
        }
        foreach (long block in _partial)
        {
            if (fault is not null || entry.State != BlockState.FullyPresent)
            {
                Findings.Corruption(
                    "Bitmap",
                    $"payload block {block} is partially present, and its sector bitmap is missing or damaged",
                    guest: _geometry.StartOf(block),
                    guestLength: _geometry.BytesOf(block),
                    host: PlaceOf(index));
            }
            else if (!await HasSectorAsync(block, entry.FileOffset).ConfigureAwait(false))
            {
                Findings.Warning(
                    "Bitmap",
                    $"payload block {block} is partially present, and none of its sectors is; "
                        + $"{new Remedy(RemedyKind.Compact)} gives it back",
                    host: PlaceOf(index));
            }
        }
        _partial.Clear();
    }

    private async ValueTask<bool> HasSectorAsync(long block, long bitmap)
    {
        int bits = _geometry.BlockSize / _geometry.SectorSize, start = _geometry.BitOf(new(_geometry.StartOf(block))) / 8;
        byte[] part = ArrayPool<byte>.Shared.Rent(bits / 8);
        try
        {
            await disk.File.ReadPaddedAsync(bitmap + start, part.AsMemory(0, bits / 8), cancellationToken).ConfigureAwait(false);
            return !ZeroDetection.IsZero(part.AsSpan(0, bits / 8));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(part);
        }
    }

    /// <summary>What is wrong with a block's place, apart from other blocks; null if nothing.</summary>
    private string? FaultOf(long offset, int length)
        => offset < VhdxLayout.MiB || offset > disk.File.Length - length
            ? $"lies at offset {offset:#,0}; allowed: after the first MiB, inside the file's {disk.File.Length:#,0} bytes"
            : disk.StructureAt(offset, length) is { } structure ? $"lies at offset {offset:#,0}, where {structure} lies"
            : null;

    /// <summary>Gaps that could hold a block. Smaller ones are how blocks of different sizes lie beside each other.</summary>
    private void CheckLeaks()
    {
        long spare = disk.Metadata.IsFixed ? _missing : 0; // a fixed disk keeps room for blocks that have no place yet
        foreach (FileRange gap in _space.Gaps().Append(new(_space.End, Math.Max(_space.End, disk.File.Length))))
        {
            (long offset, long length) = (gap.Start, gap.Length);
            long units = length / _geometry.BlockSize, kept = Math.Min(units, spare);
            spare -= kept;
            if (units > kept)
            {
                Findings.Leak(
                    $"{length:#,0} bytes at offset {offset:#,0} of the file are not in use",
                    "move later blocks there and cut the file",
                    offset,
                    units - kept);
            }
        }
    }

    private long PlaceOf(long index) => disk.Bat.PlaceOf(index);

    private void Replace(long index, BatEntry instead)
    {
        if (_replacements.Count < CheckReport.MaxFindings)
        {
            _replacements.Add((index, instead));
        }
    }

    private void Share(long index)
    {
        if (_shared.Count < CheckReport.MaxFindings)
        {
            _shared.Add(index);
        }
    }
}
