using System.Runtime.InteropServices;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>What a path leads to.</summary>
internal enum HostFileKind
{
    /// <summary>Nothing there.</summary>
    None,

    /// <summary>A regular file.</summary>
    Regular,

    /// <summary>A folder.</summary>
    Directory,

    /// <summary>A device: block or character device, <c>\\.\</c> name.</summary>
    Device,

    /// <summary>A pipe, socket or anything else that has no bytes at offsets.</summary>
    Other,
}

/// <summary>
/// What the host can do with an open file beyond positioned reads and writes. One implementation per operating system;
/// every member may answer "not here" and the caller then does without.
/// </summary>
internal abstract class HostFile
{
    /// <summary>The implementation for this machine.</summary>
    public static HostFile Current { get; } =
        OperatingSystem.IsWindows() ? new WindowsFile()
        : OperatingSystem.IsMacOS() ? new MacFile()
        : new LinuxFile();

    /// <summary>What <paramref name="path"/> leads to, symbolic links followed.</summary>
    public abstract HostFileKind KindOf(string path);

    /// <summary>Bytes of storage that the file takes; null if the host does not tell.</summary>
    public abstract long? AllocatedLength(SafeFileHandle handle);

    /// <summary>
    /// Tells whether <paramref name="offset"/> (below <paramref name="length"/>) lies in stored data or in a hole, and where that ends
    /// (at most <paramref name="length"/>). False if the host or file system cannot tell.
    /// </summary>
    public abstract bool TryFindExtent(SafeFileHandle handle, long offset, long length, out bool isData, out long end);

    /// <summary>Makes a range inside the file a hole that reads as zeroes. False if that is not to be had here.</summary>
    public abstract bool TryPunchHole(SafeFileHandle handle, long offset, long length);

    /// <summary>Makes a range inside the file read as zeroes while its space stays reserved. False if that is not to be had here.</summary>
    public abstract bool TryZeroRange(SafeFileHandle handle, long offset, long length);

    /// <summary>Reserves storage for a range without changing what it reads as; makes the file longer if it must. False if not to be had here.</summary>
    /// <exception cref="IOException">No space.</exception>
    public abstract bool TryAllocate(SafeFileHandle handle, long offset, long length);

    /// <summary>Allows holes in a new file, where that must be asked for.</summary>
    public virtual void AllowHoles(SafeFileHandle handle)
    {
    }

    /// <summary>
    /// Takes the marks "compressed" and "encrypted" off an empty file, which has them from its folder. Returns the handle to go on with;
    /// the one given is closed if it is another.
    /// </summary>
    /// <exception cref="IOException">It stays encrypted.</exception>
    public virtual SafeFileHandle WithoutMarks(string path, SafeFileHandle handle) => handle;

    /// <summary>Has an empty file's data overwritten in place. Does nothing where the file system never copies on write, or cannot be told.</summary>
    public virtual void DisableCopyOnWrite(SafeFileHandle handle)
    {
    }

    /// <summary>The library's error for a host error.</summary>
    public static DiskImageException Error(Exception cause, string path, string doing, long? offset = null)
    {
        (DiskImageErrorKind kind, string what) = cause switch
        {
            FileNotFoundException => (DiskImageErrorKind.NotFound, "it does not exist"),
            DirectoryNotFoundException => (DiskImageErrorKind.NotFound, "its folder does not exist"),
            UnauthorizedAccessException => (DiskImageErrorKind.AccessDenied, "access is denied"),
            PathTooLongException => (DiskImageErrorKind.NotFound, "the path is too long"),
            IOException io when IsFull(io.HResult) => (DiskImageErrorKind.NoSpace, "the disk is full"),
            IOException io when IsShared(io.HResult) => (DiskImageErrorKind.Locked, "another process is using it"),
            IOException io when IsExisting(io.HResult) => (DiskImageErrorKind.AlreadyExists, "it already exists"),
            _ => (DiskImageErrorKind.Io, cause.Message),
        };
        string where = offset is long at ? $" at offset {at:#,0}" : "";
        return new DiskImageException(kind, $"{path}: cannot {doing}{where}: {what}", path, offset, cause);
    }

    /// <summary>Reports the last native error of a call that is not allowed to fail.</summary>
    protected static IOException NativeError(string call)
    {
        int error = Marshal.GetLastPInvokeError();
        return new IOException($"{call}: {Marshal.GetPInvokeErrorMessage(error)}", error);
    }

    // HResult is errno on Unix, 0x8007xxxx on Windows.
    private static bool IsFull(int code) => code is 28 or 122 or 27 or unchecked((int)0x80070070) or unchecked((int)0x80070027);

    private static bool IsShared(int code) => code is 11 or 35 or unchecked((int)0x80070020) or unchecked((int)0x80070021);

    private static bool IsExisting(int code) => code is 17 or unchecked((int)0x80070050) or unchecked((int)0x800700B7);
}
