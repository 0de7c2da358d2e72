namespace DiskImage.Block;

/// <summary>What a repair may touch.</summary>
public enum RepairMode
{
    /// <summary>Only give back space that nothing uses: cannot lose data.</summary>
    Leaks,

    /// <summary>Everything that can be repaired.</summary>
    All,
}

/// <summary>A disk that can repair its own structures. It is opened for that with the checks of an ordinary open relaxed.</summary>
public interface IRepairable : ICheckable
{
    /// <summary>
    /// Repairs, checks again, and reports what is left, with what was fixed counted in
    /// <see cref="CheckReport.CorruptionsFixed"/> and <see cref="CheckReport.LeaksFixed"/>.
    /// </summary>
    ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken);
}

/// <summary>A disk whose reference to its backing image can be changed.</summary>
public interface IRebasable
{
    /// <summary>
    /// Writes another reference, without looking at contents: whoever calls it has made sure that the disk reads the same, or
    /// wants otherwise. The open graph keeps the old backing node.
    /// </summary>
    /// <param name="backingFile">The name as it is to stand in the image; null for none.</param>
    /// <param name="backingFormat">Its format; null if unknown.</param>
    /// <param name="backing">The new backing image, open, for formats that record its identity; null if there is none or it is not at hand.</param>
    /// <param name="cancellationToken">Stops before anything is written.</param>
    ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken);
}

/// <summary>A disk that can drop everything its own layer holds.</summary>
public interface IEmptiable
{
    /// <summary>Afterwards the disk shows its backing image only.</summary>
    ValueTask MakeEmptyAsync(CancellationToken cancellationToken);

    /// <summary>The same where the backing image has just been made to read as the disk does, so that disks standing on this one go on to fit it.</summary>
    ValueTask MakeEmptyAfterMergeAsync(CancellationToken cancellationToken) => MakeEmptyAsync(cancellationToken);
}

/// <summary>A disk whose file can be made smaller in place.</summary>
public interface ICompactable
{
    /// <summary>
    /// Gives up space that is unused or zero, moves what is behind it down, and truncates the file. Safe against a crash at any
    /// point. Returns the bytes by which the file became shorter.
    /// </summary>
    ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken);
}

/// <summary>A disk that can store units compressed. Compressing needs no state, so it can run in parallel; storing goes in order.</summary>
public interface ICompressedWritable
{
    /// <summary>Bytes that are compressed together; a power of two.</summary>
    int CompressionUnit { get; }

    /// <summary>
    /// Compresses a unit (shorter at the end of the disk only) into a buffer of at least <see cref="CompressionUnit"/> bytes; the
    /// bytes written, or null if it does not get smaller.
    /// </summary>
    int? Compress(ReadOnlySpan<byte> unit, Span<byte> output);

    /// <summary>Stores what <see cref="Compress"/> made of the unit at <paramref name="offset"/>.</summary>
    ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken);
}

/// <summary>A state of a disk that was kept.</summary>
public sealed record DiskSnapshot
{
    /// <summary>The identifier, unique in the image.</summary>
    public required string Id { get; init; }

    /// <summary>The name, which need not be unique.</summary>
    public required string Name { get; init; }

    /// <summary>Bytes of virtual machine state kept with it.</summary>
    public long VmStateSize { get; init; }

    /// <summary>When it was taken.</summary>
    public DateTimeOffset Date { get; init; }

    /// <summary>How long the virtual machine had run.</summary>
    public TimeSpan VmClock { get; init; }

    /// <summary>Instructions the virtual machine had executed; null if not recorded.</summary>
    public long? ICount { get; init; }

    /// <summary>The virtual size when it was taken.</summary>
    public long VirtualSize { get; init; }
}

/// <summary>A disk that keeps snapshots inside its image.</summary>
public interface ISnapshots
{
    /// <summary>The snapshots, oldest first.</summary>
    ValueTask<IReadOnlyList<DiskSnapshot>> GetSnapshotsAsync(CancellationToken cancellationToken);

    /// <summary>Keeps the present state. A name may occur more than once, as in QEMU.</summary>
    ValueTask<DiskSnapshot> CreateSnapshotAsync(string name, DateTimeOffset taken, CancellationToken cancellationToken);

    /// <summary>Goes back to a snapshot, found by id, else by name; what was written since is lost. The snapshot stays.</summary>
    ValueTask<DiskSnapshot> RestoreSnapshotAsync(string idOrName, CancellationToken cancellationToken);

    /// <summary>Removes a snapshot, found by name, else by id; the first of several with that name.</summary>
    ValueTask<DiskSnapshot> DeleteSnapshotAsync(string nameOrId, CancellationToken cancellationToken);

    /// <summary>Removes the snapshot that has this id and this name.</summary>
    ValueTask<DiskSnapshot> DeleteSnapshotAsync(string id, string name, CancellationToken cancellationToken);

    /// <summary>
    /// A read-only disk that shows a snapshot, found by id, else by name. It borrows this disk, which must stay open and must not be
    /// written to.
    /// </summary>
    ValueTask<BlockNode> OpenSnapshotAsync(string idOrName, CancellationToken cancellationToken);
}

/// <summary>A persistent dirty bitmap: which parts of the disk were written since it was cleared.</summary>
/// <param name="Name">Its name, unique in the image.</param>
/// <param name="Granularity">Bytes that one bit stands for.</param>
/// <param name="IsEnabled">It records writes ("auto").</param>
/// <param name="IsInUse">It was not saved properly and cannot be relied on; it can only be removed.</param>
/// <param name="DirtyBytes">Bytes that its set bits stand for; null if it is in use.</param>
public sealed record DiskBitmap(string Name, long Granularity, bool IsEnabled, bool IsInUse, long? DirtyBytes);

/// <summary>A disk that keeps dirty bitmaps inside its image.</summary>
public interface IBitmaps
{
    /// <summary>The bitmaps, in the image's order.</summary>
    ValueTask<IReadOnlyList<DiskBitmap>> GetBitmapsAsync(CancellationToken cancellationToken);

    /// <summary>Adds an empty bitmap. Without a granularity it gets the cluster size, within 4k to 64k as in QEMU.</summary>
    ValueTask<DiskBitmap> AddBitmapAsync(string name, long? granularity, bool enabled, CancellationToken cancellationToken);

    /// <summary>Removes a bitmap, also one that is in use.</summary>
    ValueTask RemoveBitmapAsync(string name, CancellationToken cancellationToken);

    /// <summary>Clears every bit.</summary>
    ValueTask ClearBitmapAsync(string name, CancellationToken cancellationToken);

    /// <summary>Lets it record writes, or stops it.</summary>
    ValueTask EnableBitmapAsync(string name, bool enabled, CancellationToken cancellationToken);

    /// <summary>Sets the bits that stand for any of these ranges, of this or another disk.</summary>
    ValueTask MergeBitmapAsync(string name, IReadOnlyList<(long Offset, long Length)> dirty, CancellationToken cancellationToken);

    /// <summary>The ranges that a bitmap says were written, in order, neighbours joined.</summary>
    ValueTask<IReadOnlyList<(long Offset, long Length)>> GetDirtyRangesAsync(string name, CancellationToken cancellationToken);
}

/// <summary>A disk that can take the places for writes that are to come, so that parallel writers get them in the order of these calls.</summary>
public interface IReservable
{
    /// <summary>Takes places for a range that will be written as a whole. A hint: places that are not used are given back on closing.</summary>
    ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken);
}

/// <summary>A disk that can tell how scattered its blocks lie in its file.</summary>
public interface IFragmented
{
    /// <summary>
    /// Of the stored blocks, in the disk's order, the percentage that does not lie right behind the stored block before; a gap too small for a block
    /// is none. Null if the table of blocks is too large to be read for that. Of a chain, this layer's.
    /// </summary>
    ValueTask<int?> GetFragmentationAsync(CancellationToken cancellationToken);
}
