using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>An open VDI: which objects it has, and what is done to them.</summary>
/// <remarks>
/// <para>An object that belongs to this VDI is written to as it is. Any other is made first: empty, or as a copy of that of the snapshot
/// that the VDI stands on. Then the VDI's inode is told of it. So a crash between the two leaves the old contents, and an object that
/// nobody leads to, which the next write to it replaces.</para>
/// <para>Requests to an object share it; making it and giving it up exclude all others. What changes the whole VDI runs alone.</para>
/// <para>The cluster removes objects that are given up after it has answered. One that is made again at once would be removed with what
/// was written to it: so it is waited until the old one is gone.</para>
/// </remarks>
internal sealed class SheepVolume
{
    private const int MostReloads = 3; // of an inode, for one write: somebody may take snapshots meanwhile. Ours
    private const int MostWaits = 40; // for an object to be removed: 2 s. Ours

    private static readonly TimeSpan s_wait = TimeSpan.FromMilliseconds(50);

    private readonly RangeLock _lock = new(); // over bytes of the disk, in whole objects
    private readonly HashSet<int> _givenUp = []; // objects of its own that may not be gone yet; itself the lock
    private readonly string _vdiName;
    private readonly bool _isLocked;
    private uint[] _entries; // whose each object is; an element changes with the object held alone, the list with everything
    private SheepInode _inode; // changes with everything held alone
    private bool _keepsObjects; // the cluster does not remove what is given up

    private SheepVolume(SheepGateway gateway, string vdiName, SheepInode inode, uint[] entries, bool isLocked)
        => (Gateway, _vdiName, _inode, _entries, _isLocked) = (gateway, vdiName, inode, entries, isLocked);

    /// <summary>The cluster.</summary>
    public SheepGateway Gateway { get; }

    /// <summary>What the inode says.</summary>
    public SheepInode Inode => Volatile.Read(ref _inode);

    /// <summary>Bytes of the objects that are its own.</summary>
    public long OwnLength => Volatile.Read(ref _entries).AsSpan().Count(Inode.Vdi) * Inode.ObjectSize;

    private string Name => Gateway.Name;

    /// <summary>Opens what an inode describes.</summary>
    public static async ValueTask<SheepVolume> OpenAsync(
        SheepGateway gateway, string vdiName, SheepInode inode, bool isLocked, CancellationToken cancellationToken)
        => new(
            gateway, vdiName, inode, await gateway.EntriesAsync(inode, cancellationToken).ConfigureAwait(false), isLocked);

    /// <summary>Fills a buffer.</summary>
    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => InPiecesAsync(offset, buffer.Length, (piece, at) => ReadPieceAsync(
            piece, buffer.Slice(at, piece.Length), cancellationToken));

    /// <summary>Writes a buffer inside the disk.</summary>
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => InPiecesAsync(offset, buffer.Length, (piece, at) => WritePieceAsync(
            piece, buffer.Slice(at, piece.Length), cancellationToken));

    /// <summary>True if an object is there that keeps the bytes at an offset. What is not kept is zeroes.</summary>
    public bool IsKept(long offset) => Volatile.Read(ref _entries)[(int)(offset >> Inode.Shift)] != 0;

    /// <summary>The run from an offset on of which <see cref="IsKept"/> is the same, as far as it is asked for.</summary>
    public long RunFrom(long offset, long length)
    {
        uint[] entries = Volatile.Read(ref _entries);
        int shift = Inode.Shift, first = (int)(offset >> shift), last = (int)((offset + length - 1) >> shift), at = first;
        while (at < last && (entries[at + 1] != 0) == (entries[first] != 0))
        {
            at++;
        }
        return Math.Min(length, ((at + 1L) << shift) - offset);
    }

    /// <summary>Gives the objects up that lie in a range as a whole; they read as zeroes.</summary>
    /// <returns>The range that is zero now; empty, at the end, for none.</returns>
    public async ValueTask<(long Start, long End)> GiveUpAsync(long offset, long length, CancellationToken cancellationToken)
    {
        const int AtOnce = 1024; // objects. Ours
        SheepInode inode = Inode;
        long end = offset + length;
        int first = inode.ObjectsOf(offset), last = end >= inode.Size ? inode.Objects : (int)(end >> inode.Shift);
        for (int at = first; at < last; at += AtOnce)
        {
            int to = Math.Min(last, at + AtOnce);
            await _lock.WithinAsync(
                (long)at << inode.Shift,
                (long)to << inode.Shift,
                exclusive: true,
                () => ClearAsync(at, to, cancellationToken),
                cancellationToken).ConfigureAwait(false);
        }
        return first < last ? ((long)first << inode.Shift, Math.Min((long)last << inode.Shift, end)) : (end, end);
    }

    /// <summary>Makes the disk longer or shorter. What is to be cut off inside an object must be zeroes already.</summary>
    /// <param name="size">The new length.</param>
    /// <param name="mayShrink">False to leave a disk alone that is longer by now.</param>
    /// <param name="cancellationToken">Stops waiting for others.</param>
    public ValueTask ResizeAsync(long size, bool mayShrink, CancellationToken cancellationToken) => AloneAsync(
        async () =>
        {
            SheepInode inode = Inode;
            if (size == inode.Size || (size < inode.Size && !mayShrink))
            {
                return;
            }
            if (size > inode.MostSize)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.OutOfRange,
                    $"{Name}: cannot have {size:#,0} bytes: with objects of {inode.ObjectSize:#,0} bytes a VDI has "
                        + $"{inode.MostSize:#,0} at most. A new one may have larger objects ('object_size').",
                    Name);
            }
            if (inode.ObjectsOf(size) < _entries.Length)
            {
                await ClearAsync(inode.ObjectsOf(size), _entries.Length, cancellationToken).ConfigureAwait(false);
            }
            byte[] field = new byte[sizeof(long)];
            BinaryPrimitives.WriteInt64LittleEndian(field, size);
            await Gateway.WriteInodeAsync(
                inode, SheepInode.SizeAt, field, $"change its length to {size:#,0} bytes", CancellationToken.None).ConfigureAwait(false);
            uint[] entries = _entries;
            Array.Resize(ref entries, inode.ObjectsOf(size));
            Volatile.Write(ref _entries, entries);
            Volatile.Write(ref _inode, inode with { Size = size });
        },
        cancellationToken);

    /// <summary>Makes the objects of a range that are not there yet, without writing to them: the servers reserve their space.</summary>
    public async ValueTask ReserveAsync(long offset, long end, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        for (long at = offset; at < end;)
        {
            long next = Math.Min(end, ((at >> Inode.Shift) + 1) << Inode.Shift);
            await WritePieceAsync(PieceAt(at, 0), ReadOnlyMemory<byte>.Empty, cancellationToken).ConfigureAwait(false);
            claimed?.Report(next - offset);
            at = next;
        }
    }

    /// <summary>Does something while no request is in flight.</summary>
    public ValueTask AloneAsync(Func<ValueTask> work, CancellationToken cancellationToken) => _lock.AloneAsync(work, cancellationToken);

    /// <summary>Looks anew what the name leads to, after it leads elsewhere. For whoever holds everything.</summary>
    public async ValueTask ReloadAsync(CancellationToken cancellationToken)
    {
        if (_isLocked)
        {
            await Gateway.ReleaseAsync(_vdiName, Inode.Vdi, cancellationToken).ConfigureAwait(false);
        }
        uint vdi = _isLocked ? await Gateway.LockAsync(_vdiName, cancellationToken).ConfigureAwait(false)
            : await Gateway.FindAsync(_vdiName, "", 0, cancellationToken).ConfigureAwait(false) ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound, $"{Name}: is not there any more", Name);
        SheepInode inode = await Gateway.InodeAsync(vdi, cancellationToken).ConfigureAwait(false);
        uint[] entries = await Gateway.EntriesAsync(inode, cancellationToken).ConfigureAwait(false);
        Volatile.Write(ref _entries, entries);
        Volatile.Write(ref _inode, inode);
        lock (_givenUp)
        {
            _givenUp.Clear();
        }
    }

    private async ValueTask ClearAsync(int from, int to, CancellationToken cancellationToken)
    {
        lock (_givenUp)
        {
            _givenUp.UnionWith(Enumerable.Range(from, to - from).Where(i => _entries[i] == Inode.Vdi));
        }
        await Gateway.ClearAsync(Inode, _entries, from, to, cancellationToken).ConfigureAwait(false);
    }

    private async Task ReadPieceAsync(Piece piece, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await HoldAsync(piece, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            uint owner = _entries[piece.Index];
            if (owner == 0)
            {
                buffer.Span.Clear();
                return;
            }
            _ = await Gateway.RequireAsync(
                SheepRequest.Read(SheepWire.DataOf(owner, piece.Index), piece.Within, buffer),
                $"read {piece.Length:#,0} bytes at offset {piece.Offset:#,0}",
                piece.Offset,
                cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _lock.Release(hold);
        }
    }

    private async Task WritePieceAsync(Piece piece, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        for (int reloads = 0; ; reloads++)
        {
            SheepInode before = Inode;
            SheepRequest? failed = await TryWriteAsync(piece, bytes, cancellationToken).ConfigureAwait(false);
            if (failed is null)
            {
                return;
            }
            if (failed.Result != SheepResult.ReadOnly || reloads == MostReloads)
            {
                throw Gateway.Error(failed, $"write {piece.Length:#,0} bytes at offset {piece.Offset:#,0}", piece.Offset);
            }
            // somebody has made a snapshot of it: the name leads to another VDI now, which stands on that
            await AloneAsync(
                () => ReferenceEquals(before, Inode) ? ReloadAsync(cancellationToken) : default, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Writes to an object. Returns what the cluster did not do; null if all is done.</summary>
    private async ValueTask<SheepRequest?> TryWriteAsync(
        Piece piece, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await HoldAsync(piece, exclusive: false, cancellationToken).ConfigureAwait(false);
        if (!IsOwn(piece))
        {
            _lock.Release(hold);
            hold = await HoldAsync(piece, exclusive: true, cancellationToken).ConfigureAwait(false);
        }
        try
        {
            SheepInode inode = Inode;
            if (!IsOwn(piece))
            {
                return await TryMakeAsync(piece, bytes, inode, cancellationToken).ConfigureAwait(false);
            }
            SheepRequest? written = bytes.IsEmpty ? null : await Gateway.RunAsync(
                SheepRequest.Write(SheepWire.DataOf(inode.Vdi, piece.Index), piece.Within, bytes, inode),
                cancellationToken).ConfigureAwait(false);
            return written is null or { Result: SheepResult.Success } ? null : written;
        }
        finally
        {
            _lock.Release(hold);
        }
    }

    /// <summary>Makes an object with what is to be written to it, and has the inode know of it.</summary>
    private async ValueTask<SheepRequest?> TryMakeAsync(
        Piece piece, ReadOnlyMemory<byte> bytes, SheepInode inode, CancellationToken cancellationToken)
    {
        await AwaitGoneAsync(piece.Index, inode, cancellationToken).ConfigureAwait(false);
        uint owner = _entries[piece.Index];
        bool isWhole = bytes.Length == inode.ObjectSize;
        SheepRequest made = await Gateway.RunAsync(
            SheepRequest.Create(
                SheepWire.DataOf(inode.Vdi, piece.Index),
                owner == 0 || isWhole ? null : SheepWire.DataOf(owner, piece.Index),
                piece.Within,
                bytes,
                inode),
            cancellationToken).ConfigureAwait(false);
        if (made.Result != SheepResult.Success)
        {
            return made;
        }
        byte[] entry = new byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(entry, inode.Vdi);
        await Gateway.WriteInodeAsync(
            inode, SheepInode.EntryAt(piece.Index), entry, $"have it know of its object {piece.Index}", CancellationToken.None)
            .ConfigureAwait(false);
        _entries[piece.Index] = inode.Vdi;
        return null;
    }

    private async ValueTask AwaitGoneAsync(int index, SheepInode inode, CancellationToken cancellationToken)
    {
        lock (_givenUp)
        {
            if (!_givenUp.Remove(index) || _keepsObjects)
            {
                return;
            }
        }
        byte[] probe = new byte[1];
        for (int i = 0; i < MostWaits; i++)
        {
            SheepRequest read = await Gateway.RunAsync(
                SheepRequest.Read(SheepWire.DataOf(inode.Vdi, index), 0, probe), cancellationToken).ConfigureAwait(false);
            if (read.Result == SheepResult.NoObject)
            {
                return;
            }
            await Task.Delay(s_wait, cancellationToken).ConfigureAwait(false);
        }
        _keepsObjects = true; // versions before 0.9 do
    }

    private bool IsOwn(Piece piece) => _entries[piece.Index] == Inode.Vdi;

    private ValueTask<RangeLock.Hold> HoldAsync(Piece piece, bool exclusive, CancellationToken cancellationToken)
    {
        int shift = Inode.Shift;
        return _lock.AcquireAsync((long)piece.Index << shift, (piece.Index + 1L) << shift, exclusive, cancellationToken);
    }

    private Piece PieceAt(long offset, int length)
        => new((int)(offset >> Inode.Shift), (int)(offset & (Inode.ObjectSize - 1)), length, offset);

    /// <summary>Does something for each object that a range touches, all at once. It has ended when all of them have.</summary>
    private async ValueTask InPiecesAsync(long offset, int length, Func<Piece, int, Task> work)
    {
        var pieces = new List<Task>();
        for (int at = 0; at < length;)
        {
            Piece piece = PieceAt(offset + at, 0);
            piece = piece with { Length = (int)Math.Min(length - at, Inode.ObjectSize - piece.Within) };
            if (piece.Length == length)
            {
                await work(piece, 0).ConfigureAwait(false);
                return;
            }
            pieces.Add(work(piece, at));
            at += piece.Length;
        }
        await Task.WhenAll(pieces).ConfigureAwait(false);
    }

    /// <summary>A part of a request that lies in one object.</summary>
    /// <param name="Index">The object.</param>
    /// <param name="Within">Where in it.</param>
    /// <param name="Length">Bytes.</param>
    /// <param name="Offset">Where in the disk.</param>
    private readonly record struct Piece(int Index, int Within, int Length, long Offset);
}
