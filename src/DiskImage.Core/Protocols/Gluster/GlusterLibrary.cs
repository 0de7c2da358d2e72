using System.Buffers.Binary;
using System.Runtime.InteropServices;
using DiskImage.Block;

namespace DiskImage.Protocols.Gluster;

/// <summary>The system's libgfapi, loaded when it is asked for first.</summary>
/// <remarks>
/// Functions whose signature changed with 6.0 are had in their newest version, which is what a look-up without a version gives. An older
/// library has no <c>glfs_copy_file_range</c>, and is refused.
/// </remarks>
internal sealed unsafe class GlusterLibrary : IGlusterLibrary
{
    private const int StatRoom = 256; // more than struct stat has anywhere
    private const int StatSize = 48, StatBlocks = 64, StatModified = 88; // on x86-64 and ARM64 alike

    private static readonly string[] s_names = ["libgfapi.so.0", "libgfapi.so"];
    private static readonly Lazy<GlusterLibrary> s_current = new(Load, LazyThreadSafetyMode.PublicationOnly);

    private readonly delegate* unmanaged<byte*, nint> _new;
    private readonly delegate* unmanaged<nint, byte*, byte*, int, int> _addServer;
    private readonly delegate* unmanaged<nint, byte*, int, int> _log;
    private readonly delegate* unmanaged<nint, int> _connect, _end, _close;
    private readonly delegate* unmanaged<nint, byte*, int, nint> _open;
    private readonly delegate* unmanaged<nint, byte*, int, uint, nint> _create;
    private readonly delegate* unmanaged<nint, byte*, nuint, long, int, nint, nint> _read;
    private readonly delegate* unmanaged<nint, byte*, nuint, long, int, nint, nint, nint> _write;
    private readonly delegate* unmanaged<nint, long, int, long> _seek;
    private readonly delegate* unmanaged<nint, long, nint, nint, int> _setLength;
    private readonly delegate* unmanaged<nint, nint, nint, int> _flush;
    private readonly delegate* unmanaged<nint, int, long, nuint, int> _allocate;
    private readonly delegate* unmanaged<nint, long, nuint, int> _discard;
    private readonly delegate* unmanaged<nint, long, long, int> _zero;
    private readonly delegate* unmanaged<nint, byte*, int> _statFile;
    private readonly delegate* unmanaged<nint, byte*, byte*, int> _stat, _statLink, _rename, _link;
    private readonly delegate* unmanaged<nint, byte*, int> _remove;
    private readonly delegate* unmanaged<nint, uint, int> _setMode;
    private readonly delegate* unmanaged<nint, uint, uint, int> _setOwner;

    private GlusterLibrary(nint library)
    {
        nint Find(string name) => NativeLibrary.GetExport(library, name);
        _ = Find("glfs_copy_file_range"); // 6.0
        _new = (delegate* unmanaged<byte*, nint>)Find("glfs_new");
        _addServer = (delegate* unmanaged<nint, byte*, byte*, int, int>)Find("glfs_set_volfile_server");
        _log = (delegate* unmanaged<nint, byte*, int, int>)Find("glfs_set_logging");
        _connect = (delegate* unmanaged<nint, int>)Find("glfs_init");
        _end = (delegate* unmanaged<nint, int>)Find("glfs_fini");
        _close = (delegate* unmanaged<nint, int>)Find("glfs_close");
        _open = (delegate* unmanaged<nint, byte*, int, nint>)Find("glfs_open");
        _create = (delegate* unmanaged<nint, byte*, int, uint, nint>)Find("glfs_creat");
        _read = (delegate* unmanaged<nint, byte*, nuint, long, int, nint, nint>)Find("glfs_pread");
        _write = (delegate* unmanaged<nint, byte*, nuint, long, int, nint, nint, nint>)Find("glfs_pwrite");
        _seek = (delegate* unmanaged<nint, long, int, long>)Find("glfs_lseek");
        _setLength = (delegate* unmanaged<nint, long, nint, nint, int>)Find("glfs_ftruncate");
        _flush = (delegate* unmanaged<nint, nint, nint, int>)Find("glfs_fsync");
        _allocate = (delegate* unmanaged<nint, int, long, nuint, int>)Find("glfs_fallocate");
        _discard = (delegate* unmanaged<nint, long, nuint, int>)Find("glfs_discard");
        _zero = (delegate* unmanaged<nint, long, long, int>)Find("glfs_zerofill");
        _statFile = (delegate* unmanaged<nint, byte*, int>)Find("glfs_fstat");
        _stat = (delegate* unmanaged<nint, byte*, byte*, int>)Find("glfs_stat");
        _statLink = (delegate* unmanaged<nint, byte*, byte*, int>)Find("glfs_lstat");
        _rename = (delegate* unmanaged<nint, byte*, byte*, int>)Find("glfs_rename");
        _link = (delegate* unmanaged<nint, byte*, byte*, int>)Find("glfs_link");
        _remove = (delegate* unmanaged<nint, byte*, int>)Find("glfs_unlink");
        _setMode = (delegate* unmanaged<nint, uint, int>)Find("glfs_fchmod");
        _setOwner = (delegate* unmanaged<nint, uint, uint, int>)Find("glfs_fchown");
    }

    /// <summary>The library of this system.</summary>
    /// <exception cref="DiskImageException">Unsupported: it is not Linux, or the library is missing or too old.</exception>
    public static GlusterLibrary Current => s_current.Value;

    public nint New(string volume)
    {
        fixed (byte* text = Text(volume))
        {
            return _new(text);
        }
    }

    public GlusterResult AddServer(nint volume, string transport, string host, int port)
    {
        fixed (byte* kind = Text(transport))
        fixed (byte* where = Text(host))
        {
            return Of(_addServer(volume, kind, where, port));
        }
    }

    public GlusterResult Log(nint volume, string path, int level)
    {
        fixed (byte* text = Text(path))
        {
            return Of(_log(volume, text, level));
        }
    }

    public GlusterResult Connect(nint volume)
    {
        int result = _connect(volume);
        return Of(result == 0 ? 0 : -1); // it may fail with a number above 0
    }

    public GlusterResult End(nint volume) => Of(_end(volume));

    public GlusterResult Open(nint volume, string path, int flags)
    {
        fixed (byte* text = Text(path))
        {
            return OfHandle(_open(volume, text, flags));
        }
    }

    public GlusterResult Create(nint volume, string path, int flags, uint mode)
    {
        fixed (byte* text = Text(path))
        {
            return OfHandle(_create(volume, text, flags, mode));
        }
    }

    public GlusterResult Close(nint file) => Of(_close(file));

    public GlusterResult Read(nint file, Span<byte> buffer, long offset)
    {
        fixed (byte* bytes = buffer)
        {
            return Of(_read(file, bytes, (nuint)buffer.Length, offset, 0, 0));
        }
    }

    public GlusterResult Write(nint file, ReadOnlySpan<byte> bytes, long offset)
    {
        fixed (byte* from = bytes)
        {
            return Of(_write(file, from, (nuint)bytes.Length, offset, 0, 0, 0));
        }
    }

    public GlusterResult Seek(nint file, long offset, int whence) => Of(_seek(file, offset, whence));

    public GlusterResult SetLength(nint file, long length) => Of(_setLength(file, length, 0, 0));

    public GlusterResult Flush(nint file) => Of(_flush(file, 0, 0));

    public GlusterResult Allocate(nint file, long offset, long length) => Of(_allocate(file, 0, offset, (nuint)length));

    public GlusterResult Discard(nint file, long offset, long length) => Of(_discard(file, offset, (nuint)length));

    public GlusterResult Zero(nint file, long offset, long length) => Of(_zero(file, offset, length));

    public GlusterResult Stat(nint file, out GlusterStat stat)
    {
        byte* room = stackalloc byte[StatRoom];
        GlusterResult result = Of(_statFile(file, room));
        stat = StatOf(new ReadOnlySpan<byte>(room, StatRoom));
        return result;
    }

    public GlusterResult Stat(nint volume, string path, bool follows, out GlusterStat stat)
    {
        byte* room = stackalloc byte[StatRoom];
        fixed (byte* text = Text(path))
        {
            GlusterResult result = Of(follows ? _stat(volume, text, room) : _statLink(volume, text, room));
            stat = StatOf(new ReadOnlySpan<byte>(room, StatRoom));
            return result;
        }
    }

    public GlusterResult Rename(nint volume, string from, string to)
    {
        fixed (byte* old = Text(from))
        fixed (byte* made = Text(to))
        {
            return Of(_rename(volume, old, made));
        }
    }

    public GlusterResult Link(nint volume, string from, string to)
    {
        fixed (byte* old = Text(from))
        fixed (byte* made = Text(to))
        {
            return Of(_link(volume, old, made));
        }
    }

    public GlusterResult Remove(nint volume, string path)
    {
        fixed (byte* text = Text(path))
        {
            return Of(_remove(volume, text));
        }
    }

    public GlusterResult SetMode(nint file, uint mode) => Of(_setMode(file, mode));

    public GlusterResult SetOwner(nint file, uint owner, uint group) => Of(_setOwner(file, owner, group));

    private static GlusterLibrary Load()
    {
        if (!OperatingSystem.IsLinux() || RuntimeInformation.ProcessArchitecture is not (Architecture.X64 or Architecture.Arm64))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                "GlusterFS is reached by its library libgfapi, which is had on Linux, on x86-64 and ARM64. On other systems mount the "
                    + "volume, and name the file.");
        }
        foreach (string name in s_names)
        {
            if (NativeLibrary.TryLoad(name, out nint library))
            {
                try
                {
                    return new GlusterLibrary(library);
                }
                catch (EntryPointNotFoundException e)
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Unsupported,
                        $"GlusterFS is reached by its library, and this system's {name} is too old: {e.Message}. Version 6 or later is "
                            + "needed.",
                        cause: e);
                }
            }
        }
        throw new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"GlusterFS is reached by its library {s_names[0]}, which is not there. It comes with the packages libgfapi0 and "
                + "glusterfs-common of Debian and Ubuntu, glusterfs-api of Fedora and others.");
    }

    private static byte[] Text(string text)
    {
        byte[] bytes = new byte[System.Text.Encoding.UTF8.GetByteCount(text) + 1];
        _ = System.Text.Encoding.UTF8.GetBytes(text, bytes);
        return bytes;
    }

    private static GlusterResult Of(long value) => new(value, value < 0 ? Marshal.GetLastSystemError() : 0);

    private static GlusterResult OfHandle(nint handle) => new(handle == 0 ? -1 : handle, handle == 0 ? Marshal.GetLastSystemError() : 0);

    private static GlusterStat StatOf(ReadOnlySpan<byte> stat)
    {
        int mode = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 24 : 16;
        int owner = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 28 : 24;
        return new GlusterStat(
            BinaryPrimitives.ReadUInt32LittleEndian(stat[mode..]),
            BinaryPrimitives.ReadUInt32LittleEndian(stat[owner..]),
            BinaryPrimitives.ReadUInt32LittleEndian(stat[(owner + 4)..]),
            BinaryPrimitives.ReadInt64LittleEndian(stat[StatSize..]),
            BinaryPrimitives.ReadInt64LittleEndian(stat[StatBlocks..]),
            BinaryPrimitives.ReadInt64LittleEndian(stat[StatModified..]),
            BinaryPrimitives.ReadUInt64LittleEndian(stat[8..]));
    }
}
