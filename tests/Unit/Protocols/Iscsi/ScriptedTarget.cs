using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using DiskImage.Binary;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Iscsi;

/// <summary>
/// A target that does as it is told: it serves bytes in memory, and what it says can be changed, left out, cut off. Written from RFC 7143
/// without the product's code, but for the checksum.
/// </summary>
internal sealed class ScriptedTarget : LoopbackServer
{
    public const string Name = "iqn.2026-11.org.example:scripted";

    public ScriptedTarget(byte[] disk)
    {
        Disk = disk;
        Listen();
    }

    /// <summary>The bytes of the unit, number 1.</summary>
    public byte[] Disk { get; }

    public int BlockSize { get; init; } = 512;

    public string Portal => $"127.0.0.1:{Port}";

    public string Url => $"iscsi://{Portal}/{Name}/1";

    /// <summary>Keys that are answered in the operational stage.</summary>
    public Dictionary<string, string> Keys { get; } = new(StringComparer.Ordinal)
    {
        ["HeaderDigest"] = "None", ["DataDigest"] = "None", ["InitialR2T"] = "Yes", ["ImmediateData"] = "Yes", ["MaxBurstLength"] = "65536",
        ["FirstBurstLength"] = "16384", ["MaxOutstandingR2T"] = "1", ["MaxRecvDataSegmentLength"] = "8192",
    };

    /// <summary>Each PDU goes through it before it is sealed with digests: what is sent in its place.</summary>
    public Func<Pdu, IEnumerable<Pdu>> Tamper { get; set; } = p => [p];

    /// <summary>The bytes of each PDU go through it at last.</summary>
    public Func<byte[], byte[]> Damage { get; set; } = b => b;

    /// <summary>The sense data, or status, with which a command fails; null for those that do not.</summary>
    public Func<byte[], byte[]?> Fail { get; set; } = _ => null;

    /// <summary>Where a login is sent; null for nowhere.</summary>
    public Func<string?> Redirect { get; set; } = () => null;

    /// <summary>After so many bytes that were sent the connection is cut, each time; then never again.</summary>
    public Queue<long> Cuts { get; } = new();

    /// <summary>Nothing is answered any more.</summary>
    public volatile bool Hangs;

    /// <summary>Commands, by their first byte, in the order in which they came.</summary>
    public List<byte> Commands { get; } = [];

    public int Logins { get; private set; }

    /// <summary>Commands that a window of command numbers has room for.</summary>
    public int Window { get; set; } = 32;

    protected override async Task ServeAsync(NetworkStream client)
    {
        long? cut = Cuts.TryDequeue(out long at) ? at : null;
        long sent = 0;
        var conversation = new Conversation(this);
        while (true)
        {
            byte[] header = new byte[48];
            await client.ReadExactlyAsync(header);
            await client.ReadExactlyAsync(new byte[conversation.HeaderDigest ? 4 : 0]);
            int length = (header[5] << 16) | (header[6] << 8) | header[7];
            byte[] data = new byte[(length + 3) / 4 * 4];
            await client.ReadExactlyAsync(data);
            await client.ReadExactlyAsync(new byte[conversation.DataDigest && length > 0 ? 4 : 0]);
            if (Hangs)
            {
                await Task.Delay(Timeout.Infinite, Ended);
            }
            foreach (Pdu answer in conversation.Answer(header, data.AsMemory(0, length)).SelectMany(Tamper).ToList())
            {
                byte[] bytes = Damage(conversation.Seal(answer));
                int count = (int)Math.Min(bytes.Length, (cut ?? long.MaxValue) - sent);
                await client.WriteAsync(bytes.AsMemory(0, count));
                sent += count;
                if (sent == cut)
                {
                    return;
                }
            }
        }
    }

    /// <summary>A PDU on its way out.</summary>
    internal sealed class Pdu(byte opcode, byte flags = 0x80)
    {
        public byte[] Header { get; init; } = New(opcode, flags);

        public byte[] Data { get; set; } = [];

        public byte Opcode => Header[0];

        public uint this[int at]
        {
            get => BinaryPrimitives.ReadUInt32BigEndian(Header.AsSpan(at));
            set => BinaryPrimitives.WriteUInt32BigEndian(Header.AsSpan(at), value);
        }

        private static byte[] New(byte opcode, byte flags)
        {
            byte[] header = new byte[48];
            (header[0], header[1]) = (opcode, flags);
            return header;
        }
    }

    /// <summary>What is remembered of one connection.</summary>
    internal sealed class Conversation(ScriptedTarget target)
    {
        private readonly Dictionary<uint, Write> _writes = [];
        private uint _expected, _status = 100, _transfer = 1000;
        private bool _digests;

        public bool HeaderDigest => _digests && target.Keys["HeaderDigest"] == "CRC32C";

        public bool DataDigest => _digests && target.Keys["DataDigest"] == "CRC32C";


        public IEnumerable<Pdu> Answer(byte[] header, Memory<byte> data)
        {
            uint tag = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16));
            switch (header[0] & 0x3F)
            {
                case 0x03:
                    yield return Login(header, data.Span);
                    break;
                case 0x01:
                    _expected++;
                    lock (target.Commands)
                    {
                        target.Commands.Add(header[32]);
                    }
                    if (target.Fail(header[32..48]) is { } sense)
                    {
                        yield return Response(tag, sense);
                    }
                    else if ((header[1] & 0x20) != 0)
                    {
                        var write = new Write(header[32..48], new byte[BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(20))]);
                        data.CopyTo(write.Data);
                        write.Has = data.Length;
                        _writes[tag] = write;
                        if ((header[1] & 0x80) != 0)
                        {
                            yield return Next(tag, write);
                        }
                    }
                    else
                    {
                        foreach (Pdu pdu in Read(tag, header[32..48], BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(20))))
                        {
                            yield return pdu;
                        }
                    }
                    break;
                case 0x05 when _writes.TryGetValue(tag, out Write? write):
                    data.CopyTo(write.Data.AsMemory(BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(40))));
                    write.Has += data.Length;
                    if ((header[1] & 0x80) != 0)
                    {
                        yield return Next(tag, write);
                    }
                    break;
                case 0x04:
                    yield return Numbered(new Pdu(0x24) { [16] = tag, [20] = uint.MaxValue, Data = Text(
                        ("TargetName", Name), ("TargetAddress", $"{target.Portal},1")) }, hasStatus: true);
                    break;
                case 0x06:
                    yield return Numbered(new Pdu(0x26) { [16] = tag }, hasStatus: true);
                    break;
                default:
                    break; // answers to pings
            }
        }

        public byte[] Seal(Pdu pdu)
        {
            int length = pdu.Data.Length, padded = (length + 3) / 4 * 4;
            (pdu.Header[5], pdu.Header[6], pdu.Header[7]) = ((byte)(length >> 16), (byte)(length >> 8), (byte)length);
            byte[] data = new byte[padded];
            pdu.Data.CopyTo(data, 0);
            bool isLogin = pdu.Opcode == 0x23;
            byte[] sealedPdu =
            [
                .. pdu.Header, .. HeaderDigest && !isLogin ? Crc(pdu.Header) : [], .. data,
                .. DataDigest && !isLogin && length > 0 ? Crc(data) : [],
            ];
            return sealedPdu;

            static byte[] Crc(byte[] of)
            {
                byte[] crc = new byte[4];
                BinaryPrimitives.WriteUInt32LittleEndian(crc, Crc32C.Of(of));
                return crc;
            }
        }

        private Pdu Login(byte[] header, ReadOnlySpan<byte> data)
        {
            string text = Encoding.UTF8.GetString(data);
            int stage = (header[1] >> 2) & 3, next = header[1] & 3;
            bool moves = (header[1] & 0x80) != 0;
            target.Logins += stage == 0 ? 1 : 0;
            _expected = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(24));
            var pdu = new Pdu(0x23, header[1]);
            header.AsSpan(8, 6).CopyTo(pdu.Header.AsSpan(8));
            (pdu.Header[15], pdu[16]) = (7, BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16)));
            if (stage == 0 && target.Redirect() is { } elsewhere)
            {
                (pdu.Header[36], pdu.Header[37], pdu.Data) = (1, 1, Text(("TargetAddress", elsewhere)));
            }
            else
            {
                pdu.Data = stage == 0 ? Text(("TargetPortalGroupTag", "1"), ("AuthMethod", "None"))
                    : Text([.. target.Keys.Select(k => (k.Key, k.Value))]);
            }
            _digests = moves && next == 3;
            return Numbered(pdu, hasStatus: true);
        }

        private IEnumerable<Pdu> Read(uint tag, byte[] cdb, int expected)
        {
            byte[]? answer = cdb[0] switch
            {
                0x12 when cdb[1] == 0 => [0, 0, 5, 2, 31, 0, 0, 2, .. Encoding.ASCII.GetBytes("SCRIPTEDTARGET          0001")],
                0x12 when cdb[2] == 0 => [0, 0, 0, 3, 0, 0x80, 0xB2],
                0x12 when cdb[2] == 0x80 => [0, 0x80, 0, 4, .. "1234"u8],
                0x12 when cdb[2] == 0xB2 => [0, 0xB2, 0, 4, 0, 0xC4, 2, 0],
                0x1A => [3, 0, 0x10, 0],
                0x00 or 0x35 => [],
                0xA0 => [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
                0x9E when (cdb[1] & 0x1F) == 0x10 => Capacity(),
                0x9E => Status(BinaryPrimitives.ReadInt64BigEndian(cdb.AsSpan(2))),
                0x88 => target.Disk.AsSpan(
                    (int)BinaryPrimitives.ReadInt64BigEndian(cdb.AsSpan(2)) * target.BlockSize,
                    BinaryPrimitives.ReadInt32BigEndian(cdb.AsSpan(10)) * target.BlockSize).ToArray(),
                _ => null,
            };
            if (answer is null)
            {
                yield return Response(tag, [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0]);
                yield break;
            }
            answer = answer[..Math.Min(answer.Length, expected)];
            for (int at = 0, number = 0; at < answer.Length; at += 4096, number++)
            {
                byte[] part = answer[at..Math.Min(at + 4096, answer.Length)];
                yield return Numbered(
                    new Pdu(0x25, 0) { [16] = tag, [20] = uint.MaxValue, [36] = (uint)number, [40] = (uint)at, Data = part }, hasStatus: false);
            }
            Pdu end = Response(tag, null);
            if (answer.Length < expected)
            {
                (end.Header[1], end[44]) = (0x82, (uint)(expected - answer.Length));
            }
            yield return end;
        }

        private byte[] Capacity()
        {
            byte[] answer = new byte[32];
            BinaryPrimitives.WriteInt64BigEndian(answer, (target.Disk.Length / target.BlockSize) - 1);
            BinaryPrimitives.WriteInt32BigEndian(answer.AsSpan(8), target.BlockSize);
            answer[14] = 0xC0;
            return answer;
        }

        /// <summary>Runs of blocks that are zeroes, or are not.</summary>
        private byte[] Status(long block)
        {
            var rows = new List<byte>();
            int blocks = target.Disk.Length / target.BlockSize;
            bool IsZero(long at) => !target.Disk.AsSpan((int)at * target.BlockSize, target.BlockSize).ContainsAnyExcept((byte)0);
            for (long at = block; at < blocks && rows.Count < 16 * 20;)
            {
                long start = at;
                bool zero = IsZero(at);
                while (at < blocks && IsZero(at) == zero)
                {
                    at++;
                }
                byte[] row = new byte[16];
                BinaryPrimitives.WriteInt64BigEndian(row, start);
                BinaryPrimitives.WriteInt32BigEndian(row.AsSpan(8), (int)(at - start));
                row[12] = zero ? (byte)1 : (byte)0;
                rows.AddRange(row);
            }
            byte[] answer = [0, 0, 0, 0, 0, 0, 0, 0, .. rows];
            BinaryPrimitives.WriteInt32BigEndian(answer, answer.Length - 4);
            return answer;
        }

        private Pdu Next(uint tag, Write write)
        {
            if (write.Has < write.Data.Length)
            {
                int burst = Math.Min(write.Data.Length - write.Has, int.Parse(target.Keys["MaxBurstLength"], null));
                return Numbered(
                    new Pdu(0x31) { [16] = tag, [20] = _transfer++, [36] = write.Asked++, [40] = (uint)write.Has, [44] = (uint)burst },
                    hasStatus: false);
            }
            _ = _writes.Remove(tag);
            int block = target.BlockSize;
            int at = (int)BinaryPrimitives.ReadInt64BigEndian(write.Cdb.AsSpan(2)) * block;
            switch (write.Cdb[0])
            {
                case 0x8A:
                    write.Data.CopyTo(target.Disk, at);
                    break;
                case 0x93:
                    for (int i = 0; i < BinaryPrimitives.ReadInt32BigEndian(write.Cdb.AsSpan(10)); i++)
                    {
                        write.Data.CopyTo(target.Disk, at + (i * block));
                    }
                    break;
                case 0x42:
                    target.Disk.AsSpan(
                        (int)BinaryPrimitives.ReadInt64BigEndian(write.Data.AsSpan(8)) * block,
                        BinaryPrimitives.ReadInt32BigEndian(write.Data.AsSpan(16)) * block).Clear();
                    break;
                default:
                    return Response(tag, [0x72, 5, 0x20, 0]);
            }
            return Response(tag, null);
        }

        /// <summary>The end of a command: good, with sense data, or with a status if there is one byte.</summary>
        private Pdu Response(uint tag, byte[]? sense)
        {
            var pdu = new Pdu(0x21) { [16] = tag };
            if (sense is not null)
            {
                pdu.Header[3] = sense.Length == 1 ? sense[0] : (byte)2;
                pdu.Data = sense.Length == 1 ? [] : [(byte)(sense.Length >> 8), (byte)sense.Length, .. sense];
            }
            return Numbered(pdu, hasStatus: true);
        }

        private Pdu Numbered(Pdu pdu, bool hasStatus)
        {
            pdu[24] = hasStatus ? _status++ : _status;
            (pdu[28], pdu[32]) = (_expected, _expected + (uint)target.Window - 1);
            return pdu;
        }

        private static byte[] Text(params (string Key, string Value)[] pairs)
            => Encoding.UTF8.GetBytes(string.Concat(pairs.Select(p => $"{p.Key}={p.Value}\0")));

        private sealed record Write(byte[] Cdb, byte[] Data)
        {
            public int Has { get; set; }

            public uint Asked { get; set; }
        }
    }
}
