using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>What Linux and macOS share: holes found with lseek, kinds told from st_mode.</summary>
internal abstract partial class UnixFile : HostFile
{
    private const int NoSuchAddress = 6; // ENXIO: no data at or after the offset; the same number on Linux and macOS

    /// <summary>SEEK_DATA and SEEK_HOLE have different numbers on different systems.</summary>
    protected abstract int SeekData { get; }

    /// <inheritdoc cref="SeekData"/>
    protected abstract int SeekHole { get; }

    public override bool TryFindExtent(SafeFileHandle handle, long offset, long length, out bool isData, out long end)
    {
        (isData, end) = (true, length);
        long data = Seek(handle, offset, SeekData);
        if (data < 0)
        {
            isData = false;
            return Marshal.GetLastPInvokeError() == NoSuchAddress; // a hole to the end; anything else: cannot tell
        }
        if (data > offset)
        {
            (isData, end) = (false, Math.Min(data, length));
            return true;
        }
        long hole = Seek(handle, offset, SeekHole);
        end = Math.Min(hole < 0 ? length : hole, length);
        return hole > offset;
    }

    /// <summary>The kind that an st_mode names.</summary>
    internal static HostFileKind KindOfMode(int mode) => (mode & 0xF000) switch
    {
        0x8000 => HostFileKind.Regular,
        0x4000 => HostFileKind.Directory,
        0x6000 or 0x2000 => HostFileKind.Device,
        _ => HostFileKind.Other,
    };

    [LibraryImport("libc", EntryPoint = "lseek", SetLastError = true)]
    private static partial long Seek(SafeFileHandle handle, long offset, int whence);
}
