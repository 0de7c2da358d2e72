using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>A request as a server got it.</summary>
/// <param name="Command">What is asked.</param>
/// <param name="Flags">How.</param>
/// <param name="Cookie">By which the answer names it.</param>
/// <param name="Offset">Of which bytes: the first one …</param>
/// <param name="Length">… and how many.</param>
/// <param name="HasPayload">Data come behind it, as many as it has bytes.</param>
internal readonly record struct NbdAsked(
    NbdCommand Command, NbdCommandFlags Flags, ulong Cookie, ulong Offset, ulong Length, bool HasPayload);

/// <summary>A run of what was read.</summary>
/// <param name="Offset">Its first byte, on the disk.</param>
/// <param name="Length">Its bytes.</param>
/// <param name="IsHole">They are zeroes, and not sent.</param>
internal readonly record struct NbdPiece(long Offset, int Length, bool IsHole);

/// <summary>A server's side of the conversation about an export, without I/O: bytes become requests, answers become bytes.</summary>
/// <param name="name">What the client is called in messages.</param>
/// <param name="isStructured">Answers come in chunks.</param>
/// <param name="isExtended">Lengths have 64 bits.</param>
internal sealed class NbdServerSession(string name, bool isStructured, bool isExtended)
{
    /// <summary>The most bytes that <see cref="Answer"/> and the like put before data.</summary>
    public const int LongestHead = NbdWire.ExtendedReplyLength + 12;

    private const int Final = 1;

    private readonly byte[] _head = new byte[NbdWire.ExtendedRequestLength];
    private readonly byte[] _scratch = new byte[16 << 10];
    private Memory<byte> _payload;
    private int _has;
    private long _left; // of the payload
    private NbdAsked? _asked;

    /// <summary>Answers come in chunks.</summary>
    public bool IsStructured => isStructured;

    /// <summary>Lengths have 64 bits.</summary>
    public bool IsExtended => isExtended;

    /// <summary>Bytes that come before data that are read, or are all there is of a hole.</summary>
    public int PieceHead(bool isHole) => isStructured ? ChunkHead + (isHole ? 12 : 8) : NbdWire.SimpleReplyLength;

    /// <summary>Some of a request has come, and not all.</summary>
    public bool IsInside => _has > 0 || _left > 0;

    /// <summary>Where the next bytes that come in are to be put. Not to be asked while <see cref="Asked"/> waits.</summary>
    public Memory<byte> Wanted => _left == 0 ? _head.AsMemory(_has, RequestLength - _has)
        : _payload.IsEmpty ? _scratch.AsMemory(0, (int)Math.Min(_left, _scratch.Length))
        : _payload[^(int)_left..];

    /// <summary>A request that has come; its payload has only if <see cref="IsComplete"/>.</summary>
    public NbdAsked? Asked => _asked;

    /// <summary>All of <see cref="Asked"/> has come.</summary>
    public bool IsComplete => _asked is not null && _left == 0;

    private int RequestLength => isExtended ? NbdWire.ExtendedRequestLength : NbdWire.RequestLength;

    private int ChunkHead => isExtended ? NbdWire.ExtendedReplyLength : NbdWire.StructuredReplyLength;

    /// <summary>So many bytes were put where <see cref="Wanted"/> says.</summary>
    /// <exception cref="DiskImageException">The client does not keep to the protocol.</exception>
    public void Advance(int count)
    {
        if (_left > 0)
        {
            _left -= count;
            return;
        }
        _has += count;
        if (_has < RequestLength)
        {
            return;
        }
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(_head);
        if (magic != (isExtended ? NbdWire.ExtendedRequestMagic : NbdWire.RequestMagic))
        {
            throw Wrong($"a request begins with 0x{magic:x8}");
        }
        var flags = (NbdCommandFlags)BinaryPrimitives.ReadUInt16BigEndian(_head.AsSpan(4));
        var command = (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(_head.AsSpan(6));
        ulong length = isExtended
            ? BinaryPrimitives.ReadUInt64BigEndian(_head.AsSpan(24))
            : BinaryPrimitives.ReadUInt32BigEndian(_head.AsSpan(24));
        bool hasPayload = isExtended ? flags.HasFlag(NbdCommandFlags.PayloadLength) : command == NbdCommand.Write;
        if (hasPayload && length > NbdWire.MaximumPayload)
        {
            throw Wrong($"it announces {length:#,0} bytes of data; at most {NbdWire.MaximumPayload:#,0} are taken");
        }
        _asked = new NbdAsked(
            command,
            flags,
            BinaryPrimitives.ReadUInt64BigEndian(_head.AsSpan(8)),
            BinaryPrimitives.ReadUInt64BigEndian(_head.AsSpan(16)),
            length,
            hasPayload);
        (_has, _left, _payload) = (0, hasPayload ? (long)length : 0, default);
    }

    /// <summary>Where the payload of <see cref="Asked"/> goes; what is not given a place is dropped.</summary>
    public void Take(Memory<byte> payload) => _payload = payload;

    /// <summary>Goes on to the next request.</summary>
    public void Next() => (_asked, _payload) = (null, default);

    /// <summary>The answer to a request that has no data: done, or an error.</summary>
    /// <returns>How many bytes it has.</returns>
    public int Answer(in NbdAsked asked, NbdError error, Span<byte> into)
    {
        if (!isStructured)
        {
            return Simple(asked, error, into);
        }
        if (error == NbdError.None)
        {
            return Chunk(asked, Final, NbdChunk.None, 0, into);
        }
        int head = Chunk(asked, Final, NbdChunk.Error, 6, into);
        BinaryPrimitives.WriteUInt32BigEndian(into[head..], (uint)error);
        BinaryPrimitives.WriteUInt16BigEndian(into[(head + 4)..], 0);
        return head + 6;
    }

    /// <summary>What comes before data of a read, or says that they are zeroes and do not come; see <see cref="PieceHead"/>.</summary>
    /// <param name="asked">The request.</param>
    /// <param name="piece">Of which bytes: all of them where answers come in one piece.</param>
    /// <param name="isLast">Nothing more comes.</param>
    /// <param name="into">Where it goes.</param>
    public void AnswerPiece(in NbdAsked asked, in NbdPiece piece, bool isLast, Span<byte> into)
    {
        if (!isStructured)
        {
            _ = Simple(asked, NbdError.None, into);
            return;
        }
        long body = 8 + (piece.IsHole ? 4 : (long)piece.Length);
        int head = Chunk(asked, isLast ? Final : 0, piece.IsHole ? NbdChunk.Hole : NbdChunk.Data, body, into);
        BinaryPrimitives.WriteInt64BigEndian(into[head..], piece.Offset);
        if (piece.IsHole)
        {
            BinaryPrimitives.WriteInt32BigEndian(into[(head + 8)..], piece.Length);
        }
    }

    /// <summary>Block status of one context.</summary>
    public byte[] AnswerStatus(in NbdAsked asked, uint context, IReadOnlyList<NbdExtent> extents, bool isLast)
    {
        int size = isExtended ? 16 : 8, body = (isExtended ? 8 : 4) + (extents.Count * size);
        byte[] answer = new byte[ChunkHead + body];
        int at = Chunk(asked, isLast ? Final : 0, isExtended ? NbdChunk.BlockStatusExtended : NbdChunk.BlockStatus, body, answer);
        BinaryPrimitives.WriteUInt32BigEndian(answer.AsSpan(at), context);
        at += 4;
        if (isExtended)
        {
            BinaryPrimitives.WriteInt32BigEndian(answer.AsSpan(at), extents.Count);
            at += 4;
        }
        foreach (NbdExtent extent in extents)
        {
            if (isExtended)
            {
                BinaryPrimitives.WriteInt64BigEndian(answer.AsSpan(at), extent.Length);
                BinaryPrimitives.WriteUInt64BigEndian(answer.AsSpan(at + 8), extent.Flags);
            }
            else
            {
                BinaryPrimitives.WriteUInt32BigEndian(answer.AsSpan(at), (uint)extent.Length);
                BinaryPrimitives.WriteUInt32BigEndian(answer.AsSpan(at + 4), (uint)extent.Flags);
            }
            at += size;
        }
        return answer;
    }

    private static int Simple(in NbdAsked asked, NbdError error, Span<byte> into)
    {
        BinaryPrimitives.WriteUInt32BigEndian(into, NbdWire.SimpleReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(into[4..], (uint)error);
        BinaryPrimitives.WriteUInt64BigEndian(into[8..], asked.Cookie);
        return NbdWire.SimpleReplyLength;
    }

    private int Chunk(in NbdAsked asked, int flags, NbdChunk chunk, long length, Span<byte> into)
    {
        BinaryPrimitives.WriteUInt32BigEndian(into, isExtended ? NbdWire.ExtendedReplyMagic : NbdWire.StructuredReplyMagic);
        BinaryPrimitives.WriteUInt16BigEndian(into[4..], (ushort)flags);
        BinaryPrimitives.WriteUInt16BigEndian(into[6..], (ushort)chunk);
        BinaryPrimitives.WriteUInt64BigEndian(into[8..], asked.Cookie);
        if (isExtended)
        {
            BinaryPrimitives.WriteUInt64BigEndian(into[16..], asked.Offset);
            BinaryPrimitives.WriteInt64BigEndian(into[24..], length);
        }
        else
        {
            BinaryPrimitives.WriteUInt32BigEndian(into[16..], (uint)length);
        }
        return ChunkHead;
    }

    private DiskImageException Wrong(string what)
        => new(DiskImageErrorKind.Io, $"{name}: does not keep to the NBD protocol: {what}", name);
}
