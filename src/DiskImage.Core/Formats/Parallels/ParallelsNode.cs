using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Parallels;

/// <summary>A Parallels disk: guest offset → BAT → cluster of the file.</summary>
/// <remarks>
/// <para>Order of writes: the header that says that the image is in use, before the first byte is changed; the data and the file's length;
/// the BAT. When the image is closed, the gaps are, and then the header says so. So a crash leaks at most, and shows.</para>
/// <para>The format extension goes with the mark, in one step: its dirty bitmaps know nothing of what comes. The old clusters are only then
/// anybody else's.</para>
/// </remarks>
internal sealed class ParallelsNode : BlockTableNode<BatEntry>, IDescribed, IBitmapList
{
    private const int MostTransfer = 1 << 20; // clusters are of up to 2 GiB, and nobody should take that much memory for one

    private readonly ParallelsLayout _layout;
    private readonly ParallelsOwner _owner;
    private string? _extensionFault; // why the format extension cannot be read
    private bool _isMarked, _gaveUp; // the mark is ours; the clusters of the extension are free

    private ParallelsNode(
        BlockNode? backing, MetadataSession session, BlockTable<BatEntry> bat, ParallelsLayout layout, bool forRepair, ParallelsOwner owner)
        : base(backing, session, bat, layout, forRepair)
        => (_layout, _owner) = (layout, owner);

    protected override bool IsOverlay => _owner.Facts?.Parent is not null;

    public override BlockLimits Limits => Header.ClusterSize > MostTransfer << 4 ? new(MostTransfer) : base.Limits;

    protected override bool LeavesGaps => _gaveUp;

    /// <summary>Bytes of a cluster.</summary>
    public int ClusterSize => Header.ClusterSize;

    private ParallelsHeader Header => _layout.Header;

    /// <summary>Reads the BAT. The file and what shows through are the node's on success.</summary>
    public static async ValueTask<ParallelsNode> OpenAsync(
        BlockNode file, BlockNode? backing, bool forRepair, CancellationToken cancellationToken, ParallelsOwner owner = default)
    {
        ParallelsHeader header = await ParallelsHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        var session = new MetadataSession(file);
        var bat = new BlockTable<BatEntry>(session.Order);
        var node = new ParallelsNode(backing, session, bat, new ParallelsLayout(file, header, bat), forRepair, owner);
        await node.LoadAsync(cancellationToken).ConfigureAwait(false);
        if (!file.IsReadOnly && !forRepair)
        {
            node.RequireKnownExtension();
            await node.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }
        return node;
    }

    /// <summary>Checks the layers below as well, where it is the top one of a bundle.</summary>
    public override async ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        CheckReport report = await base.CheckAsync(bytes, cancellationToken).ConfigureAwait(false);
        return _owner.Below is { } below ? await below.AddToAsync(report, cancellationToken).ConfigureAwait(false) : report;
    }

    public ImageDescription Describe() => new()
    {
        Format = ParallelsDriver.FormatName,
        ClusterSize = Header.ClusterSize,
        BackingFile = _owner.Facts?.Parent,
        Dirty = Header.IsInUse && !_isMarked,
        FormatSpecific = new ParallelsInfo
        {
            Variant = Header.IsExtended ? "Extended" : "Original",
            DataOffset = Header.DataStart,
            Heads = Header.Heads,
            Cylinders = Header.Cylinders,
            IsEmpty = Header.IsEmpty,
            HasExtension = Header.ExtensionOffset != 0,
            Snapshots = _owner.Facts?.Snapshots ?? [],
            Storages = _owner.Facts?.Storages ?? 1,
        },
    };

    /// <summary>The bitmaps of the format extension, by their identifiers; none once the disk was changed.</summary>
    public ValueTask<IReadOnlyList<DiskBitmap>> GetBitmapsAsync(CancellationToken cancellationToken)
        => Session.RunAsync<IReadOnlyList<DiskBitmap>>(
        _ => new([.. _layout.Extension?.Bitmaps.Select(b => b.Told) ?? []]), cancellationToken);

    public ValueTask<IReadOnlyList<(long Offset, long Length)>> GetDirtyRangesAsync(string name, CancellationToken cancellationToken)
        => Session.RunAsync(
        _ =>
        {
            ParallelsBitmap bitmap = _layout.Extension?.Bitmaps.FirstOrDefault(
                b => b.Told.Name.Equals(name, StringComparison.OrdinalIgnoreCase))
                ?? throw new DiskImageException(DiskImageErrorKind.NotFound, $"{Name}: has no bitmap '{name}'", Name);
            return bitmap.Told.IsInUse
                ? throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{Name}: the bitmap '{name}' is not to be relied on: a program that does not keep it had the image open",
                    Name)
                : ParallelsExtension.RangesAsync(File, Header, bitmap, cancellationToken);
        },
        cancellationToken);

    protected override async ValueTask<BlockNode> OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        => await OpenAsync(
            file, backing: null, forRepair, cancellationToken, _owner with { Below = null }).ConfigureAwait(false);

    protected override async ValueTask ReloadAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        _layout.Header = await ParallelsHeader.ReadAsync(File, cancellationToken).ConfigureAwait(false);
        (_isMarked, _gaveUp) = (false, false);
        await LoadAsync(cancellationToken).ConfigureAwait(false);
    }

    protected override bool MustBegin => !_isMarked;

    protected override async ValueTask BeginChangesAsync(MetadataSession.Held held)
    {
        if (_isMarked)
        {
            return;
        }
        RequireKnownExtension();
        _gaveUp |= Header.ExtensionOffset != 0;
        await WriteHeaderAsync(held, Header.Opened()).ConfigureAwait(false);
        (_isMarked, _layout.Extension, _extensionFault) = (true, null, null);
    }

    protected override void CheckHeader(CheckFindings findings, StoredBlock[] blocks)
    {
        if (Header.IsInUse && !_isMarked)
        {
            findings.Corruption(
                "Dirty", $"the image was not closed: a program that wrote to it ended, or still has it open", "mark it as closed", host: 0);
        }
        if (!Header.IsDataOffsetSound)
        {
            findings.Corruption(
                "DataOffset",
                $"the header says that the data begin at sector {Header.DataOffset:#,0}, which cannot "
                    + $"be; they begin at {Header.DataStart:#,0}",
                "write the right number",
                host: 0);
        }
        if (_extensionFault is { } fault)
        {
            findings.Corruption(
                "Extension", $"the format extension cannot be read: {fault}", "drop it, with the dirty bitmaps it may hold", host: 0);
        }
        else if (_layout.Extension is { Bitmaps.Count: > 0 } && Header.InUse != ParallelsHeader.KeptMark)
        {
            findings.Warning(
                "StaleBitmaps", $"the dirty bitmaps are not to be relied on: a program that does not keep them had the image open");
        }
        foreach (StoredBlock block in blocks.Where(b => (b.Place - Header.DataStart) % Header.ClusterSize != 0 && findings.HasRoom))
        {
            findings.Warning(
                "Misaligned",
                $"{_layout.NameOf(block.Index)} at offset {block.Place:#,0} is not at a whole cluster of the data",
                host: block.Place);
        }
    }

    protected override async ValueTask MendHeaderAsync(MetadataSession.Held held)
    {
        ParallelsHeader sound = Header with { DataOffset = Header.SoundDataOffset };
        if (_extensionFault is not null)
        {
            sound = sound with { ExtensionOffset = 0 };
            _extensionFault = null;
        }
        if (sound != Header)
        {
            await WriteHeaderAsync(held, sound).ConfigureAwait(false);
        }
    }

    protected override async ValueTask FinishAsync(MetadataSession.Held held, bool isMended)
    {
        if (_isMarked || (isMended && Header.IsInUse))
        {
            // A program that kept no dirty bitmaps may have ended: they are not to be relied on afterwards either.
            uint mark = Header.ExtensionOffset == 0 ? 0u : 0;
            await WriteHeaderAsync(held, Header with { InUse = mark }).ConfigureAwait(false);
            _isMarked = false;
        }
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: a Parallels disk grows without preallocation only; allowed: off", Name);
        }
        long sectors = ParallelsHeader.UnitsOf(length, ParallelsHeader.SectorSize);
        long entries = ParallelsHeader.UnitsOf(sectors, Header.Tracks);
        if (entries > ParallelsHeader.MaximumEntries || (!Header.IsExtended && sectors > uint.MaxValue))
        {
            long most = Math.Min((long)ParallelsHeader.MaximumEntries * Header.Tracks, Header.IsExtended ? long.MaxValue : uint.MaxValue);
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: a Parallels disk with clusters of {Header.ClusterSize:#,0} bytes cannot have {length:#,0} bytes; allowed: up to"
                    + $" {most * ParallelsHeader.SectorSize:#,0}",
                Name);
        }
        return AloneAsync(
            () => Session.RunAsync(held => ResizeAsync(held, sectors, (int)entries, cancellationToken), cancellationToken),
            cancellationToken);
    }

    private async ValueTask ResizeAsync(MetadataSession.Held held, long sectors, int entries, CancellationToken cancellationToken)
    {
        await BeginChangesAsync(held).ConfigureAwait(false);
        await Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (sectors >= Header.Sectors)
        {
            await ZeroTailAsync(cancellationToken).ConfigureAwait(false);
            if (entries > Header.Entries)
            {
                await MakeRoomAsync(held, entries, cancellationToken).ConfigureAwait(false);
            }
            await WriteHeaderAsync(held, Header with { Sectors = sectors }).ConfigureAwait(false);
            await SettleAsync(held).ConfigureAwait(false);
            return;
        }
        await WriteHeaderAsync(held, Header with { Sectors = sectors }).ConfigureAwait(false);
        for (int block = Table.NextUsed(entries); block < Table.Count; block = Table.NextUsed(block + 1))
        {
            Table.Clear(held, block);
        }
        await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
        uint dataOffset = (uint)(Header.DataStart / ParallelsHeader.SectorSize); // it must not follow from a shorter BAT
        await WriteHeaderAsync(held, Header with { Entries = entries, DataOffset = dataOffset }).ConfigureAwait(false);
        Table.SetCount(held, entries);
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>
    /// Makes the BAT longer: the clusters in its way are moved behind the others, what they leave is made to say "nowhere", and the header,
    /// in one step, that the BAT reaches there and the data begin behind it.
    /// </summary>
    private async ValueTask MakeRoomAsync(MetadataSession.Held held, int entries, CancellationToken cancellationToken)
    {
        ParallelsHeader old = Header, next = old with { Entries = entries };
        long more = ParallelsHeader.UnitsOf(Math.Max(0, next.TableEnd - old.DataStart), old.ClusterSize) * old.ClusterSize;
        long dataStart = old.DataStart + more;
        if (dataStart / ParallelsHeader.SectorSize > uint.MaxValue)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: the BAT of a larger disk leaves no offset for the data that the header can say",
                Name);
        }
        await Maintenance.ClearAsync(held, old.DataStart, dataStart, cancellationToken).ConfigureAwait(false);
        if (File.Length < dataStart)
        {
            await File.ResizeAsync(dataStart, cancellationToken: CancellationToken.None).ConfigureAwait(false);
        }
        await File.WriteZeroesAsync(old.TableEnd, next.TableEnd - old.TableEnd, cancellationToken: CancellationToken.None)
            .ConfigureAwait(false);
        await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        await WriteHeaderAsync(held, next with { DataOffset = (uint)(dataStart / ParallelsHeader.SectorSize) }).ConfigureAwait(false);
        Table.SetCount(held, entries, isInFile: true);
    }

    private async ValueTask WriteHeaderAsync(MetadataSession.Held held, ParallelsHeader header)
    {
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        await File.WriteAsync(0, header.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        _layout.Header = header with { FileLength = File.Length };
    }

    private async ValueTask LoadAsync(CancellationToken cancellationToken)
    {
        await Table.LoadAsync(ParallelsHeader.Length, Header.Entries, cancellationToken).ConfigureAwait(false);
        (_layout.Extension, _extensionFault) = (null, null);
        if (Header.ExtensionOffset == 0)
        {
            return;
        }
        try
        {
            _layout.Extension = await ParallelsExtension.ReadAsync(File, Header, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
        {
            _extensionFault = e.Message;
        }
    }

    /// <summary>What this program does not understand may depend on what the disk holds: then the disk is not changed.</summary>
    private void RequireKnownExtension()
    {
        if (_layout.Extension?.Foreign is { } foreign)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{File.Name}: its format extension has a section 0x{foreign:X16} that this program does not know and "
                    + $"that must be kept, so the image is not"
                    + $" written to. Convert it with {new Remedy(RemedyKind.Convert)} and change that.",
                Name);
        }
        if (_extensionFault is { } fault)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{fault}, and it may say that the image must not be changed. Repair it with "
                    + $"{new Remedy(RemedyKind.Repair)}, which drops it.",
                Name);
        }
    }
}
