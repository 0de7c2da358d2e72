namespace DiskImage.Metadata;

/// <summary>A piece of a table in memory. Use it before the next call into its cache: only the few latest are sure to stay.</summary>
internal sealed class CachedPiece
{
    internal CachedPiece(int size) => Bytes = new byte[size];

    /// <summary>Where it lives in the file.</summary>
    public long HostOffset { get; internal set; }

    /// <summary>Its bytes as they are in the file.</summary>
    public byte[] Bytes { get; }

    internal CachedPiece? Newer { get; set; }

    internal CachedPiece? Older { get; set; }

    internal int DirtyStart { get; set; }

    internal int DirtyEnd { get; set; }

    internal bool IsDirty => DirtyEnd > DirtyStart;

    internal void Clean() => (DirtyStart, DirtyEnd) = (int.MaxValue, 0);
}

/// <summary>
/// The pieces of a format's tables that were used last, up to a number of bytes; changed ones are written back in the declared order.
/// </summary>
/// <remarks>
/// A piece has a fixed size, a power of two, and is aligned to it. When a changed piece has to make room, all changed pieces are
/// written, in the order of their offsets: one barrier serves them all. A format with a journal passes a delegate that brings the
/// changed pieces to the file instead; if it throws, all of them stay changed. Not thread-safe: the image's metadata lock guards it.
/// </remarks>
internal sealed class MetadataCache : MetadataStore
{
    /// <summary>Pieces that stay valid across further calls: as many as any one operation holds at a time. Ours.</summary>
    private const int Least = 8;

    private readonly Dictionary<long, CachedPiece> _pieces = [];
    private readonly List<CachedPiece> _changed = [];
    private readonly int _capacity;
    private readonly Func<IReadOnlyList<CachedPiece>, ValueTask>? _journal;
    private CachedPiece? _newest, _oldest;

    public MetadataCache(WriteOrder order, int pieceSize, long maxBytes, Func<IReadOnlyList<CachedPiece>, ValueTask>? journal = null)
        : base(order)
        => (PieceSize, _capacity, _journal) = (pieceSize, (int)Math.Clamp(maxBytes / pieceSize, Least, int.MaxValue), journal);

    /// <summary>Bytes of a piece.</summary>
    public int PieceSize { get; }

    /// <summary>Bytes of pieces that it keeps at most.</summary>
    public long MaxBytes => (long)_capacity * PieceSize;

    public override bool IsDirty => _changed.Count > 0;

    /// <summary>The piece at an aligned offset; what lies past the end of the file reads as zeroes.</summary>
    public async ValueTask<CachedPiece> GetAsync(long hostOffset, CancellationToken cancellationToken)
    {
        if (_pieces.TryGetValue(hostOffset, out CachedPiece? piece))
        {
            if (!ReferenceEquals(piece, _newest))
            {
                Unlink(piece);
                LinkNewest(piece);
            }
            return piece;
        }
        piece = await TakeAsync().ConfigureAwait(false);
        await TellAsync(Events.Load).ConfigureAwait(false);
        await File.ReadPaddedAsync(hostOffset, piece.Bytes, cancellationToken).ConfigureAwait(false);
        Insert(piece, hostOffset);
        return piece;
    }

    /// <summary>True if a piece is in memory.</summary>
    public bool Holds(long hostOffset) => _pieces.ContainsKey(hostOffset);

    /// <summary>A piece of a new table: zeroes, changed from end to end.</summary>
    public async ValueTask<CachedPiece> GetNewAsync(long hostOffset)
    {
        if (_pieces.TryGetValue(hostOffset, out CachedPiece? piece))
        {
            Unlink(piece);
            LinkNewest(piece);
        }
        else
        {
            piece = await TakeAsync().ConfigureAwait(false);
            Insert(piece, hostOffset);
        }
        Array.Clear(piece.Bytes);
        Changed(piece, 0, PieceSize);
        return piece;
    }

    /// <summary>Notes that bytes of a piece were changed.</summary>
    public void Changed(CachedPiece piece, int start, int length)
    {
        if (!piece.IsDirty)
        {
            _changed.Add(piece);
        }
        piece.DirtyStart = Math.Min(piece.DirtyStart, start);
        piece.DirtyEnd = Math.Max(piece.DirtyEnd, start + length);
    }

    /// <summary>Forgets the pieces of a range, changes included: the space holds no table any more.</summary>
    public void Forget(long hostOffset, long length)
    {
        if (length / PieceSize > _pieces.Count)
        {
            foreach (long at in _pieces.Keys.Where(at => at >= hostOffset && at < hostOffset + length).ToArray())
            {
                ForgetPiece(at);
            }
            return;
        }
        for (long at = hostOffset; at < hostOffset + length; at += PieceSize)
        {
            ForgetPiece(at);
        }
    }

    /// <summary>Forgets everything. There must be no changes left to write.</summary>
    public void Clear()
    {
        _pieces.Clear();
        _changed.Clear();
        (_newest, _oldest) = (null, null);
    }

    protected override async ValueTask WriteDirtyAsync()
    {
        _changed.Sort(static (a, b) => a.HostOffset.CompareTo(b.HostOffset));
        if (_journal is not null)
        {
            await _journal(_changed).ConfigureAwait(false);
            _changed.ForEach(static piece => piece.Clean());
            _changed.Clear();
            return;
        }
        for (int i = 0; i < _changed.Count; i++)
        {
            CachedPiece piece = _changed[i];
            try
            {
                await TellAsync(Events.Update).ConfigureAwait(false);
                await File.WriteAsync(
                    piece.HostOffset + piece.DirtyStart, piece.Bytes.AsMemory(piece.DirtyStart..piece.DirtyEnd)).ConfigureAwait(false);
            }
            catch
            {
                _changed.RemoveRange(0, i);
                throw;
            }
            piece.Clean();
        }
        _changed.Clear();
    }

    private void ForgetPiece(long hostOffset)
    {
        if (_pieces.Remove(hostOffset, out CachedPiece? piece))
        {
            Unlink(piece);
            _ = _changed.Remove(piece);
        }
    }

    private async ValueTask<CachedPiece> TakeAsync()
    {
        if (_pieces.Count < _capacity)
        {
            return new CachedPiece(PieceSize);
        }
        CachedPiece oldest = _oldest!;
        if (oldest.IsDirty)
        {
            await WriteBackAsync().ConfigureAwait(false);
        }
        Unlink(oldest);
        _ = _pieces.Remove(oldest.HostOffset);
        return oldest;
    }

    private void Insert(CachedPiece piece, long hostOffset)
    {
        piece.HostOffset = hostOffset;
        piece.Clean();
        _pieces.Add(hostOffset, piece);
        LinkNewest(piece);
    }

    private void LinkNewest(CachedPiece piece)
    {
        (piece.Older, piece.Newer) = (_newest, null);
        if (_newest is not null)
        {
            _newest.Newer = piece;
        }
        _newest = piece;
        _oldest ??= piece;
    }

    private void Unlink(CachedPiece piece)
    {
        if (piece.Newer is null)
        {
            _newest = piece.Older;
        }
        else
        {
            piece.Newer.Older = piece.Older;
        }
        if (piece.Older is null)
        {
            _oldest = piece.Newer;
        }
        else
        {
            piece.Older.Newer = piece.Newer;
        }
        (piece.Newer, piece.Older) = (null, null);
    }
}
