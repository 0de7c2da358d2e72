using System.Buffers.Binary;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>What is done with the PDUs that come in.</summary>
internal interface IIscsiPdus
{
    /// <summary>A header has come: where its data go. Asked again for each part, since whoever wanted them may have given up.</summary>
    /// <param name="header">The basic header.</param>
    /// <param name="at">Bytes of the data segment that have come already.</param>
    /// <returns>Room for the rest of the segment; empty to drop it; null to have it collected.</returns>
    Memory<byte>? PlaceOf(ReadOnlySpan<byte> header, int at);

    /// <summary>A header has come, before its data: throws what is wrong with it.</summary>
    void Check(ReadOnlySpan<byte> header);

    /// <summary>All of a PDU has come.</summary>
    /// <param name="header">The basic header.</param>
    /// <param name="data">The data segment, if it was collected.</param>
    void Take(ReadOnlySpan<byte> header, ReadOnlySpan<byte> data);
}

/// <summary>
/// Takes the bytes of PDUs apart, wherever they were cut: header, additional headers, digests, data, padding. Spec: RFC 7143, section 11.2.
/// </summary>
/// <param name="name">What the target is called in messages.</param>
/// <param name="pdus">Gets the PDUs.</param>
/// <param name="longest">Bytes of a data segment at most.</param>
/// <param name="headerDigest">Headers are followed by a CRC-32C.</param>
/// <param name="dataDigest">Data segments are.</param>
internal sealed class IscsiPduReader(string name, IIscsiPdus pdus, int longest, bool headerDigest, bool dataDigest)
{
    private const int LongestAdditional = 255 * 4;

    private enum State
    {
        Header,
        Rest, // of the header: additional segments, digest
        Data,
        Trailer, // padding, digest
    }

    private readonly byte[] _header = new byte[IscsiWire.HeaderLength + LongestAdditional + IscsiWire.DigestLength];
    private readonly byte[] _trailer = new byte[3 + IscsiWire.DigestLength];
    private readonly byte[] _dropped = new byte[16 << 10];
    private byte[] _collected = [];
    private State _state = State.Header;
    private int _has, _need = IscsiWire.HeaderLength;
    private int _length, _at; // of the data segment
    private bool _collects;
    private uint _crc;

    /// <summary>Where the next bytes that come in are to be put; never empty.</summary>
    public Memory<byte> Wanted => _state switch
    {
        State.Data => Room,
        State.Trailer => _trailer.AsMemory(_has, _need - _has),
        _ => _header.AsMemory(_has, _need - _has),
    };

    private Memory<byte> Room
    {
        get
        {
            if (_collects)
            {
                return _collected.AsMemory(_at, _length - _at);
            }
            Memory<byte> room = pdus.PlaceOf(_header.AsSpan(0, IscsiWire.HeaderLength), _at) ?? default;
            return room.IsEmpty ? _dropped.AsMemory(0, Math.Min(_dropped.Length, _length - _at)) : room;
        }
    }

    /// <summary>So many bytes were put where <see cref="Wanted"/> says, under the same lock.</summary>
    /// <param name="into">The place they were put.</param>
    /// <param name="count">How many.</param>
    /// <exception cref="DiskImageException">The target does not keep to the protocol.</exception>
    public void Advance(ReadOnlySpan<byte> into, int count)
    {
        if (_state == State.Data)
        {
            _crc = dataDigest ? Crc32C.Add(_crc, into[..count]) : _crc;
            _at += count;
            if (_at == _length)
            {
                BeginTrailer();
            }
            return;
        }
        _has += count;
        if (_has == _need)
        {
            Step();
        }
    }

    private void Step()
    {
        switch (_state)
        {
            case State.Header:
                int rest = (_header[4] * 4) + (headerDigest ? IscsiWire.DigestLength : 0);
                (_state, _need) = (State.Rest, IscsiWire.HeaderLength + rest);
                if (rest == 0)
                {
                    EndHeader();
                }
                break;
            case State.Rest:
                EndHeader();
                break;
            default:
                EndTrailer();
                break;
        }
    }

    private void EndHeader()
    {
        int length = _need - IscsiWire.DigestLength;
        if (headerDigest && BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(length)) != Crc32C.Of(_header.AsSpan(0, length)))
        {
            throw IscsiText.Wrong(name, "the digest of a header is not that of its bytes; they were damaged on the way");
        }
        _length = IscsiWire.SegmentOf(_header);
        if (_length > longest)
        {
            throw IscsiText.Wrong(name, $"a data segment has {_length:#,0} bytes; agreed on were {longest:#,0} at most");
        }
        ReadOnlySpan<byte> header = _header.AsSpan(0, IscsiWire.HeaderLength);
        pdus.Check(header);
        (_state, _at, _crc) = (State.Data, 0, Crc32C.Start);
        if (_length == 0)
        {
            End();
            return;
        }
        _collects = pdus.PlaceOf(header, 0) is null;
        if (_collects && _collected.Length < _length)
        {
            _collected = new byte[_length];
        }
    }

    private void BeginTrailer()
    {
        int padding = IscsiWire.Padded(_length) - _length;
        (_state, _has, _need) = (State.Trailer, 0, padding + (dataDigest ? IscsiWire.DigestLength : 0));
        if (_need == 0)
        {
            End();
        }
    }

    private void EndTrailer()
    {
        if (dataDigest)
        {
            int padding = _need - IscsiWire.DigestLength;
            uint crc = Crc32C.Finish(Crc32C.Add(_crc, _trailer.AsSpan(0, padding)));
            if (BinaryPrimitives.ReadUInt32LittleEndian(_trailer.AsSpan(padding)) != crc)
            {
                throw IscsiText.Wrong(name, "the digest of data is not that of its bytes; they were damaged on the way");
            }
        }
        End();
    }

    private void End()
    {
        bool collected = _collects && _length > 0;
        (_state, _has, _need, _collects) = (State.Header, 0, IscsiWire.HeaderLength, false);
        pdus.Take(_header.AsSpan(0, IscsiWire.HeaderLength), collected ? _collected.AsSpan(0, _length) : default);
    }
}
