using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>
/// A client's side of SFTP, version 3, without I/O: requests become bytes to be sent, bytes that come in become answers. What is read goes
/// straight to where it is wanted.
/// </summary>
/// <remarks>
/// Answers come in any order; each names its request by a number that no request in flight shares, so one that comes twice, or unasked, is
/// noticed. Not safe for use from several threads at a time: the connection sees to it.
/// </remarks>
/// <param name="name">What the server is called in messages.</param>
internal sealed class SftpSession(string name)
{
    private const int MostShown = 80; // of what comes instead of an answer. Ours

    private enum State
    {
        Greeting,
        Head,
        DataLength,
        Data,
        Collect,
    }

    private readonly Dictionary<uint, SftpRequest> _requests = [];
    private readonly List<SftpRequest> _answered = [];
    private readonly HashSet<string> _extensions = new(StringComparer.Ordinal);
    private readonly byte[] _head = new byte[SftpWire.HeadLength];
    private readonly byte[] _dropped = new byte[16 << 10];
    private byte[] _collected = [];
    private State _state = State.Greeting;
    private SftpRequest? _current;
    private SftpPacket _type;
    private uint _id;
    private int _has, _need = SftpWire.HeadLength;
    private int _at, _left; // of data: where in the request's buffer, and how much still comes

    /// <summary>The first bytes that are sent.</summary>
    public static ReadOnlyMemory<byte> Hello { get; } = new byte[] { 0, 0, 0, 5, (byte)SftpPacket.Init, 0, 0, 0, (byte)SftpWire.Version };

    /// <summary>What the server is called in messages.</summary>
    public string Name { get; set; } = name;

    /// <summary>The server has said what it can; requests may begin.</summary>
    public bool IsReady { get; private set; }

    /// <summary>How many requests have no answer yet.</summary>
    public int InFlight => _requests.Count;

    /// <summary>Where the next bytes that come in are to be put; never empty.</summary>
    public Memory<byte> Wanted => _state switch
    {
        State.Collect => _collected.AsMemory(_has, _need - _has),
        State.Data when !_current!.Buffer.IsEmpty => _current.Buffer.Slice(_at, _left),
        State.Data => _dropped.AsMemory(0, Math.Min(_dropped.Length, _left)),
        _ => _head.AsMemory(_has, _need - _has),
    };

    /// <summary>True for an extension that the server has.</summary>
    public bool Has(string extension) => _extensions.Contains(extension);

    /// <summary>Takes a request on and makes the bytes that come before its payload.</summary>
    /// <returns>How many there are.</returns>
    public int Begin(SftpRequest request, Span<byte> header)
    {
        do
        {
            request.Id = ++_id;
        }
        while (!_requests.TryAdd(_id, request));
        int length = SftpWire.HeadLength + request.Body.Length;
        BinaryPrimitives.WriteUInt32BigEndian(header, (uint)(length - 4 + request.Payload.Length));
        header[4] = (byte)request.Type;
        BinaryPrimitives.WriteUInt32BigEndian(header[5..], request.Id);
        request.Body.CopyTo(header[SftpWire.HeadLength..]);
        return length;
    }

    /// <summary>So many bytes were put where <see cref="Wanted"/> says.</summary>
    /// <exception cref="DiskImageException">The server does not keep to the protocol.</exception>
    public void Advance(int count)
    {
        if (_state == State.Data)
        {
            (_at, _left) = (_at + count, _left - count);
            if (_left == 0)
            {
                EndAnswer();
            }
            return;
        }
        _has += count;
        if (_has == _need)
        {
            Step();
        }
    }

    /// <summary>Nobody waits for a request any more: what still comes of its answer is dropped, and its buffer is not touched.</summary>
    public static void Abandon(SftpRequest request) => request.Buffer = default;

    /// <summary>The requests whose answers are complete since this was asked last.</summary>
    public SftpRequest[] TakeAnswered()
    {
        if (_answered.Count == 0)
        {
            return [];
        }
        SftpRequest[] answered = [.. _answered];
        _answered.Clear();
        return answered;
    }

    /// <summary>Gives up: the requests that have no answer yet.</summary>
    public SftpRequest[] TakeInFlight()
    {
        SftpRequest[] left = [.. _requests.Values];
        _requests.Clear();
        return left;
    }

    private void Step()
    {
        switch (_state)
        {
            case State.Greeting:
                TakeGreeting();
                break;
            case State.Head:
                TakeHead();
                break;
            case State.DataLength:
                TakeDataLength();
                break;
            case State.Collect when !IsReady:
                TakeExtensions();
                break;
            default:
                TakeCollected(_collected.AsSpan(0, _need));
                EndAnswer();
                break;
        }
    }

    private void TakeGreeting()
    {
        uint length = BinaryPrimitives.ReadUInt32BigEndian(_head);
        uint version = BinaryPrimitives.ReadUInt32BigEndian(_head.AsSpan(5));
        if (_head[4] != (byte)SftpPacket.Version || length is < 5 or > SftpWire.LongestReply)
        {
            string shown = Encoding.UTF8.GetString(_head);
            throw Wrong($"it begins with '{shown}'. Where its users' profiles print something, they must not do so for a connection "
                + "without a terminal");
        }
        if (version < SftpWire.Version)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: speaks SFTP of version {version}; needed: {SftpWire.Version}", Name);
        }
        Collect((int)length - 5, TakeExtensions);
    }

    private void TakeExtensions()
    {
        ReadOnlySpan<byte> rest = _collected.AsSpan(0, _need);
        while (!rest.IsEmpty)
        {
            if (!SftpText.TryTake(ref rest, out ReadOnlySpan<byte> extension) || !SftpText.TryTake(ref rest, out _))
            {
                throw Wrong("the list of its extensions is cut short");
            }
            _ = _extensions.Add(Encoding.UTF8.GetString(extension));
        }
        IsReady = true;
        NextAnswer();
    }

    private void TakeHead()
    {
        uint length = BinaryPrimitives.ReadUInt32BigEndian(_head), id = BinaryPrimitives.ReadUInt32BigEndian(_head.AsSpan(5));
        _type = (SftpPacket)_head[4];
        if (!_requests.TryGetValue(id, out _current))
        {
            throw Wrong($"it answers request {id:#,0}, which is not waiting for one, with {length:#,0} bytes of type {(int)_type}");
        }
        if (_type != SftpPacket.Status && _type != AnswerTo(_current))
        {
            throw Wrong($"it answers a request of type {(int)_current.Type} with one of type {(int)_type}");
        }
        (long least, long most) = _type == SftpPacket.Data ? (10, 9 + (long)_current.Length) : (9, SftpWire.LongestReply);
        if (length < least || length > most)
        {
            throw Wrong($"an answer of type {(int)_type} has {length:#,0} bytes; allowed: {least:#,0} to {most:#,0}");
        }
        if (_type == SftpPacket.Data)
        {
            (_state, _has, _need, _left) = (State.DataLength, 0, 4, (int)length - 9);
            return;
        }
        Collect((int)length - 5, whenEmpty: null);
    }

    private void TakeDataLength()
    {
        uint length = BinaryPrimitives.ReadUInt32BigEndian(_head);
        if (length != _left)
        {
            throw Wrong($"an answer says that it has {length:#,0} bytes of data, and has {_left:#,0}");
        }
        _current!.Received = _left;
        (_state, _at) = (State.Data, 0);
    }

    private void TakeCollected(ReadOnlySpan<byte> bytes)
    {
        SftpRequest request = _current!;
        ReadOnlySpan<byte> rest = bytes;
        bool isWhole = _type switch
        {
            SftpPacket.Status => TakeStatus(request, rest),
            SftpPacket.Handle => SftpText.TryTake(ref rest, out ReadOnlySpan<byte> handle)
                && handle.Length is > 0 and <= SftpWire.LongestHandle && Keep(request, handle),
            SftpPacket.Name => BinaryPrimitives.ReadUInt32BigEndian(rest) == 1 && (rest = rest[4..]).Length >= 0
                && SftpText.TryTake(ref rest, out ReadOnlySpan<byte> path)
                && path.Length is > 0 and <= SftpWire.LongestPath && !path.Contains((byte)0) && Keep(request, path),
            SftpPacket.Attributes => SftpAttributes.TryRead(rest, out SftpAttributes told) && (request.Attributes = told) == told,
            _ => Keep(request, rest),
        };
        if (!isWhole)
        {
            throw Wrong($"an answer of type {(int)_type} with {bytes.Length:#,0} bytes is cut short or has a part that cannot be");
        }
    }

    private bool TakeStatus(SftpRequest request, ReadOnlySpan<byte> bytes)
    {
        request.Status = (SftpStatus)BinaryPrimitives.ReadUInt32BigEndian(bytes);
        bytes = bytes[4..];
        if (request.Status == SftpStatus.Ok && AnswerTo(request) != SftpPacket.Status)
        {
            throw Wrong($"it answers a request of type {(int)request.Type} that all is well, without what was asked for");
        }
        if (!bytes.IsEmpty) // version 3 has a text; some servers leave it out
        {
            if (!SftpText.TryTake(ref bytes, out ReadOnlySpan<byte> text))
            {
                return false;
            }
            request.StatusText = Encoding.UTF8.GetString(text[..Math.Min(text.Length, MostShown)]);
        }
        return true;
    }

    private static bool Keep(SftpRequest request, ReadOnlySpan<byte> bytes)
    {
        request.Answer = bytes.ToArray();
        return true;
    }

    /// <summary>What a request is answered with if it succeeds.</summary>
    private static SftpPacket AnswerTo(SftpRequest request) => request.Type switch
    {
        SftpPacket.Open => SftpPacket.Handle,
        SftpPacket.Read => SftpPacket.Data,
        SftpPacket.Stat or SftpPacket.LinkStat or SftpPacket.FileStat => SftpPacket.Attributes,
        SftpPacket.RealPath => SftpPacket.Name,
        SftpPacket.Extended when request.IsQuestion => SftpPacket.ExtendedReply,
        _ => SftpPacket.Status,
    };

    private void Collect(int length, Action? whenEmpty)
    {
        if (_collected.Length < length)
        {
            _collected = new byte[length];
        }
        (_state, _has, _need) = (State.Collect, 0, length);
        if (length == 0)
        {
            whenEmpty?.Invoke();
        }
    }

    private void EndAnswer()
    {
        SftpRequest request = _current!;
        _ = _requests.Remove(request.Id);
        _answered.Add(request);
        NextAnswer();
    }

    private void NextAnswer() => (_state, _has, _need, _current) = (State.Head, 0, SftpWire.HeadLength, null);

    private DiskImageException Wrong(string what)
        => new(DiskImageErrorKind.Io, $"{Name}: does not keep to SFTP: {what}", Name);
}
