using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>
/// One side of the conversation before an export is chosen, without I/O: bytes that came in are put where <see cref="Wanted"/> says, bytes
/// to be sent are taken with <see cref="TakeOutput"/>.
/// </summary>
/// <remarks>
/// A side is written down as one run of steps, an iterator; it yields how many bytes it needs next, and finds them in
/// <see cref="Input"/> when it goes on. So the order of messages is the order of lines, and where the bytes were cut makes no difference.
/// </remarks>
/// <param name="name">What the other side is called in messages.</param>
internal abstract class NbdSteps(string name)
{
    private readonly ArrayBufferWriter<byte> _output = new();
    private IEnumerator<int>? _steps;
    private byte[] _input = new byte[512];
    private int _wanted, _has;

    /// <summary>What the other side is called.</summary>
    protected string Name { get; } = name;

    /// <summary>Where the next bytes that come in are to be put: empty if none are wanted now.</summary>
    public Memory<byte> Wanted => _input.AsMemory(_has, _wanted - _has);

    /// <summary>All is said; what follows is another session's.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Both sides have agreed to go on under TLS: nothing is read or sent before <see cref="Resume"/>.</summary>
    public bool AwaitsTls { get; protected set; }

    /// <summary>The bytes of the last step.</summary>
    protected ReadOnlySpan<byte> Input => _input.AsSpan(0, _has);

    /// <summary>Begins.</summary>
    public void Start()
    {
        _steps = Steps().GetEnumerator();
        Next();
    }

    /// <summary>So many bytes were put where <see cref="Wanted"/> says.</summary>
    /// <exception cref="DiskImageException">The other side does not keep to the protocol, or refuses.</exception>
    public void Advance(int count)
    {
        _has += count;
        if (_has == _wanted)
        {
            Next();
        }
    }

    /// <summary>The connection is under TLS now.</summary>
    public void Resume()
    {
        AwaitsTls = false;
        Next();
    }

    /// <summary>The bytes to be sent now; none if there are none.</summary>
    public ReadOnlyMemory<byte> TakeOutput()
    {
        byte[] output = _output.WrittenSpan.ToArray();
        _output.ResetWrittenCount();
        return output;
    }

    /// <summary>The conversation. Each number is how many bytes are needed next; 0 to wait for TLS.</summary>
    protected abstract IEnumerable<int> Steps();

    protected void Send16(int value)
    {
        BinaryPrimitives.WriteUInt16BigEndian(_output.GetSpan(2), (ushort)value);
        _output.Advance(2);
    }

    protected void Send32(uint value)
    {
        BinaryPrimitives.WriteUInt32BigEndian(_output.GetSpan(4), value);
        _output.Advance(4);
    }

    protected void Send64(ulong value)
    {
        BinaryPrimitives.WriteUInt64BigEndian(_output.GetSpan(8), value);
        _output.Advance(8);
    }

    protected void SendBytes(ReadOnlySpan<byte> bytes) => _output.Write(bytes);

    protected uint U32(int at) => BinaryPrimitives.ReadUInt32BigEndian(Input[at..]);

    protected ulong U64(int at) => BinaryPrimitives.ReadUInt64BigEndian(Input[at..]);

    protected int U16(int at) => BinaryPrimitives.ReadUInt16BigEndian(Input[at..]);

    /// <summary>Text of the last step; bytes that are none are shown as such.</summary>
    protected string Text(int at, int length) => Encoding.UTF8.GetString(Input.Slice(at, length));

    /// <summary>The other side broke the protocol.</summary>
    protected DiskImageException Wrong(string what)
        => new(DiskImageErrorKind.Io, $"{Name}: does not keep to the NBD protocol: {what}", Name);

    private void Next()
    {
        if (!_steps!.MoveNext())
        {
            (IsOver, _wanted, _has) = (true, 0, 0);
            return;
        }
        (_wanted, _has) = (_steps.Current, 0);
        if (_wanted > _input.Length)
        {
            _input = new byte[_wanted];
        }
    }
}
