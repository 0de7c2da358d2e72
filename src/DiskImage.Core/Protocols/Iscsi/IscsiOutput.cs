using System.Buffers.Binary;

namespace DiskImage.Protocols.Iscsi;

/// <summary>Something that goes out in one PDU or several: a command's data, an answer to a ping, text, a goodbye.</summary>
internal sealed class IscsiOutput
{
    private readonly uint _tag, _transfer;
    private readonly byte[] _data = [];
    private readonly byte[] _lun = [];
    private int _at;
    private uint _number;
    private bool _isBegun;

    private IscsiOutput(IscsiOpcode opcode, uint tag, uint transfer, byte[] data)
        => (Opcode, _tag, _transfer, _data, Left) = (opcode, tag, transfer, data, data.Length);

    private IscsiOutput(ScsiTask task, uint transfer, int offset, int length)
        => (Opcode, Task, _tag, _transfer, _at, Left) = (IscsiOpcode.DataOut, task, task.Tag, transfer, offset, length);

    private IscsiOutput(byte[] lun, uint transfer, byte[] data)
        : this(IscsiOpcode.NopOut, IscsiWire.NoTag, transfer, data)
        => _lun = lun;

    /// <summary>The kind of its PDUs.</summary>
    public IscsiOpcode Opcode { get; }

    /// <summary>The command whose data they are; null if they are none.</summary>
    public ScsiTask? Task { get; }

    /// <summary>Bytes that are still to be sent.</summary>
    public int Left { get; private set; }

    /// <summary>All of it is sent.</summary>
    public bool IsDone => _isBegun && Left == 0;

    /// <summary>Data of a command. Spec: RFC 7143, section 11.7.</summary>
    public static IscsiOutput Data(ScsiTask task, uint transfer, int offset, int length) => new(task, transfer, offset, length);

    /// <summary>The answer to a ping. Spec: section 11.18.</summary>
    public static IscsiOutput Pong(byte[] lun, uint transfer, byte[] data) => new(lun, transfer, data);

    /// <summary>A question in text. Spec: section 11.10.</summary>
    public static IscsiOutput Text(uint tag, uint transfer, byte[] text) => new(IscsiOpcode.TextRequest, tag, transfer, text);

    /// <summary>A goodbye to the whole session. Spec: section 11.14.</summary>
    public static IscsiOutput Logout(uint tag) => new(IscsiOpcode.LogoutRequest, tag, 0, []);

    /// <summary>Fills in what is its own of the next PDU's header.</summary>
    /// <param name="header">The header, with its kind and length.</param>
    /// <param name="length">Bytes of data in this PDU.</param>
    public void WriteHeader(Span<byte> header, int length)
    {
        header[1] = length == Left ? IscsiWire.Final : (byte)0;
        BinaryPrimitives.WriteUInt32BigEndian(header[16..], _tag);
        BinaryPrimitives.WriteUInt32BigEndian(header[20..], _transfer); // of a goodbye it is the connection's number, which is 0
        _lun.CopyTo(header[8..]);
        if (Task is null)
        {
            header[0] |= IscsiWire.Immediate; // it has no turn, and takes none
            return;
        }
        BinaryPrimitives.WriteUInt32BigEndian(header[36..], _number++);
        BinaryPrimitives.WriteInt32BigEndian(header[40..], _at);
    }

    /// <summary>The next bytes; they are sent.</summary>
    public ReadOnlySpan<byte> Take(int length)
    {
        ReadOnlySpan<byte> bytes = Task is { } task ? task.Payload.Span.Slice(_at, length) : _data.AsSpan(_at, length);
        (_at, Left, _isBegun) = (_at + length, Left - length, true);
        return bytes;
    }
}
