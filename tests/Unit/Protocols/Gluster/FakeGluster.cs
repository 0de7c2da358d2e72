using System.Text;
using DiskImage.Protocols.Gluster;

namespace DiskImage.Tests.Protocols.Gluster;

/// <summary>A volume in memory behind the calls of libgfapi.</summary>
internal sealed class FakeGluster : IGlusterLibrary
{
    private readonly Dictionary<nint, Entry> _open = [];
    private readonly List<string> _log = [];
    private nint _last = 100;

    /// <summary>Files by path.</summary>
    public Dictionary<string, Entry> Files { get; } = new(StringComparer.Ordinal);

    /// <summary>What was done, in order.</summary>
    public IReadOnlyList<string> Log
    {
        get
        {
            lock (_log)
            {
                return [.. _log]; // volumes are left while others ask
            }
        }
    }

    /// <summary>The error number with which a call fails; 0 for one that does not.</summary>
    public Func<string, int> Fail { get; set; } = _ => 0;

    /// <summary>Waits in each call.</summary>
    public Action<string> Meanwhile { get; set; } = _ => { };

    /// <summary>Bytes that a write takes at most.</summary>
    public int MostWritten { get; set; } = int.MaxValue;

    public int Opened { get; private set; }

    public nint New(string volume)
    {
        lock (_log)
        {
            _log.Add($"new {volume}");
            return ++_last;
        }
    }

    public GlusterResult AddServer(nint volume, string transport, string host, int port)
        => Do("server", $"{transport} {host} {port}", () => 0);

    GlusterResult IGlusterLibrary.Log(nint volume, string path, int level) => Do("log", $"{path} {level}", () => 0);

    public GlusterResult Connect(nint volume) => Do("connect", "", () => 0);

    public GlusterResult End(nint volume) => Do("end", "", () => 0);

    public GlusterResult Open(nint volume, string path, int flags)
        => Do("open", $"{path} {flags}", () => Files.TryGetValue(path, out Entry? file) ? Handle(file) : -2);

    public GlusterResult Create(nint volume, string path, int flags, uint mode) => Do("create", $"{path} {mode:x}", () =>
    {
        if (Files.ContainsKey(path))
        {
            return -17;
        }
        return Handle(Files[path] = new Entry { Mode = 0x8000 | mode, Inode = (ulong)++_last });
    });

    public GlusterResult Close(nint file) => Do("close", "", () =>
    {
        Opened--;
        return _open.Remove(file) ? 0 : -9;
    });

    public GlusterResult Read(nint file, Span<byte> buffer, long offset)
    {
        byte[] read = [];
        int length = buffer.Length;
        GlusterResult result = Do("read", $"{offset} {length}", () =>
        {
            byte[] bytes = _open[file].Bytes;
            read = offset >= bytes.Length ? [] : bytes[(int)offset..(int)Math.Min(bytes.Length, offset + length)];
            return read.Length;
        });
        read.CopyTo(buffer);
        return result;
    }

    public GlusterResult Write(nint file, ReadOnlySpan<byte> bytes, long offset)
    {
        byte[] given = bytes.ToArray();
        return Do("write", $"{offset} {given.Length}", () =>
        {
            int count = Math.Min(given.Length, MostWritten);
            Entry entry = _open[file];
            entry.Grow(offset + count);
            given.AsSpan(0, count).CopyTo(entry.Bytes.AsSpan((int)offset));
            return count;
        });
    }

    public GlusterResult Seek(nint file, long offset, int whence) => Do("seek", $"{offset} {whence}", () =>
    {
        byte[] bytes = _open[file].Bytes;
        const int Page = 4096;
        for (long at = offset; at < bytes.Length; at = (at / Page * Page) + Page)
        {
            long page = at / Page * Page;
            bool isData = bytes.AsSpan((int)page..(int)Math.Min(bytes.Length, page + Page)).ContainsAnyExcept((byte)0);
            if (isData == (whence == GlusterFile.SeekData))
            {
                return at;
            }
        }
        return whence == GlusterFile.SeekData ? -6 : bytes.Length;
    });

    public GlusterResult SetLength(nint file, long length) => Do("length", $"{length}", () =>
    {
        byte[] bytes = _open[file].Bytes;
        Array.Resize(ref bytes, (int)length);
        _open[file].Bytes = bytes;
        return 0;
    });

    public GlusterResult Flush(nint file) => Do("flush", "", () => 0);

    public GlusterResult Allocate(nint file, long offset, long length) => Do("allocate", $"{offset} {length}", () =>
    {
        _open[file].Grow(offset + length);
        return 0;
    });

    public GlusterResult Discard(nint file, long offset, long length)
        => Do("discard", $"{offset} {length}", () => Clear(file, offset, length));

    public GlusterResult Zero(nint file, long offset, long length)
        => Do("zero", $"{offset} {length}", () => Clear(file, offset, length));

    public GlusterResult Stat(nint file, out GlusterStat stat)
    {
        GlusterStat found = default;
        GlusterResult result = Do("fstat", "", () =>
        {
            found = _open[file].Stat;
            return 0;
        });
        stat = found;
        return result;
    }

    public GlusterResult Stat(nint volume, string path, bool follows, out GlusterStat stat)
    {
        GlusterStat found = default;
        GlusterResult result = Do("stat", path, () =>
        {
            found = Files.TryGetValue(path, out Entry? entry) ? entry.Stat : default;
            return entry is null ? -2 : 0;
        });
        stat = found;
        return result;
    }

    public GlusterResult Rename(nint volume, string from, string to) => Do("rename", $"{from} {to}", () =>
    {
        if (!Files.Remove(from, out Entry? file))
        {
            return -2;
        }
        Files[to] = file;
        return 0;
    });

    public GlusterResult Link(nint volume, string from, string to)
        => Do("link", $"{from} {to}", () => Files.TryAdd(to, Files[from]) ? 0 : -17);

    public GlusterResult Remove(nint volume, string path) => Do("remove", path, () => Files.Remove(path) ? 0 : -2);

    public GlusterResult SetMode(nint file, uint mode) => Do("mode", $"{mode:x}", () =>
    {
        _open[file].Mode = 0x8000 | mode;
        return 0;
    });

    public GlusterResult SetOwner(nint file, uint owner, uint group) => Do("owner", $"{owner}:{group}", () =>
    {
        (_open[file].Owner, _open[file].Group) = (owner, group);
        return 0;
    });

    private long Clear(nint file, long offset, long length)
    {
        byte[] bytes = _open[file].Bytes;
        bytes.AsSpan((int)Math.Min(offset, bytes.Length)..(int)Math.Min(bytes.Length, offset + length)).Clear();
        return 0;
    }

    private long Handle(Entry file)
    {
        Opened++;
        _open[++_last] = file;
        return _last;
    }

    private GlusterResult Do(string call, string with, Func<long> work)
    {
        Meanwhile(call);
        lock (_log)
        {
            _log.Add(new StringBuilder(call).Append(' ').Append(with).ToString().TrimEnd());
            int failure = Fail(call);
            long value = failure == 0 ? work() : -failure;
            return value < 0 ? new GlusterResult(-1, (int)-value) : new GlusterResult(value, 0);
        }
    }

    /// <summary>A file.</summary>
    internal sealed class Entry
    {
        public byte[] Bytes { get; set; } = [];

        public uint Mode { get; set; } = 0x81A4;

        public uint Owner { get; set; }

        public uint Group { get; set; }

        public ulong Inode { get; init; }

        public GlusterStat Stat => new(Mode, Owner, Group, Bytes.Length, (Bytes.Length + 511) / 512, 1_700_000_000, Inode);

        public void Grow(long length)
        {
            if (length > Bytes.Length)
            {
                byte[] bytes = Bytes;
                Array.Resize(ref bytes, (int)length);
                Bytes = bytes;
            }
        }
    }
}
