using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>
/// A client's side of the conversation about an export, without I/O: requests become bytes to be sent, bytes that come in become answers.
/// What is read goes straight to where it is wanted.
/// </summary>
/// <remarks>
/// Answers come in any order, in one piece or several; each names its request by a number that was never used before, so one that comes
/// twice, or unasked, is noticed. Not safe for use from several threads at a time: the connection sees to it.
/// </remarks>
/// <param name="name">What the server is called in messages.</param>
/// <param name="info">What was agreed on.</param>
internal sealed class NbdClientSession(string name, NbdExportInfo info)
{
    private const int LongestStatus = 16 << 20; // bytes of one piece of block status. Ours
    private const int MostExtents = 1 << 20; // told for one request. Ours
    private const int Final = 1; // flag of a chunk: the last of its answer

    private enum State
    {
        Magic,
        Header,
        ChunkHead,
        Data,
        Collect,
        Skip,
    }

    private readonly Dictionary<ulong, NbdRequest> _requests = [];
    private readonly List<NbdRequest> _answered = [];
    private readonly byte[] _head = new byte[NbdWire.ExtendedReplyLength];
    private readonly byte[] _scratch = new byte[64 << 10];
    private byte[] _collected = [];
    private State _state = State.Magic;
    private NbdRequest? _current;
    private NbdChunk _chunk;
    private bool _isFinal;
    private ulong _cookie;
    private int _has, _need = NbdWire.SimpleReplyLength;
    private int _at, _left; // of data: where in the request's buffer, and how much still comes
    private long _payload; // of the chunk, what is not taken yet

    /// <summary>How many requests have no answer yet.</summary>
    public int InFlight => _requests.Count;

    /// <summary>Where the next bytes that come in are to be put; never empty.</summary>
    public Memory<byte> Wanted => _state switch
    {
        State.Magic or State.Header or State.ChunkHead => _head.AsMemory(_has, _need - _has),
        State.Collect => _collected.AsMemory(_has, _need - _has),
        State.Data when !_current!.Buffer.IsEmpty => _current.Buffer.Slice(_at, _left),
        _ => _scratch.AsMemory(0, (int)Math.Min(_scratch.Length, _state == State.Data ? _left : _payload)),
    };

    /// <summary>Takes a request on and makes the bytes that come before its payload.</summary>
    /// <returns>How many there are.</returns>
    public int Begin(NbdRequest request, Span<byte> header)
    {
        request.Cookie = ++_cookie;
        if (request.Command != NbdCommand.Disconnect)
        {
            _requests.Add(_cookie, request);
        }
        NbdCommandFlags flags = request.Flags;
        if (info.IsExtended && request.Command == NbdCommand.Write)
        {
            flags |= NbdCommandFlags.PayloadLength;
        }
        BinaryPrimitives.WriteUInt32BigEndian(header, info.IsExtended ? NbdWire.ExtendedRequestMagic : NbdWire.RequestMagic);
        BinaryPrimitives.WriteUInt16BigEndian(header[4..], (ushort)flags);
        BinaryPrimitives.WriteUInt16BigEndian(header[6..], (ushort)request.Command);
        BinaryPrimitives.WriteUInt64BigEndian(header[8..], _cookie);
        BinaryPrimitives.WriteInt64BigEndian(header[16..], request.Offset);
        if (info.IsExtended)
        {
            BinaryPrimitives.WriteInt64BigEndian(header[24..], request.Length);
            return NbdWire.ExtendedRequestLength;
        }
        BinaryPrimitives.WriteUInt32BigEndian(header[24..], checked((uint)request.Length));
        return NbdWire.RequestLength;
    }

    /// <summary>So many bytes were put where <see cref="Wanted"/> says.</summary>
    /// <exception cref="DiskImageException">The server does not keep to the protocol.</exception>
    public void Advance(int count)
    {
        switch (_state)
        {
            case State.Data:
                (_at, _left) = (_at + count, _left - count);
                if (_left == 0)
                {
                    EndChunk();
                }
                break;
            case State.Skip:
                _payload -= count;
                if (_payload == 0)
                {
                    EndChunk();
                }
                break;
            default:
                _has += count;
                if (_has == _need)
                {
                    Step();
                }
                break;
        }
    }

    /// <summary>Nobody waits for a request any more: what still comes of its answer is dropped, and its buffer is not touched.</summary>
    public static void Abandon(NbdRequest request) => request.Buffer = default;

    /// <summary>The requests whose answers are complete since this was asked last.</summary>
    public NbdRequest[] TakeAnswered()
    {
        if (_answered.Count == 0)
        {
            return [];
        }
        NbdRequest[] answered = [.. _answered];
        _answered.Clear();
        return answered;
    }

    /// <summary>Gives up: the requests that have no answer yet.</summary>
    public NbdRequest[] TakeInFlight()
    {
        NbdRequest[] left = [.. _requests.Values];
        _requests.Clear();
        return left;
    }

    private void Step()
    {
        switch (_state)
        {
            case State.Magic:
                uint magic = BinaryPrimitives.ReadUInt32BigEndian(_head);
                if (magic == NbdWire.SimpleReplyMagic && !info.IsExtended)
                {
                    TakeSimple();
                }
                else if (magic == (info.IsExtended ? NbdWire.ExtendedReplyMagic : NbdWire.StructuredReplyMagic) && info.IsStructured)
                {
                    (_state, _need) = (State.Header, info.IsExtended ? NbdWire.ExtendedReplyLength : NbdWire.StructuredReplyLength);
                }
                else
                {
                    throw Wrong($"an answer begins with 0x{magic:x8}");
                }
                break;
            case State.Header:
                TakeHeader();
                break;
            case State.ChunkHead:
                TakeChunkHead();
                break;
            default:
                TakeCollected();
                EndChunk();
                break;
        }
    }

    private void TakeSimple()
    {
        (_isFinal, _chunk) = (true, NbdChunk.None);
        _current = Find(BinaryPrimitives.ReadUInt64BigEndian(_head.AsSpan(8)));
        NoteError(BinaryPrimitives.ReadUInt32BigEndian(_head.AsSpan(4)), null);
        if (_current is { Command: NbdCommand.Read, Error: NbdError.None })
        {
            if (info.IsStructured)
            {
                throw Wrong("it answers a read in one piece, though chunks were agreed on");
            }
            BeginData(0, _current.Length);
            return;
        }
        if (_current is { Command: NbdCommand.BlockStatus, Error: NbdError.None })
        {
            throw Wrong("it answers a question for block status without any");
        }
        EndChunk();
    }

    private void TakeHeader()
    {
        int flags = BinaryPrimitives.ReadUInt16BigEndian(_head.AsSpan(4));
        _chunk = (NbdChunk)BinaryPrimitives.ReadUInt16BigEndian(_head.AsSpan(6));
        _isFinal = (flags & Final) != 0;
        _current = Find(BinaryPrimitives.ReadUInt64BigEndian(_head.AsSpan(8)));
        ulong payload = info.IsExtended
            ? BinaryPrimitives.ReadUInt64BigEndian(_head.AsSpan(24))
            : BinaryPrimitives.ReadUInt32BigEndian(_head.AsSpan(16));
        bool isStatus = _chunk is NbdChunk.BlockStatus or NbdChunk.BlockStatusExtended;
        bool isRead = _chunk is NbdChunk.Data or NbdChunk.Hole;
        if ((isRead && _current.Command != NbdCommand.Read)
            || (isStatus && (_current.Command != NbdCommand.BlockStatus || (_chunk == NbdChunk.BlockStatusExtended) != info.IsExtended)))
        {
            throw Wrong($"it answers a request of type {(int)_current.Command} with a chunk of type {(int)_chunk}");
        }
        (ulong Least, ulong Most) allowed = _chunk switch
        {
            NbdChunk.None => (0, 0),
            NbdChunk.Data => (9, 8 + (ulong)_current.Length),
            NbdChunk.Hole => (12, 12),
            NbdChunk.BlockStatus => (12, LongestStatus),
            NbdChunk.BlockStatusExtended => (24, LongestStatus),
            NbdChunk.Error => (6, 6 + NbdWire.MaximumText),
            NbdChunk.ErrorOffset => (14, 14 + NbdWire.MaximumText),
            _ when ((int)_chunk & 0x8000) != 0 => (6, 1 << 20),
            _ => throw Wrong($"it answers with a chunk of type {(int)_chunk}, which is none"),
        };
        if (payload < allowed.Least || payload > allowed.Most || (_chunk == NbdChunk.None && !_isFinal))
        {
            throw Wrong($"a chunk of type {(int)_chunk} has {payload:#,0} bytes; allowed: {allowed.Least:#,0} to {allowed.Most:#,0}");
        }
        _payload = (long)payload;
        (_has, _need) = (0, (int)Math.Min(payload, int.MaxValue));
        if (_chunk == NbdChunk.None)
        {
            EndChunk();
        }
        else if (isRead)
        {
            (_state, _need) = (State.ChunkHead, _chunk == NbdChunk.Data ? 8 : 12);
        }
        else
        {
            _state = State.Collect;
            if (_collected.Length < _need)
            {
                _collected = new byte[_need];
            }
        }
    }

    private void TakeChunkHead()
    {
        long offset = BinaryPrimitives.ReadInt64BigEndian(_head);
        long length = _chunk == NbdChunk.Data ? _payload - 8 : BinaryPrimitives.ReadUInt32BigEndian(_head.AsSpan(8));
        NbdRequest request = _current!;
        if (offset < request.Offset || length == 0 || length > request.Length || offset - request.Offset > request.Length - length)
        {
            throw Wrong($"it answers a read of {request.Length:#,0} bytes at {request.Offset:#,0} with {length:#,0} bytes at {offset:#,0}");
        }
        BeginData(offset - request.Offset, length);
        if (_chunk == NbdChunk.Hole)
        {
            if (!request.Buffer.IsEmpty)
            {
                request.Buffer.Slice(_at, _left).Span.Clear();
            }
            EndChunk();
        }
    }

    private void BeginData(long start, long length)
    {
        if (!_current!.Cover(start, length))
        {
            throw Wrong($"it sends bytes of a read at {_current.Offset:#,0} twice, or in too many pieces");
        }
        (_state, _at, _left) = (State.Data, (int)start, (int)length);
    }

    private void TakeCollected()
    {
        ReadOnlySpan<byte> bytes = _collected.AsSpan(0, _need);
        if (_chunk is NbdChunk.BlockStatus or NbdChunk.BlockStatusExtended)
        {
            TakeStatus(bytes);
            return;
        }
        int length = BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]);
        if (_chunk is NbdChunk.Error or NbdChunk.ErrorOffset && length > bytes.Length - (_chunk == NbdChunk.Error ? 6 : 14))
        {
            throw Wrong($"the text of an error has {length:#,0} bytes, its message {bytes.Length:#,0}");
        }
        uint error = BinaryPrimitives.ReadUInt32BigEndian(bytes);
        if (error == 0)
        {
            throw Wrong("it tells of an error without a number");
        }
        NoteError(error, Encoding.UTF8.GetString(bytes.Slice(6, Math.Min(length, bytes.Length - 6))));
    }

    private void TakeStatus(ReadOnlySpan<byte> bytes)
    {
        int size = info.IsExtended ? 16 : 8, head = info.IsExtended ? 8 : 4;
        uint context = BinaryPrimitives.ReadUInt32BigEndian(bytes);
        ReadOnlySpan<byte> rows = bytes[head..];
        if (!info.Contexts.Values.Contains(context) || rows.Length % size != 0
            || (info.IsExtended && BinaryPrimitives.ReadUInt32BigEndian(bytes[4..]) != rows.Length / size)
            || rows.Length / size > MostExtents || _current!.Status.ContainsKey(context))
        {
            throw Wrong($"it tells block status of the context {context} in {bytes.Length:#,0} bytes, which was not agreed on, is no whole "
                + "number of extents, or comes twice");
        }
        var extents = new List<NbdExtent>(rows.Length / size);
        for (long left = _current.Length; !rows.IsEmpty; rows = rows[size..])
        {
            ulong length = info.IsExtended ? BinaryPrimitives.ReadUInt64BigEndian(rows) : BinaryPrimitives.ReadUInt32BigEndian(rows);
            ulong flags = info.IsExtended
                ? BinaryPrimitives.ReadUInt64BigEndian(rows[8..])
                : BinaryPrimitives.ReadUInt32BigEndian(rows[4..]);
            if (length == 0)
            {
                throw Wrong("it tells of an extent without bytes");
            }
            if (left > 0)
            {
                long used = (long)Math.Min(length, (ulong)left); // the last may go on behind what was asked
                extents.Add(new NbdExtent(used, flags));
                left -= used;
            }
        }
        _current.Status.Add(context, extents);
    }

    private void NoteError(uint error, string? text)
    {
        if (error != 0 && _current!.Error == NbdError.None)
        {
            (_current.Error, _current.ErrorText) = ((NbdError)error, text);
        }
    }

    private void EndChunk()
    {
        NbdRequest request = _current!;
        (_state, _has, _need, _current) = (State.Magic, 0, NbdWire.SimpleReplyLength, null);
        if (!_isFinal)
        {
            return;
        }
        if (request.Error == NbdError.None
            && ((request.Command == NbdCommand.Read && !request.IsWhole)
            || (request.Command == NbdCommand.BlockStatus && request.Status.Count == 0)))
        {
            throw Wrong($"it ends the answer to a request of {request.Length:#,0} bytes at {request.Offset:#,0} before all has come");
        }
        _ = _requests.Remove(request.Cookie);
        _answered.Add(request);
    }

    private NbdRequest Find(ulong cookie) => _requests.TryGetValue(cookie, out NbdRequest? request)
        ? request
        : throw Wrong($"it answers request {cookie:#,0}, which is not waiting for one");

    private DiskImageException Wrong(string what)
        => new(DiskImageErrorKind.Io, $"{name}: does not keep to the NBD protocol: {what}", name);
}
