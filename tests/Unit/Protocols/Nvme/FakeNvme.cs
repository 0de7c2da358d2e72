using System.Buffers.Binary;
using DiskImage.Platform;

namespace DiskImage.Tests.Protocols.Nvme;

/// <summary>A command as the controller found it in its queue.</summary>
internal sealed record FakeCommand(int Queue, byte Opcode, ushort Number, uint Namespace, ulong First, ulong Second, uint[] Words)
{
    /// <summary>The first block of a command over a run of blocks.</summary>
    public long Block => Words[10] | ((long)Words[11] << 32);

    /// <summary>How many there are.</summary>
    public int Blocks => (int)(Words[12] & 0xFFFF) + 1;
}

/// <summary>A namespace of it.</summary>
internal sealed class FakeNamespace(byte[] bytes, int shift)
{
    public byte[] Bytes { get; } = bytes;

    public int Shift { get; } = shift;

    /// <summary>Changes what the controller says of it.</summary>
    public Action<byte[]> Says { get; set; } = _ => { };
}

/// <summary>
/// An NVMe controller in memory: registers, doorbells, queues, and namespaces that are arrays. It counts whatever its driver does against
/// the specification, and can itself do everything that a controller must not.
/// </summary>
internal sealed class FakeNvme : IPciFunction, IPciHost
{
    public const string Address = "0000:44:00.0";
    private const ulong Base = 0x7F00_0000;

    private readonly Lock _sync = new();
    private readonly SemaphoreSlim _interrupt = new(0);
    private readonly Dictionary<int, Queue> _queues = [];
    private readonly Random _random = new(1);
    private byte[] _memory = [];
    private uint _configuration, _sizes;
    private ulong _submission, _completion;
    private bool _isOpen;

    public Dictionary<uint, FakeNamespace> Namespaces { get; } = [];

    /// <summary>What the driver did against the rules.</summary>
    public List<string> Wrongs { get; } = [];

    /// <summary>The commands that came, and what else happened.</summary>
    public List<FakeCommand> Commands { get; } = [];

    public List<string> Events { get; } = [];

    public int Opened { get; private set; }

    public int Wraps { get; private set; }

    // what it says of itself
    public uint Entries { get; set; } = 64;

    public uint Stride { get; set; }

    public uint CapabilitiesHigh { get; set; } = 1 << 5;

    public uint Timeout { get; set; } = 2;

    public Action<byte[]> Says { get; set; } = _ => { };

    public long RegisterBytes { get; set; } = 16 << 10;

    public bool HasInterrupts { get; set; } = true;

    // what it does
    public Func<FakeCommand, int> StatusOf { get; set; } = _ => 0;

    public Func<FakeCommand, bool> IsSilent { get; set; } = _ => false;

    public Func<FakeCommand, bool> IsFatal { get; set; } = _ => false;

    /// <summary>Changes a completion before it is posted: words 2 and 3, and how often it is posted.</summary>
    public Func<FakeCommand, (uint About, uint Last), IEnumerable<(uint About, uint Last)>> Post { get; set; } = (_, entry) => [entry];

    public bool IsDelayed { get; set; }

    public bool IsGone { get; set; }

    public bool NeverReady { get; set; }

    public bool NeverStops { get; set; }

    public bool IsBorn { get; set; } // somebody left it running

    public Span<byte> Memory => _memory;

    public ulong MemoryAddress => Base;

    public uint Status { get; private set; }

    public IPciFunction Open(string name, string address, string kind, string what)
    {
        Assert.Equal(Address, address);
        Assert.False(_isOpen);
        Assert.Equal("0x010802", kind);
        (_isOpen, _memory) = (true, []);
        Opened++;
        if (IsBorn)
        {
            (_configuration, Status) = (1, 1);
        }
        return this;
    }

    public void MapMemory(int length)
    {
        Assert.InRange(length, 4096, LinuxVfioFunction.MostMemory);
        _memory = new byte[length];
    }

    public uint Read(long register)
    {
        lock (_sync)
        {
            Assert.True(_isOpen);
            return IsGone ? uint.MaxValue : register switch
            {
                0x00 => (Entries - 1) | (Timeout << 24),
                0x04 => CapabilitiesHigh | Stride,
                0x14 => _configuration,
                0x1C => Status,
                _ => 0,
            };
        }
    }

    public void Write(long register, uint value)
    {
        lock (_sync)
        {
            Assert.True(_isOpen);
            switch (register)
            {
                case 0x14:
                    Configure(value);
                    break;
                case 0x24:
                    _sizes = value;
                    break;
                case 0x28 or 0x2C:
                    _submission = Half(_submission, value, register == 0x2C);
                    break;
                case 0x30 or 0x34:
                    _completion = Half(_completion, value, register == 0x34);
                    break;
                case >= 0x1000:
                    Ring((int)((register - 0x1000) / (4 << (int)Stride)), (int)value);
                    break;
                default:
                    Wrongs.Add($"register {register:x} written");
                    break;
            }
        }
    }

    public void Wait(TimeSpan most) => _interrupt.Wait(most);

    public void Wake() => _interrupt.Release();

    public void Dispose()
    {
        lock (_sync)
        {
            Assert.True(_isOpen);
            _isOpen = false;
            Events.Add("closed");
            Status = 0;
            _configuration = 0;
            _queues.Clear();
        }
    }

    private static ulong Half(ulong old, uint value, bool high)
        => high ? (old & uint.MaxValue) | ((ulong)value << 32) : (old & ~(ulong)uint.MaxValue) | value;

    private void Configure(uint value)
    {
        bool was = (_configuration & 1) != 0, isOn = (value & 1) != 0;
        _configuration = value;
        if (isOn && !was)
        {
            Status = NeverReady ? 0u : 1;
            if (value != 0x460001)
            {
                Wrongs.Add($"configured {value:x}");
            }
            _queues[0] = new Queue(_submission, _completion, (int)(_sizes & 0xFFF) + 1, IsInterrupting: true);
            Events.Add("enabled");
        }
        else if (!isOn && was)
        {
            Status = NeverStops ? Status : 0;
            _queues.Clear();
            Events.Add("disabled");
        }
        else if ((value & (3 << 14)) != 0)
        {
            Status |= 2 << 2;
            Events.Add("shut down");
        }
    }

    private void Ring(int doorbell, int value)
    {
        if (!_queues.TryGetValue(doorbell / 2, out Queue? queue) || value < 0 || value >= queue.Entries)
        {
            Wrongs.Add($"doorbell {doorbell} rung with {value}");
            return;
        }
        if (doorbell % 2 == 1)
        {
            queue.Unread -= (value - queue.Head + queue.Entries) % queue.Entries;
            queue.Head = value;
            return;
        }
        for (; queue.Fetched != value; queue.Fetched = (queue.Fetched + 1) % queue.Entries)
        {
            uint[] words = new uint[16];
            for (int i = 0; i < words.Length; i++)
            {
                words[i] = BinaryPrimitives.ReadUInt32LittleEndian(At(queue.Submission + (ulong)((queue.Fetched * 64) + (i * 4)), 4));
            }
            var command = new FakeCommand(
                doorbell / 2, (byte)words[0], (ushort)(words[0] >> 16), words[1],
                words[6] | ((ulong)words[7] << 32), words[8] | ((ulong)words[9] << 32), words);
            Commands.Add(command);
            if (IsDelayed && command.Queue > 0)
            {
                int wait = _random.Next(4);
                _ = Task.Run(async () =>
                {
                    await Task.Delay(wait);
                    lock (_sync)
                    {
                        if (_isOpen && _queues.GetValueOrDefault(command.Queue) == queue)
                        {
                            Answer(queue, command);
                        }
                    }
                });
            }
            else
            {
                Answer(queue, command);
            }
        }
    }

    private void Answer(Queue queue, FakeCommand command)
    {
        if (IsFatal(command))
        {
            Status |= 2;
            return;
        }
        if (IsSilent(command))
        {
            return;
        }
        int status = StatusOf(command);
        status = status != 0 ? status : command.Queue == 0 ? Manage(command) : Do(command);
        uint about = (uint)((queue.Fetched + 1) % queue.Entries) | ((uint)command.Queue << 16);
        foreach ((uint first, uint last) in Post(command, (about, command.Number | ((uint)status << 17))))
        {
            Span<byte> entry = At(queue.Completion + (ulong)(queue.Posted * 16), 16);
            if (++queue.Unread >= queue.Entries)
            {
                Wrongs.Add("a completion queue ran over");
            }
            BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], first);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[12..], (last & ~0x10000u) | (queue.Phase ? 0x10000u : 0));
            queue.Posted = (queue.Posted + 1) % queue.Entries;
            if (queue.Posted == 0)
            {
                queue.Phase = !queue.Phase;
                Wraps++;
            }
        }
        if (HasInterrupts && queue.IsInterrupting)
        {
            _ = _interrupt.Release();
        }
    }

    private int Manage(FakeCommand command)
    {
        byte[] data = new byte[4096];
        uint[] words = command.Words;
        switch (command.Opcode)
        {
            case 0x06 when words[10] == 1:
                (data[512], data[513], data[520], data[525]) = (0x66, 0x44, 12, 1);
                Says(data);
                break;
            case 0x06 when words[10] == 0:
                if (!Namespaces.TryGetValue(command.Namespace, out FakeNamespace? space))
                {
                    return 0x400B;
                }
                BinaryPrimitives.WriteInt64LittleEndian(data, space.Bytes.LongLength >> space.Shift);
                (data[33], data[130]) = (9, (byte)space.Shift);
                space.Says(data);
                break;
            case 0x06 when words[10] == 2:
                foreach ((int i, uint number) in Namespaces.Keys.Order().Index())
                {
                    BinaryPrimitives.WriteUInt32LittleEndian(data.AsSpan(i * 4), number);
                }
                break;
            case 0x09 when words[10] == 7:
                return 0;
            case 0x05:
                _queues[(int)(words[10] & 0xFFFF)] = new Queue(
                    0, command.First, (int)(words[10] >> 16) + 1, IsInterrupting: (words[11] & 2) != 0);
                return (words[11] & 1) != 0 ? 0 : 2;
            case 0x01:
                _queues[(int)(words[10] & 0xFFFF)].Submission = command.First;
                return 0;
            case 0x00 or 0x04:
                Events.Add($"queue deleted {command.Opcode}");
                return 0;
            default:
                return 0x4001;
        }
        Copy(command, data, toHost: true);
        return 0;
    }

    private int Do(FakeCommand command)
    {
        FakeNamespace space = Namespaces[command.Namespace];
        int shift = space.Shift;
        if (command.Opcode == 0x00)
        {
            return 0;
        }
        if (command.Opcode == 0x09)
        {
            byte[] range = new byte[16];
            Copy(command, range, toHost: false);
            long start = BinaryPrimitives.ReadInt64LittleEndian(range.AsSpan(8)) << shift;
            long count = (long)BinaryPrimitives.ReadUInt32LittleEndian(range.AsSpan(4)) << shift;
            space.Bytes.AsSpan((int)start, (int)count).Clear();
            return 0;
        }
        if (command.Block + command.Blocks > space.Bytes.LongLength >> shift)
        {
            return 0x4080;
        }
        Span<byte> bytes = space.Bytes.AsSpan((int)(command.Block << shift), command.Blocks << shift);
        switch (command.Opcode)
        {
            case 0x01 or 0x02:
                Copy(command, bytes, toHost: command.Opcode == 2);
                return 0;
            case 0x08:
                bytes.Clear();
                return 0;
            default:
                return 0x4001;
        }
    }

    /// <summary>Moves data by the command's pages.</summary>
    private void Copy(FakeCommand command, Span<byte> data, bool toHost)
    {
        int pages = (data.Length + 4095) / 4096;
        for (int page = 0; page < pages; page++)
        {
            ulong at = page == 0 ? command.First
                : pages == 2 ? command.Second
                : BinaryPrimitives.ReadUInt64LittleEndian(At(command.Second + (ulong)((page - 1) * 8), 8));
            if (at % 4096 != 0)
            {
                Wrongs.Add($"a page at {at:x}");
            }
            Span<byte> part = data.Slice(page * 4096, Math.Min(4096, data.Length - (page * 4096)));
            Span<byte> there = At(at, part.Length);
            if (toHost)
            {
                part.CopyTo(there);
            }
            else
            {
                there.CopyTo(part);
            }
        }
    }

    private Span<byte> At(ulong address, int length) => _memory.AsSpan(checked((int)(address - Base)), length);

    private sealed record Queue(ulong Start, ulong Completion, int Entries, bool IsInterrupting)
    {
        public ulong Submission { get; set; } = Start;

        public int Fetched { get; set; }

        public int Posted { get; set; }

        public bool Phase { get; set; } = true;

        public int Head { get; set; }

        public int Unread { get; set; }
    }
}
