using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vdi;

/// <summary>A VDI disk: guest offset → block map → block of the file.</summary>
/// <remarks>
/// <para>The header says how many blocks the file has, and every program puts the next one there. So the blocks lie without a gap.</para>
/// <para>Order of writes: the header's number, then the map. A crash between the two leaves a block that nothing refers to; the other way
/// round the next block would be put on one that is in use. Numbers fall only after the map is durable.</para>
/// </remarks>
internal sealed class VdiNode : BlockTableNode<LittleBlockEntry>, IDescribed, IRebasable, IEmptiable, IBackingRecord
{
    private readonly VdiHeaderStore _header;
    private readonly VdiLayout _layout;
    private string? _parentName;
    private bool _isModified; // the identity of the contents is a new one

    private VdiNode(
        BlockNode? parent,
        string? parentName,
        MetadataSession session,
        VdiHeaderStore header,
        BlockTable<LittleBlockEntry> map,
        VdiLayout layout,
        bool forRepair)
        : base(parent, session, map, layout, forRepair) => (_header, _layout, _parentName) = (header, layout, parentName);

    /// <summary>The header as it is now.</summary>
    internal VdiHeader Header => _header.Current;

    protected override bool KeepsPlaces => Header.Type == VdiImageType.Static;

    protected override bool IsOverlay => Header.IsDifferencing;

    protected override bool MustBegin => !_isModified;

    protected override long LeastNext => _layout.PlaceOf(new((uint)_header.Current.Allocated));

    /// <summary>Reads the map. The file and the parent are the node's on success.</summary>
    public static async ValueTask<VdiNode> OpenAsync(
        BlockNode file,
        VdiHeader header,
        bool forRepair,
        CancellationToken cancellationToken,
        BlockNode? parent = null,
        string? parentName = null)
    {
        var session = new MetadataSession(file);
        var store = new VdiHeaderStore(session.Order, header);
        var map = new BlockTable<LittleBlockEntry>(session.Order);
        var node = new VdiNode(parent, parentName, session, store, map, new VdiLayout(file, store, map), forRepair);
        await map.LoadAsync(header.MapOffset, header.Blocks, cancellationToken).ConfigureAwait(false);
        if (!file.IsReadOnly && !forRepair)
        {
            await node.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }
        return node;
    }

    public ImageDescription Describe() => new()
    {
        Format = VdiDriver.FormatName,
        ClusterSize = _header.Current.BlockSize,
        BackingFile = _parentName ?? (Header.IsDifferencing ? Header.LinkId.ToString("B") : null), // not found: all that is recorded
        BackingFormat = Header.IsDifferencing ? VdiDriver.FormatName : null,
        FormatSpecific = new VdiInfo
        {
            ImageType = _header.Current.Type.ToString(),
            AllocatedBlocks = _header.Current.Allocated,
            ImageId = _header.Current.ImageId,
            LastSnapshotId = _header.Current.SnapshotId,
            Comment = _header.Current.Comment,
            ParentId = Header.IsDifferencing ? Header.LinkId : null,
            ParentModificationId = Header.IsDifferencing && Header.ParentId != Guid.Empty ? Header.ParentId : null,
            Cylinders = Header.Geometry.Cylinders,
            Heads = Header.Geometry.Heads,
            SectorsPerTrack = Header.Geometry.Sectors,
        },
    };

    /// <summary>Changes the disk's identity, what is recorded of its parent, its remark.</summary>
    public ValueTask AmendAsync(VdiAmendOptions options, CancellationToken cancellationToken) => AloneAsync(() => Session.RunAsync(
        async held =>
        {
            VdiHeader header = Header;
            if (options.ParentUuid is { } parent)
            {
                header = header.IsDifferencing
                    ? header with { LinkId = IdentifierOption.Parse(Name, "parent_uuid", parent), ParentId = Guid.Empty }
                    : throw new DiskImageException(
                        DiskImageErrorKind.InvalidOption,
                        $"{Name}: has no parent, so parent_uuid={parent} is not possible. Give it one "
                            + $"with {new Remedy(RemedyKind.SetBacking)}.",
                        Name);
            }
            header = options.Uuid is { } id ? header with { ImageId = IdentifierOption.Parse(Name, "uuid", id) } : header;
            header = options.Comment is { } comment ? header.WithComment(Name, comment) : header;
            await RecordAsync(held, header, cancellationToken).ConfigureAwait(false);
        },
        cancellationToken),
        cancellationToken);

    /// <summary>Records another parent, by its identities, or none. The name is only told: no VDI holds one.</summary>
    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => AloneAsync(() => Session.RunAsync(
            async held =>
            {
                VdiHeader header = backingFile is not null
                    ? Header.On(Name, VdiParent.Of(Name, backingFile, backingFormat, isStatic: false, backing))
                    : Header.IsDifferencing
                        ? Header with { Type = VdiImageType.Dynamic, LinkId = Guid.Empty, ParentId = Guid.Empty }
                        : Header;
                await RecordAsync(held, header, cancellationToken).ConfigureAwait(false);
                _parentName = backingFile;
            },
            cancellationToken),
            cancellationToken);

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => EmptyAsync(isVisible: true, cancellationToken);

    public ValueTask MakeEmptyAfterMergeAsync(CancellationToken cancellationToken) => EmptyAsync(isVisible: false, cancellationToken);

    // There is room for one identity of the parent's contents, so until they are known again any will do.
    public ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken) => AloneAsync(() => Session.RunAsync(
        held => Header.IsDifferencing && Backing is not null
            ? RecordAsync(held, Header with { ParentId = Guid.Empty }, cancellationToken)
            : default,
        cancellationToken),
        cancellationToken);

    public ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken) => AloneAsync(() => Session.RunAsync(
        async held =>
        {
            if (Header.IsDifferencing && Backing?.As<VdiNode>() is { } parent)
            {
                // others have written there
                VdiHeader now = await VdiHeader.ReadAsync(parent.File, cancellationToken).ConfigureAwait(false);
                await RecordAsync(held, Header with { ParentId = now.SnapshotId }, cancellationToken).ConfigureAwait(false);
            }
        },
        cancellationToken),
        cancellationToken);

    /// <summary>The contents get another identity before the first of them is changed, so that children notice.</summary>
    protected override async ValueTask BeginChangesAsync(MetadataSession.Held held)
    {
        if (!_isModified)
        {
            await RecordAsync(
                held,
                Header with { SnapshotId = NewIdentity.Of("vdi contents", Header.ImageId, Header.SnapshotId) },
                CancellationToken.None)
                .ConfigureAwait(false);
            _isModified = true;
        }
    }

    protected override async ValueTask<BlockNode> OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        => await OpenAsync(file, await VdiHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false), forRepair, cancellationToken)
            .ConfigureAwait(false);

    protected override async ValueTask ReloadAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        _header.Load(held, await VdiHeader.ReadAsync(File, cancellationToken).ConfigureAwait(false));
        await Table.LoadAsync(_header.Current.MapOffset, _header.Current.Blocks, cancellationToken).ConfigureAwait(false);
    }

    protected override void Linked(MetadataSession.Held held, long place) => _header.Reach(held, _layout.IndexOf(place));

    // Equal to the count of blocks where there is no gap left.
    protected override void Settled(MetadataSession.Held held, long end)
        => _header.Set(held, _header.Current with { Allocated = (int)_layout.IndexOf(end) });

    protected override void CheckHeader(CheckFindings findings, StoredBlock[] blocks)
    {
        if (_header.Current.Allocated != blocks.Length)
        {
            findings.Corruption(
                "AllocatedCount",
                $"the header says that {_header.Current.Allocated:#,0} blocks are in the file, and the map names {blocks.Length:#,0};"
                    + $" the next block goes to that place",
                "close the gaps and write the right number",
                host: 0);
        }
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: a VDI grows without preallocation only; allowed: off", Name);
        }
        length = Round.Up(length, VdiHeader.SectorSize);
        long blocks = Round.Units(length, AllocationUnit);
        if (blocks > VdiHeader.MaximumBlocks)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: a VDI cannot have {length:#,0} bytes; allowed: up to {(long)VdiHeader.MaximumBlocks * AllocationUnit:#,0}",
                Name);
        }
        return AloneAsync(async () =>
        {
            if (length > Length && IsOverlay)
            {
                await OwnLastBlockAsync(cancellationToken).ConfigureAwait(false);
            }
            await Session.RunAsync(
                held => ResizeAsync(held, length, (int)blocks, cancellationToken), cancellationToken).ConfigureAwait(false);
        },
        cancellationToken);
    }

    private ValueTask EmptyAsync(bool isVisible, CancellationToken cancellationToken) => AloneAsync(() => Session.RunAsync(
        async held =>
        {
            if (KeepsPlaces)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{Name}: a static disk keeps all of its blocks, so it cannot be emptied", Name);
            }
            if (isVisible)
            {
                await BeginChangesAsync(held).ConfigureAwait(false);
            }
            await Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            for (int block = Table.NextUsed(0); block < Table.Count; block = Table.NextUsed(block + 1))
            {
                Table.Clear(held, block);
            }
            await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
        },
        cancellationToken),
        cancellationToken);

    /// <summary>Makes a header durable, after all that is waiting to be written.</summary>
    private async ValueTask RecordAsync(MetadataSession.Held held, VdiHeader header, CancellationToken cancellationToken)
    {
        await Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (header != Header)
        {
            _header.Set(held, header);
            await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>What the parent holds behind the end of a child must not come up when the child grows: its last block becomes the child's
    /// own.</summary>
    private async ValueTask OwnLastBlockAsync(CancellationToken cancellationToken)
    {
        long start = Round.Down(Length, AllocationUnit);
        if (start < Length
            && await MapAsync(start, Length - start, cancellationToken).ConfigureAwait(false) is { Status: BlockStatus.None })
        {
            await Session.RunAsync(BeginChangesAsync, cancellationToken).ConfigureAwait(false);
            byte[] bytes = new byte[Length - start];
            await ReadMappedAsync(start, bytes, cancellationToken).ConfigureAwait(false);
            await WriteMappedAsync(start, bytes, cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask ResizeAsync(MetadataSession.Held held, long length, int blocks, CancellationToken cancellationToken)
    {
        await BeginChangesAsync(held).ConfigureAwait(false);
        await Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        VdiHeader old = _header.Current;
        if (length > old.DiskSize)
        {
            await ZeroTailAsync(cancellationToken).ConfigureAwait(false);
            if (blocks > old.Blocks)
            {
                if (old.MapOffset + ((long)blocks * sizeof(uint)) > old.DataOffset)
                {
                    await MoveMapAsync(held, blocks, cancellationToken).ConfigureAwait(false);
                }
                Table.SetCount(held, blocks);
                for (int block = old.Blocks; IsOverlay && block < blocks; block++)
                {
                    Table.Set(held, block, new(VdiLayout.Discarded));
                }
                await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            }
            _header.Set(held, _header.Current with { DiskSize = length, Blocks = Math.Max(blocks, old.Blocks) });
            await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            return;
        }
        _header.Set(held, old with { DiskSize = length });
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        for (int block = Table.NextUsed(blocks); block < Table.Count; block = Table.NextUsed(block + 1))
        {
            Table.Set(held, block, new(LittleBlockEntry.Nowhere));
        }
        await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
        _header.Set(held, _header.Current with { Blocks = blocks });
        Table.SetCount(held, blocks);
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>
    /// Puts the map where the first blocks are, once these are moved behind the others: the header, one sector, then says both that the map
    /// is there and that block 0 begins behind it, in one step.
    /// </summary>
    private async ValueTask MoveMapAsync(MetadataSession.Held held, int blocks, CancellationToken cancellationToken)
    {
        VdiHeader old = _header.Current;
        long length = Round.Up((long)blocks * sizeof(uint), old.BlockSize), dataOffset = old.DataOffset + length;
        if (dataOffset > uint.MaxValue)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: the block map of a larger disk has no room before offset 4,294,967,296", Name);
        }
        await Maintenance.ClearAsync(held, old.DataOffset, dataOffset, cancellationToken).ConfigureAwait(false);
        byte[] map = new byte[length];
        map.AsSpan().Fill(0xFF);
        uint shift = (uint)(length / old.BlockSize);
        int allocated = 0;
        foreach ((int block, LittleBlockEntry entry) in Table.Used())
        {
            uint moved = entry.Value == VdiLayout.Discarded ? entry.Value : entry.Value - shift;
            new LittleBlockEntry(moved).Write(map.AsSpan(block * sizeof(uint)));
            allocated = Math.Max(allocated, moved == VdiLayout.Discarded ? 0 : (int)moved + 1);
        }
        await File.WriteAsync(old.DataOffset, map, CancellationToken.None).ConfigureAwait(false);
        await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        _header.Set(held, old with { MapOffset = old.DataOffset, DataOffset = dataOffset, Allocated = allocated });
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        Table.Replace(old.DataOffset, map[..(old.Blocks * sizeof(uint))]);
        await SettleAsync(held).ConfigureAwait(false);
    }
}
