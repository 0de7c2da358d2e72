using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>
/// The protocol of a gateway, bytes in and out: requests as they are to be sent, answers as they come, in any order. It does no I/O.
/// </summary>
/// <param name="name">What the VDI is called in messages.</param>
internal sealed class SheepSession(string name)
{
    private readonly Dictionary<uint, SheepRequest> _inFlight = [];
    private readonly Queue<SheepRequest> _waiting = [];
    private readonly List<SheepRequest> _answered = [];
    private readonly byte[] _header = new byte[SheepWire.HeaderLength];
    private readonly byte[] _dropped = new byte[64 << 10]; // of answers that nobody waits for
    private SheepRequest? _sending, _coming;
    private uint _lastId;
    private int _sent, _headerReceived, _bodyLength;

    /// <summary>Where the next bytes that come belong.</summary>
    public Memory<byte> Wanted
    {
        get
        {
            if (_coming is not { } coming)
            {
                return _header.AsMemory(_headerReceived);
            }
            int missing = _bodyLength - coming.Received;
            return coming.Buffer.IsEmpty
                ? _dropped.AsMemory(0, Math.Min(missing, _dropped.Length))
                : coming.Buffer.Slice(coming.Received, missing);
        }
    }

    /// <summary>Takes a request, to be sent when it is its turn.</summary>
    public void Begin(SheepRequest request)
    {
        do
        {
            request.Id = ++_lastId;
        }
        while (!_inFlight.TryAdd(request.Id, request));
        _waiting.Enqueue(request);
    }

    /// <summary>Puts what is to be sent into a buffer.</summary>
    /// <returns>How many bytes; 0 for nothing.</returns>
    public int Fill(Span<byte> into)
    {
        int filled = 0;
        while (filled < into.Length)
        {
            if (_sending is null)
            {
                if (into.Length - filled < SheepWire.HeaderLength || !_waiting.TryDequeue(out _sending))
                {
                    return filled;
                }
                WriteHeader(_sending, into[filled..]);
                filled += SheepWire.HeaderLength;
                _sent = 0;
            }
            int count = Math.Min(into.Length - filled, _sending.PayloadLength - _sent);
            _sending.Payload.Span.Slice(_sent, count).CopyTo(into[filled..]);
            (filled, _sent) = (filled + count, _sent + count);
            if (_sent == _sending.PayloadLength)
            {
                _sending = null;
            }
        }
        return filled;
    }

    /// <summary>Bytes have come into <see cref="Wanted"/>, at its beginning.</summary>
    /// <exception cref="DiskImageException">They are no answer to anything.</exception>
    public void Advance(int count)
    {
        if (_coming is { } coming)
        {
            coming.Received += count;
            EndIfWhole(coming);
            return;
        }
        _headerReceived += count;
        if (_headerReceived < SheepWire.HeaderLength)
        {
            return;
        }
        _headerReceived = 0;
        uint id = BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(8));
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(12));
        if (!_inFlight.TryGetValue(id, out SheepRequest? request))
        {
            throw Wrong($"it answers a request {id} that there is none of");
        }
        if (ReferenceEquals(request, _sending) || _waiting.Contains(request))
        {
            throw Wrong($"it answers request {id} before it has come");
        }
        var result = (SheepResult)BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(16));
        if (length > (uint)request.Expected)
        {
            throw Wrong($"it answers a request for {request.Expected:#,0} bytes with {length:#,0}");
        }
        request.Result = result;
        _header.AsSpan(16).CopyTo(request.Fields);
        (_coming, _bodyLength) = (request, (int)length);
        EndIfWhole(request);
    }

    /// <summary>Nobody waits for a request any more; if it is sent, its answer is dropped.</summary>
    public void Abandon(SheepRequest request)
        => request.Abandon(isOver: !ReferenceEquals(request, _sending) && !_waiting.Contains(request));

    /// <summary>The requests that have been answered since this was asked last.</summary>
    public SheepRequest[] TakeAnswered()
    {
        SheepRequest[] answered = [.. _answered];
        _answered.Clear();
        return answered;
    }

    /// <summary>All that is not answered, for the connection is lost.</summary>
    public SheepRequest[] TakeInFlight()
    {
        SheepRequest[] lost = [.. _inFlight.Values];
        _inFlight.Clear();
        _waiting.Clear();
        _sending = null;
        return lost;
    }

    private static void WriteHeader(SheepRequest request, Span<byte> into)
    {
        (into[0], into[1]) = (SheepWire.Version, (byte)request.Operation);
        BinaryPrimitives.WriteUInt16LittleEndian(into[2..], (ushort)request.Flags);
        BinaryPrimitives.WriteUInt32LittleEndian(into[4..], 0); // the epoch, which is the servers' own
        BinaryPrimitives.WriteUInt32LittleEndian(into[8..], request.Id);
        BinaryPrimitives.WriteInt32LittleEndian(
            into[12..], request.Flags.HasFlag(SheepFlags.Write) ? request.PayloadLength : request.Expected);
        request.Fields.CopyTo(into[16..]);
    }

    private void EndIfWhole(SheepRequest request)
    {
        if (request.Received == _bodyLength)
        {
            _coming = null;
            _ = _inFlight.Remove(request.Id);
            _answered.Add(request);
        }
    }

    private DiskImageException Wrong(Wording what)
        => new(DiskImageErrorKind.Io, $"{name}: the server does not keep to Sheepdog's protocol: {what}", name);
}
