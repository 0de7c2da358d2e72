using System.Security;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// A qcow2 disk as a node: what it can do, each ability from the type that has it. What the image is made of is <see cref="Qcow2Disk"/>.
/// </summary>
internal sealed class Qcow2Node
    : FormatNode, IDescribed, IUnfinished, IRepairable, ICompressedWritable, IReservable, ISnapshots, IBitmaps, ICompactable, IRebasable,
        IEmptiable, IKeySlots, IMachineState
{
    private readonly Qcow2Disk _disk;
    private readonly MetadataSession _session;
    private readonly Qcow2Snapshots _snapshots;
    private readonly Qcow2Bitmaps _bitmaps;
    private readonly Qcow2BackingRecord _backingRecord;
    private readonly Qcow2MachineState _state;

    private Qcow2Node(Qcow2Disk disk)
        : base(disk.File, disk.Backing, disk.DataFile is { } data ? [("data-file", data)] : [])
    {
        (_disk, _session) = (disk, disk.Session);
        _snapshots = new Qcow2Snapshots(disk);
        _bitmaps = new Qcow2Bitmaps(disk);
        _backingRecord = new Qcow2BackingRecord(disk);
        _state = new Qcow2MachineState(disk, ReadMappedAsync, WriteMappedAsync);
        DataMayBeSparse = disk.IsExternal || File.AllocatedLength < File.Length - (File.Length / 8);
        IsReadOnly = File.IsReadOnly;
    }

    public override long Length => _disk.Length;

    public override bool IsReadOnly { get; }

    public int CompressionUnit => _disk.Geometry.ClusterSize;

    internal Qcow2Geometry Geometry => _disk.Geometry;

    internal Qcow2Header Header => _disk.Header;

    protected override int AllocationUnit => _disk.Geometry.ClusterSize;

    protected override int ZeroUnit => _disk.Geometry.SubclusterSize;

    // Preallocated clusters and raw data files are full of holes; asking costs little where there is an eighth to win.
    protected override bool DataMayBeSparse { get; }

    protected override ISectorCipher? Cipher => _disk.Encryption?.Cipher;

    public bool IsUnlocked => _disk.Encryption?.Cipher is not LockedCipher;

    /// <summary>Opens the tables of an image whose header is checked. The children are the node's on success.</summary>
    public static async ValueTask<Qcow2Node> OpenAsync(
        BlockNode file,
        BlockNode? dataFile,
        BlockNode? backing,
        Qcow2Header header,
        Qcow2OpenOptions options,
        Qcow2Encryption? encryption,
        bool forRepair,
        CancellationToken cancellationToken)
    {
        var disk = new Qcow2Disk(file, dataFile, backing, header, options, encryption);
        await disk.Session.RunAsync(held => disk.LoadAsync(held, forRepair, cancellationToken), cancellationToken).ConfigureAwait(false);
        return new Qcow2Node(disk);
    }

    public ImageDescription Describe() => new()
    {
        Format = Qcow2Driver.FormatName,
        ClusterSize = Geometry.ClusterSize,
        BackingFile = Header.BackingFile,
        BackingFormat = Header.BackingFormat,
        Encrypted = Header.CryptMethod != 0,
        Dirty = Header.IsInChange,
        FormatSpecific = Qcow2Info.Of(Header, _disk.Encryption),
    };

    public async ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        if (!IsReadOnly)
        {
            await _session.RunAsync(held => _disk.Mark.SettleAsync(held, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        CheckReport report = await AloneAsync(
            () => new Qcow2Checker(File, Header, bytes, cancellationToken, _disk.DataFile).RunAsync(),
            cancellationToken).ConfigureAwait(false);
        return _disk.Encryption?.Volume is { } keys
            ? report.With(await keys.CheckAsync(cancellationToken).ConfigureAwait(false))
            : report;
    }

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => ChangeAloneAsync(
            async held =>
            {
                await _disk.SettleAsync(held, cancellationToken).ConfigureAwait(false);
                CheckReport report = await Qcow2Repairer.RunAsync(
                    File, Header, _disk.DataFile, mode, bytes, cancellationToken).ConfigureAwait(false);
                await _disk.ReloadAsync(held, forWriting: report.Corruptions == 0).ConfigureAwait(false);
                return report;
            },
            cancellationToken);

    public ValueTask SetUnfinishedAsync(bool unfinished, CancellationToken cancellationToken)
        => _session.RunAsync(held => _disk.Mark.SetUnfinishedAsync(held, unfinished, cancellationToken), cancellationToken);

    public ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
        => _disk.IsExternal || Geometry.InCluster(offset) != 0 ? default : ReserveClustersAsync(new(offset), length, cancellationToken);

    public int? Compress(ReadOnlySpan<byte> unit, Span<byte> output)
        => _disk.Encryption is null ? _disk.Compressed.Compress(unit, output) : throw NotCompressed();

    public ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken)
        => _disk.Encryption is null
            ? ChangeAloneAsync(held => _disk.Compressed.WriteAsync(held, new(offset), packed, cancellationToken), cancellationToken)
            : throw NotCompressed();

    public IReadOnlyList<KeySlot> GetKeySlots() => Volume.Slots;

    public ValueTask<int?> FindKeySlotAsync(SecureString secret, CancellationToken cancellationToken)
        => Volume.FindAsync(secret, cancellationToken);

    public ValueTask<int> AddKeySlotAsync(SecureString secret, int? slot, int? iterationTime, CancellationToken cancellationToken)
        => AloneAsync(() => Volume.AddAsync(secret, slot, iterationTime, cancellationToken), cancellationToken);

    public ValueTask RemoveKeySlotAsync(int slot, bool allowLast, CancellationToken cancellationToken)
        => AloneAsync(() => Volume.RemoveAsync(slot, allowLast, cancellationToken), cancellationToken);

    /// <summary>Changes key slots as options say; nothing if they say nothing.</summary>
    public ValueTask AmendKeysAsync(LuksAmendment change, CancellationToken cancellationToken) => change == new LuksAmendment() ? default
        : AloneAsync(() => change.RunAsync(Volume, _disk.Encryption!.Given, Name, cancellationToken), cancellationToken);

    public ValueTask<IReadOnlyList<DiskSnapshot>> GetSnapshotsAsync(CancellationToken cancellationToken)
        => _snapshots.ListAsync(cancellationToken);

    public ValueTask<DiskSnapshot> CreateSnapshotAsync(string name, DateTimeOffset taken, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _snapshots.CreateAsync(held, name, taken, cancellationToken), cancellationToken);

    public ValueTask<DiskSnapshot> RestoreSnapshotAsync(string idOrName, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _snapshots.RestoreAsync(held, idOrName, cancellationToken), cancellationToken);

    public ValueTask<DiskSnapshot> DeleteSnapshotAsync(string nameOrId, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _snapshots.DeleteAsync(held, nameOrId, cancellationToken), cancellationToken);

    public ValueTask<DiskSnapshot> DeleteSnapshotAsync(string id, string name, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _snapshots.DeleteAsync(held, id, name, cancellationToken), cancellationToken);

    public async ValueTask<BlockNode> OpenSnapshotAsync(string idOrName, CancellationToken cancellationToken)
    {
        await FlushAsync(cancellationToken).ConfigureAwait(false);
        return await _snapshots.OpenAsync(idOrName, cancellationToken).ConfigureAwait(false);
    }

    public ValueTask<IReadOnlyList<DiskBitmap>> GetBitmapsAsync(CancellationToken cancellationToken)
        => _session.RunAsync(_ => _bitmaps.ListAsync(cancellationToken), cancellationToken);

    public ValueTask<IReadOnlyList<(long Offset, long Length)>> GetDirtyRangesAsync(string name, CancellationToken cancellationToken)
        => _session.RunAsync(_ => _bitmaps.DirtyRangesAsync(name, cancellationToken), cancellationToken);

    public ValueTask<DiskBitmap> AddBitmapAsync(string name, long? granularity, bool enabled, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _bitmaps.AddAsync(held, name, granularity, enabled, cancellationToken), cancellationToken);

    public ValueTask RemoveBitmapAsync(string name, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _bitmaps.RemoveAsync(held, name, cancellationToken), cancellationToken);

    public ValueTask ClearBitmapAsync(string name, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _bitmaps.ClearAsync(held, name, cancellationToken), cancellationToken);

    public ValueTask EnableBitmapAsync(string name, bool enabled, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _bitmaps.EnableAsync(held, name, enabled, cancellationToken), cancellationToken);

    public ValueTask MergeBitmapAsync(string name, IReadOnlyList<(long Offset, long Length)> dirty, CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _bitmaps.MergeAsync(held, name, dirty, cancellationToken), cancellationToken);

    public async ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        long before = File.Length;
        await ChangeAloneAsync(
            held => new Qcow2Compactor(_disk, held).RunAsync(bytes, cancellationToken), cancellationToken).ConfigureAwait(false);
        bytes?.Report(Length);
        return Math.Max(0, before - File.Length);
    }

    public ValueTask ReadStateAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => AloneAsync(() => _state.ReadAsync(offset, buffer, cancellationToken), cancellationToken);

    public ValueTask WriteStateAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => AloneAsync(() => _state.WriteAsync(offset, buffer, cancellationToken), cancellationToken);

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken)
        => ChangeAloneAsync(held => _backingRecord.EmptyAsync(held, cancellationToken), cancellationToken);

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => _session.RunAsync(held => _backingRecord.SetAsync(held, backingFile, backingFormat, cancellationToken), cancellationToken);

    public ValueTask AmendAsync(Qcow2AmendOptions options, CancellationToken cancellationToken)
        => new Qcow2Amender(_disk, this, options).RunAsync(cancellationToken);

    /// <summary>Claims space ahead of its use for all of a new disk.</summary>
    /// <param name="mode">How; not off.</param>
    /// <param name="keepsData">True if a raw data file has contents already, which stay.</param>
    /// <param name="claimed">Told how many bytes are claimed.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public ValueTask PreallocateAsync(PreallocationMode mode, bool keepsData, IProgress<long>? claimed, CancellationToken cancellationToken)
        => new Qcow2Preallocator(_disk, this).RunAsync(
            default, new(Length), mode, keepsData ? 0 : _disk.DataNode.Length, claimed, cancellationToken);

    /// <summary>Runs a change of the whole image: with no other request, and under the lock.</summary>
    /// <param name="change">The change. It sees to its own cancelling.</param>
    /// <param name="cancellationToken">Stops waiting for the others.</param>
    internal ValueTask ChangeAloneAsync(Func<MetadataSession.Held, ValueTask> change, CancellationToken cancellationToken)
        => AloneAsync(() => _session.RunAsync(change, cancellationToken), cancellationToken);

    /// <summary>Runs something that takes the lock itself, with no other request.</summary>
    internal ValueTask RunAloneAsync(Func<ValueTask> work, CancellationToken cancellationToken) => AloneAsync(work, cancellationToken);

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        return await _disk.Extents.MapAsync(new(offset), length, cancellationToken).ConfigureAwait(false);
    }

    protected override ValueTask ReadEncodedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => _disk.Compressed.ReadAsync(new(offset), buffer, cancellationToken);

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        return await _disk.Writer.EnsureMappedAsync(held, new(offset), length).ConfigureAwait(false);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        await _disk.Writer.PointToAsync(held, mapping, holdsData: true).ConfigureAwait(false);
    }

    protected override async ValueTask AbandonMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        await _disk.Writer.AbandonAsync(held, mapping).ConfigureAwait(false);
    }

    protected override ValueTask<long> ZeroUnitsAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => _disk.Eraser.ZeroAsync(new(offset), length, mode, cancellationToken);

    protected override ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
        => _disk.Eraser.DiscardAsync(new(offset), length, cancellationToken);

    protected override ValueTask BeforeChangeAsync(long offset, long length, CancellationToken cancellationToken)
        => _disk.Bitmaps.AreRecording || _disk.Mark.MustPostpone ? NoteChangeAsync(new(offset), length, cancellationToken) : default;

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        await _disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => new Qcow2Resizer(_disk, this).RunAsync(length, preallocation, claimed, cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await _session.RunAsync(_disk.CloseAsync, CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            _session.Dispose();
            _disk.Encryption?.Dispose();
        }
    }

    private LuksVolume Volume => _disk.Encryption?.Volume ?? throw new DiskImageException(
        DiskImageErrorKind.Unsupported,
        $"{Name}: has no key slots: it {(_disk.Encryption is null ? "is not encrypted" : "is encrypted the old way (aes)")}",
        Name);

    private DiskImageException NotCompressed() => new(
        DiskImageErrorKind.Unsupported, $"{Name}: an encrypted image cannot store compressed data. Leave out one of the two.", Name);

    private ValueTask<T> ChangeAloneAsync<T>(Func<MetadataSession.Held, ValueTask<T>> change, CancellationToken cancellationToken)
        => AloneAsync(() => _session.RunAsync(change, cancellationToken), cancellationToken);

    private async ValueTask ReserveClustersAsync(GuestOffset offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        await _disk.Writer.ReserveAsync(held, offset, length).ConfigureAwait(false);
    }

    private async ValueTask NoteChangeAsync(GuestOffset offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        await _disk.BeforeChangeAsync(held, offset, length).ConfigureAwait(false);
    }
}
