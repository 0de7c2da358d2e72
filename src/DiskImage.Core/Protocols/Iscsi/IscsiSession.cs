using System.Buffers.Binary;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>
/// The full feature phase, without I/O: commands become PDUs to be sent, PDUs that come in become answers. What is read goes straight to
/// where it is wanted. Spec: RFC 7143, sections 4.2, 11.
/// </summary>
/// <remarks>
/// A command goes out when the target's window of command numbers lets it (4.2.2.1); its data with it as far as was agreed on, the rest
/// when the target asks (R2T). What is sent is copied, so nobody's memory is in use between two calls. Error recovery level 0: what is
/// wrong ends the connection. Not safe for use from several threads at a time: the connection sees to it.
/// </remarks>
/// <param name="name">What the target is called in messages.</param>
/// <param name="agreed">What the login agreed on.</param>
internal sealed class IscsiSession(string name, IscsiAgreement agreed) : IIscsiPdus
{
    /// <summary>Bytes that the longest PDU takes that is sent.</summary>
    public const int LongestOutput = IscsiWire.LongestSegment + IscsiWire.HeaderLength + (2 * IscsiWire.DigestLength) + 4;

    private const int MostPending = 1024; // of PDUs that the target causes. Ours
    private const int LongestSense = 2 + 252 + 252; // with its length, and what some send behind it

    private readonly Dictionary<uint, ScsiTask> _tasks = []; // that are sent and not answered, by tag
    private readonly Queue<ScsiTask> _waiting = new(); // for their turn
    private readonly Queue<IscsiOutput> _ready = new(); // replies, and data that were asked for
    private readonly List<ScsiTask> _answered = [];
    private readonly int _segment = Math.Min(agreed.TargetSegment, IscsiWire.LongestSegment);
    private uint _command = agreed.CommandNumber, _last = agreed.LastCommand, _status = agreed.StatusNumber;
    private uint _tag;
    private bool _isLeaving, _isEnding; // the latter: the target asks for a goodbye, nothing new is sent
    private ScsiTask? _current; // of the data that come in
    private int _offset; // where they go
    private int _text = -1; // bytes of the answer to a text request so far; negative: none is waited for
    private List<byte>? _answer;

    /// <summary>Tasks without an answer.</summary>
    public int InFlight => _tasks.Count + _waiting.Count;

    /// <summary>The target has ended the session in good order.</summary>
    public bool IsOver { get; private set; }

    /// <summary>The answer to a text request, once all of it is there.</summary>
    public byte[]? TextAnswer { get; private set; }

    /// <summary>Takes a task on.</summary>
    public void Begin(ScsiTask task) => _waiting.Enqueue(task);

    /// <summary>Asks in text. One at a time.</summary>
    public void BeginText(byte[] text)
    {
        (_text, _answer, TextAnswer) = (0, [], null);
        _ready.Enqueue(IscsiOutput.Text(NextTag(), IscsiWire.NoTag, text));
    }

    /// <summary>Says goodbye.</summary>
    public void BeginLogout()
    {
        _isLeaving = true;
        _ready.Enqueue(IscsiOutput.Logout(NextTag()));
    }

    /// <summary>
    /// Nobody waits for a task any more: nobody's memory is used for it from now on. What is not sent yet is not sent; of what is
    /// half sent a copy goes on, since the target waits for it.
    /// </summary>
    public void Abandon(ScsiTask task)
        => task.Abandon(isOver: task.Tag == IscsiWire.NoTag || !_tasks.TryGetValue(task.Tag, out ScsiTask? sent) || sent != task);

    /// <summary>Fills a buffer with PDUs to be sent.</summary>
    /// <param name="buffer">At least <see cref="LongestOutput"/>.</param>
    /// <returns>How many bytes; 0 if there is nothing to be sent now.</returns>
    public int Fill(Span<byte> buffer)
    {
        int filled = 0;
        while (buffer.Length - filled >= LongestOutput)
        {
            int count;
            if (_ready.TryPeek(out IscsiOutput? output))
            {
                count = Write(output, buffer[filled..]);
                if (output.IsDone)
                {
                    _ = _ready.Dequeue();
                }
            }
            else if (_waiting.TryPeek(out ScsiTask? next) && next.IsAbandoned)
            {
                _answered.Add(_waiting.Dequeue());
                count = 0;
            }
            else if (next is not null && !_isEnding && !IscsiWire.IsAfter(_command, _last))
            {
                count = WriteCommand(_waiting.Dequeue(), buffer[filled..]);
            }
            else
            {
                break;
            }
            filled += count;
        }
        return filled;
    }

    /// <summary>The tasks whose answers are complete since this was asked last.</summary>
    public ScsiTask[] TakeAnswered()
    {
        if (_answered.Count == 0)
        {
            return [];
        }
        ScsiTask[] answered = [.. _answered];
        _answered.Clear();
        return answered;
    }

    /// <summary>Gives up: the tasks that have no answer yet.</summary>
    public ScsiTask[] TakeInFlight()
    {
        ScsiTask[] left = [.. _tasks.Values, .. _waiting];
        _tasks.Clear();
        _waiting.Clear();
        _ready.Clear();
        return left;
    }

    /// <inheritdoc/>
    public Memory<byte>? PlaceOf(ReadOnlySpan<byte> header, int at)
    {
        if (IscsiWire.OpcodeOf(header) != IscsiOpcode.DataIn)
        {
            return null;
        }
        Memory<byte> buffer = _current!.Buffer;
        return buffer.IsEmpty ? Memory<byte>.Empty : buffer.Slice(_offset + at, IscsiWire.SegmentOf(header) - at);
    }

    /// <inheritdoc/>
    public void Check(ReadOnlySpan<byte> header)
    {
        IscsiOpcode opcode = IscsiWire.OpcodeOf(header);
        int length = IscsiWire.SegmentOf(header);
        int most = opcode switch
        {
            IscsiOpcode.DataIn or IscsiOpcode.TextResponse or IscsiOpcode.NopIn => IscsiWire.LongestSegment,
            IscsiOpcode.Response or IscsiOpcode.AsyncMessage or IscsiOpcode.Reject => LongestSense,
            IscsiOpcode.ReadyToTransfer or IscsiOpcode.LogoutResponse => 0,
            _ => throw Wrong($"it sends a PDU of type {(int)opcode:X2}h, which has no place here"),
        };
        if (length > most)
        {
            throw Wrong($"a PDU of type {(int)opcode:X2}h has {length:#,0} bytes of data; allowed: {most:#,0}");
        }
        if (opcode == IscsiOpcode.DataIn)
        {
            _current = Find(header);
            uint offset = BinaryPrimitives.ReadUInt32BigEndian(header[40..]);
            if (offset != _current.Received || length > _current.Expected - _current.Received)
            {
                throw Wrong($"it sends {length:#,0} bytes at {offset:#,0} of an answer of {_current.Expected:#,0} bytes of which "
                    + $"{_current.Received:#,0} have come");
            }
            _offset = (int)offset;
        }
    }

    /// <inheritdoc/>
    public void Take(ReadOnlySpan<byte> header, ReadOnlySpan<byte> data)
    {
        IscsiOpcode opcode = IscsiWire.OpcodeOf(header);
        switch (opcode)
        {
            case IscsiOpcode.DataIn:
                TakeData(header);
                break;
            case IscsiOpcode.Response:
                TakeResponse(header, data);
                break;
            case IscsiOpcode.ReadyToTransfer:
                TakeRequest(header);
                break;
            case IscsiOpcode.NopIn:
                TakeNop(header, data);
                break;
            case IscsiOpcode.TextResponse:
                TakeText(header, data);
                break;
            case IscsiOpcode.LogoutResponse:
                IsOver = true;
                break;
            case IscsiOpcode.AsyncMessage:
                TakeMessage(header);
                break;
            default:
                throw Wrong($"it rejects what was sent, reason {header[2]:X2}h: {ReasonOf(header[2])}");
        }
        Note(header, hasStatus: opcode switch
        {
            IscsiOpcode.DataIn => (header[1] & 1) != 0,
            IscsiOpcode.ReadyToTransfer => false,
            IscsiOpcode.NopIn => BinaryPrimitives.ReadUInt32BigEndian(header[16..]) != IscsiWire.NoTag,
            _ => true,
        });
        if (_isEnding && !_isLeaving && _tasks.Count == 0)
        {
            BeginLogout();
        }
    }

    private void TakeData(ReadOnlySpan<byte> header)
    {
        ScsiTask task = _current!;
        _current = null;
        task.Received += IscsiWire.SegmentOf(header);
        if ((header[1] & 1) != 0) // the status comes with the last data (section 11.7.3)
        {
            task.Status = (ScsiStatus)header[3];
            End(task, header);
        }
    }

    private void TakeResponse(ReadOnlySpan<byte> header, ReadOnlySpan<byte> data)
    {
        ScsiTask task = Find(header);
        if (header[2] != 0)
        {
            throw Wrong($"a command ended without a status, response {header[2]:X2}h (target failure)");
        }
        task.Status = (ScsiStatus)header[3];
        if (data.Length >= 2)
        {
            int length = BinaryPrimitives.ReadUInt16BigEndian(data);
            task.Sense = ScsiSense.Read(data.Slice(2, Math.Min(length, data.Length - 2)));
        }
        End(task, header);
    }

    private void End(ScsiTask task, ReadOnlySpan<byte> header)
    {
        task.Missing = (header[1] & 0x02) != 0 ? BinaryPrimitives.ReadUInt32BigEndian(header[44..]) : 0;
        if (_ready.Any(o => o.Task == task)) // it ended before all of its data were sent
        {
            IscsiOutput[] others = [.. _ready.Where(o => o.Task != task)];
            _ready.Clear();
            Array.ForEach(others, _ready.Enqueue);
        }
        _ = _tasks.Remove(task.Tag);
        _answered.Add(task);
    }

    /// <summary>R2T: part of a command's data is asked for. Spec: section 11.8.</summary>
    private void TakeRequest(ReadOnlySpan<byte> header)
    {
        ScsiTask task = Find(header);
        uint number = BinaryPrimitives.ReadUInt32BigEndian(header[36..]), offset = BinaryPrimitives.ReadUInt32BigEndian(header[40..]);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(header[44..]);
        int from = Math.Max(task.Unasked, task.AskedEnd); // parts are asked for in order
        if (number != task.Asked || offset != from || length == 0 || length > agreed.MaxBurst || length > task.PayloadLength - offset)
        {
            throw Wrong($"it asks for {length:#,0} bytes at {offset:#,0} (request {number}) of a command of {task.PayloadLength:#,0} bytes "
                + $"of which {from:#,0} were sent or asked for, in {task.Asked} requests; allowed at once: {agreed.MaxBurst:#,0}");
        }
        (task.Asked, task.AskedEnd) = (task.Asked + 1, (int)(offset + length));
        Enqueue(IscsiOutput.Data(task, BinaryPrimitives.ReadUInt32BigEndian(header[20..]), (int)offset, (int)length));
    }

    private void TakeNop(ReadOnlySpan<byte> header, ReadOnlySpan<byte> data)
    {
        uint transfer = BinaryPrimitives.ReadUInt32BigEndian(header[20..]);
        if (transfer != IscsiWire.NoTag) // it wants an answer (section 11.19)
        {
            Enqueue(IscsiOutput.Pong(header.Slice(8, 8).ToArray(), transfer, data[..Math.Min(data.Length, _segment)].ToArray()));
        }
    }

    private void TakeText(ReadOnlySpan<byte> header, ReadOnlySpan<byte> data)
    {
        if (_text < 0 || _text + data.Length > IscsiText.Longest * 16)
        {
            throw Wrong("it answers in text without having been asked, or without an end");
        }
        _text += data.Length + 1; // so that empty answers come to an end, too
        _answer!.AddRange(data);
        uint transfer = BinaryPrimitives.ReadUInt32BigEndian(header[20..]);
        if ((header[1] & IscsiWire.Final) != 0)
        {
            (_text, TextAnswer) = (-1, [.. _answer!]);
        }
        else
        {
            Enqueue(IscsiOutput.Text(NextTag(), transfer, [])); // go on (section 11.10.4)
        }
    }

    private void TakeMessage(ReadOnlySpan<byte> header)
    {
        switch (header[36])
        {
            case 0: // sense data of the unit itself: what it tells of, commands tell as well
                break;
            case 1:
                _isEnding = true; // it asks for a goodbye, which is said when what is sent is answered
                break;
            case 2 or 3:
                throw new DiskImageException(DiskImageErrorKind.Io, $"{name}: the target ends the connection", name);
            default:
                break; // a new negotiation is not begun: the agreement stays
        }
    }

    private void Note(ReadOnlySpan<byte> header, bool hasStatus)
    {
        uint status = BinaryPrimitives.ReadUInt32BigEndian(header[24..]) + 1;
        if (hasStatus && IscsiWire.IsAfter(status, _status))
        {
            _status = status;
        }
        uint expected = BinaryPrimitives.ReadUInt32BigEndian(header[28..]), last = BinaryPrimitives.ReadUInt32BigEndian(header[32..]);
        if (!IscsiWire.IsAfter(expected - 1, last) && IscsiWire.IsAfter(last, _last)) // section 4.2.2.1: a window never shrinks
        {
            _last = last;
        }
    }

    private void Enqueue(IscsiOutput output)
    {
        if (_ready.Count >= MostPending)
        {
            throw Wrong($"it asks for more than {MostPending:#,0} PDUs at once");
        }
        _ready.Enqueue(output);
    }

    private int WriteCommand(ScsiTask task, Span<byte> into)
    {
        task.Tag = NextTag();
        _tasks.Add(task.Tag, task);
        int total = task.PayloadLength;
        int first = Math.Min(total, agreed.FirstBurst);
        int immediate = agreed.ImmediateData ? Math.Min(first, _segment) : 0;
        int unasked = agreed.InitialR2T ? immediate : first;
        task.Unasked = unasked;
        Span<byte> header = Header(into, IscsiOpcode.Command, immediate);
        header[1] = (byte)((unasked == immediate ? IscsiWire.Final : 0) | (task.Expected > 0 ? 0x40 : 0) | (total > 0 ? 0x20 : 0) | 1);
        IscsiWire.SetLun(header, task.Lun);
        BinaryPrimitives.WriteUInt32BigEndian(header[16..], task.Tag);
        BinaryPrimitives.WriteInt32BigEndian(header[20..], total > 0 ? total : task.Expected);
        SetNumbers(header, _command++);
        task.Cdb.Span.CopyTo(header[32..]);
        if (unasked > immediate)
        {
            _ready.Enqueue(IscsiOutput.Data(task, IscsiWire.NoTag, immediate, unasked - immediate));
        }
        return Seal(into, task.Payload.Span[..immediate]);
    }

    private int Write(IscsiOutput output, Span<byte> into)
    {
        int length = Math.Min(output.Left, _segment);
        Span<byte> header = Header(into, output.Opcode, length);
        output.WriteHeader(header, length);
        if (output.Task is { } task)
        {
            IscsiWire.SetLun(header, task.Lun);
            SetNumbers(header, command: 0);
        }
        else
        {
            SetNumbers(header, _command);
        }
        return Seal(into, output.Take(length));
    }

    private void SetNumbers(Span<byte> header, uint command)
    {
        BinaryPrimitives.WriteUInt32BigEndian(header[24..], command);
        BinaryPrimitives.WriteUInt32BigEndian(header[28..], _status);
    }

    private static Span<byte> Header(Span<byte> into, IscsiOpcode opcode, int length)
    {
        Span<byte> header = into[..IscsiWire.HeaderLength];
        header.Clear();
        header[0] = (byte)opcode;
        IscsiWire.SetSegment(header, length);
        return header;
    }

    /// <summary>Puts digests and data behind a header.</summary>
    private int Seal(Span<byte> into, ReadOnlySpan<byte> data)
    {
        int at = IscsiWire.HeaderLength;
        if (agreed.HeaderDigest)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(into[at..], Crc32C.Of(into[..at]));
            at += IscsiWire.DigestLength;
        }
        if (data.IsEmpty)
        {
            return at;
        }
        Span<byte> segment = into.Slice(at, IscsiWire.Padded(data.Length));
        data.CopyTo(segment);
        segment[data.Length..].Clear();
        at += segment.Length;
        if (agreed.DataDigest)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(into[at..], Crc32C.Of(segment));
            at += IscsiWire.DigestLength;
        }
        return at;
    }

    private uint NextTag()
    {
        do
        {
            _tag++;
        }
        while (_tag == IscsiWire.NoTag || _tasks.ContainsKey(_tag));
        return _tag;
    }

    private ScsiTask Find(ReadOnlySpan<byte> header)
        => BinaryPrimitives.ReadUInt32BigEndian(header[16..]) is var tag && _tasks.TryGetValue(tag, out ScsiTask? task)
            ? task
            : throw Wrong($"it answers the command {tag:X8}h, which is not waiting for an answer");

    /// <summary>Spec: section 11.17.1.</summary>
    private static string ReasonOf(byte reason) => reason switch
    {
        0x02 => "data digest error",
        0x03 => "SNACK reject",
        0x04 => "protocol error",
        0x05 => "command not supported",
        0x06 => "too many immediate commands",
        0x07 => "task in progress",
        0x08 => "invalid data acknowledgement",
        0x09 => "invalid PDU field",
        0x0A => "out of resources",
        0x0B => "negotiation reset",
        0x0C => "waiting for logout",
        _ => "not known here",
    };

    private DiskImageException Wrong(string what) => IscsiText.Wrong(name, what);
}
