using System.Runtime.InteropServices;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

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

    /// <summary>What is open: tells a pipe from a file where the path's answer may have changed since.</summary>
    public abstract HostFileKind KindOf(SafeFileHandle handle);

    /// <summary>
    /// Opens what a path leads to, without ever waiting for another process: a pipe opens at once, or fails. Says nothing of its kind; ask
    /// <see cref="KindOf(SafeFileHandle)"/>.
    /// </summary>
    /// <exception cref="IOException">With the host's error code; or UnauthorizedAccessException and its like, as the runtime
    /// throws them.</exception>
    public abstract SafeFileHandle Open(string path, bool writable, HostSharing sharing);

    /// <summary>
    /// Makes an empty file for a while, which no other user may open: it is gone when it is closed. Here it has a name until then; a host
    /// where an open file needs none takes it away at once.
    /// </summary>
    /// <exception cref="IOException">As <see cref="Open"/>.</exception>
    public virtual SafeFileHandle OpenTemporary() => File.OpenHandle(
        Path.Combine(Path.GetTempPath(), Path.GetRandomFileName()),
        FileMode.CreateNew,
        FileAccess.ReadWrite,
        FileShare.None,
        FileOptions.DeleteOnClose);

    /// <summary>Opens a pipe to write to, once somebody reads it. What is read no more fails to be written.</summary>
    /// <exception cref="IOException">As <see cref="Open"/>.</exception>
    public abstract ValueTask<Stream> OpenPipeAsync(string path, CancellationToken cancellationToken);

    /// <summary>Makes what was written to the file so far survive a power cut.</summary>
    /// <exception cref="IOException">It may not: the host reports a failure once, and may have dropped what it could not write.</exception>
    public abstract void Flush(SafeFileHandle handle);

    /// <summary>Makes a file longer, by a hole, or shorter.</summary>
    /// <exception cref="IOException">With the host's error code.</exception>
    public abstract void SetLength(SafeFileHandle handle, long length);

    /// <summary>
    /// Closes an open file, its locks first: closing alone does not give them up while a program that is just being started still holds the
    /// descriptor it inherits.
    /// </summary>
    public void Close(SafeFileHandle handle)
    {
        if (!handle.IsClosed)
        {
            ReleaseLocks(handle);
            handle.Dispose();
        }
    }

    /// <summary>Gives up all locks of an open file.</summary>
    protected virtual void ReleaseLocks(SafeFileHandle handle)
    {
    }

    /// <summary>
    /// Takes a shared lock on one byte for this open file: other open files, in this process too, can share it but not lock it alone.
    /// </summary>
    public virtual ByteLockResult LockByte(SafeFileHandle handle, long offset) => ByteLockResult.Unsupported;

    /// <summary>
    /// The host has only locks that belong to the process: they are lost when it closes any opening of the file, and do not stand between
    /// openings of its own. Known once a lock was asked for.
    /// </summary>
    public virtual bool LocksEndWithAnyClose => false;

    /// <summary>Whether another open file holds a lock on a byte. Changes nothing.</summary>
    public virtual ByteLockResult ProbeByte(SafeFileHandle handle, long offset) => ByteLockResult.Unsupported;

    /// <summary>Has a write past the limit that the session sets for files fail (file too large) instead of ending the process.</summary>
    public virtual void SurviveFileSizeLimit()
    {
    }

    /// <summary>Has reads and writes of an open file go past the host's cache. The handle is closed if it fails.</summary>
    /// <param name="path">The file.</param>
    /// <param name="name">What it is called in messages.</param>
    /// <param name="handle">The open file.</param>
    /// <param name="writable">It is open for writing.</param>
    /// <param name="sharing">What others may do meanwhile.</param>
    /// <exception cref="DiskImageException">Unsupported: not to be had there; what the host says.</exception>
    public OpenFile GoRoundCache(string path, string name, SafeFileHandle handle, bool writable, HostSharing sharing)
    {
        try
        {
            return BypassCache(path, handle, writable, sharing) ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{name}: cannot be used past the host's cache, which cache modes 'none' and 'directsync' ask for. Use writeback or "
                    + $"writethrough.",
                name);
        }
        catch (Exception e)
        {
            Close(handle);
            throw e is IOException or UnauthorizedAccessException ? Error(e, name, "open it past the cache") : e;
        }
    }

    /// <summary>
    /// Has reads and writes of an open file go past the host's cache. Null if that is not to be had here; the handle stays as it was.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="handle">The open file. Where another one comes back this is closed.</param>
    /// <param name="writable">It is open for writing.</param>
    /// <param name="sharing">What others may do meanwhile.</param>
    /// <exception cref="IOException">It was closed and cannot be opened again.</exception>
    protected abstract OpenFile? BypassCache(string path, SafeFileHandle handle, bool writable, HostSharing sharing);

    /// <summary>Why a new file cannot bear a name: a reserved one, for example. Null if it can.</summary>
    public virtual string? WhyNoNewFile(string path) => null;

    /// <summary>Bytes of storage that the file takes; null if the host does not tell.</summary>
    public abstract long? AllocatedLength(SafeFileHandle handle);

    /// <summary>
    /// Tells whether <paramref name="offset"/> (below <paramref name="length"/>) lies in stored data or in a hole, and where that ends
    /// (at most <paramref name="length"/>). False if the host or file system cannot tell.
    /// </summary>
    public abstract bool TryFindExtent(SafeFileHandle handle, long offset, long length, out bool isData, out long end);

    /// <summary>True if files of their file systems may share storage.</summary>
    public virtual bool MayShare(SafeFileHandle one, SafeFileHandle other) => false;

    /// <summary>
    /// Has a range of a file share its storage with one of another, which stays as it is; the file becomes longer if it must. False if that
    /// is not to be had there, and then nothing is changed.
    /// </summary>
    public virtual bool TryShare(SafeFileHandle source, long sourceOffset, SafeFileHandle target, long offset, long length) => false;

    /// <summary>
    /// Has the host copy a range from one file to another. Returns how many bytes it did; 0 if that is not to be had there.
    /// </summary>
    /// <exception cref="IOException">No space, or the host cannot read or write.</exception>
    public virtual long Move(SafeFileHandle source, long sourceOffset, SafeFileHandle target, long offset, long length) => 0;

    /// <summary>Makes a range inside the file a hole that reads as zeroes. False if that is not to be had here.</summary>
    public abstract bool TryPunchHole(SafeFileHandle handle, long offset, long length);

    /// <summary>Makes a range inside the file read as zeroes while its space stays reserved. False if that is not to be had here.</summary>
    public abstract bool TryZeroRange(SafeFileHandle handle, long offset, long length);

    /// <summary>
    /// Reserves storage for a range without changing what it reads as; makes the file longer if it must. False if not to be had here.
    /// </summary>
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

    /// <summary>
    /// Has an empty file's data overwritten in place. Does nothing where the file system never copies on write, or cannot be told.
    /// </summary>
    public virtual void DisableCopyOnWrite(SafeFileHandle handle)
    {
    }

    /// <summary>The library's error for a host error.</summary>
    /// <param name="cause">What the runtime or this class threw.</param>
    /// <param name="path">The file.</param>
    /// <param name="doing">What was tried: "cannot …".</param>
    /// <param name="offset">Where in the file.</param>
    /// <param name="otherwise">The kind of an error that is no special one.</param>
    public static DiskImageException Error(
        Exception cause, string path, string doing, long? offset = null, DiskImageErrorKind otherwise = DiskImageErrorKind.Io)
    {
        (DiskImageErrorKind kind, string what) = cause switch
        {
            FileNotFoundException => (DiskImageErrorKind.NotFound, "it does not exist"),
            DirectoryNotFoundException => (DiskImageErrorKind.NotFound, "its folder does not exist"),
            UnauthorizedAccessException => (DiskImageErrorKind.AccessDenied, "access is denied"),
            PathTooLongException => (DiskImageErrorKind.InvalidOption, TooLong),
            // so the runtime says EFBIG, and too large a length on Windows
            ArgumentOutOfRangeException => (DiskImageErrorKind.NoSpace, TooLarge),
            ArgumentException or NotSupportedException => (DiskImageErrorKind.InvalidOption, "no file of this system can have that name"),
            IOException io when Current.Meaning(io.HResult) is { } meaning => meaning,
            _ => (otherwise, WithoutPath(cause.Message)),
        };
        string where = offset is long at ? $" at offset {at:#,0}" : "";
        return new DiskImageException(kind, $"{path}: cannot {doing}{where}: {what}", path, offset, cause);
    }

    /// <summary>
    /// The runtime adds the name that a file was opened by, <c> : 'NAME'</c>. A file that is being made has one that
    /// means nothing to the user.
    /// </summary>
    private static string WithoutPath(string message)
        => message.LastIndexOf(" : '", StringComparison.Ordinal) is var at and > 0 && message[^1] == '\'' ? message[..at] : message;

    /// <summary>What is said of a path, or of one of its parts, that is longer than the host allows.</summary>
    protected const string TooLong = "the path, or one of the names in it, is longer than this system allows";

    /// <summary>What is said where a file may not become so large.</summary>
    protected const string TooLarge = "that is more than its file system, or a limit set for this session, allows for one file";

    /// <summary>What is said where the user's share of the disk is used up.</summary>
    protected const string OverQuota = "your quota on this disk is used up";

    /// <summary>What an error code of the host, as <see cref="Exception.HResult"/>, means; null for one that is no special case.</summary>
    protected abstract (DiskImageErrorKind Kind, string What)? Meaning(int code);

    /// <summary>The last native error.</summary>
    protected static IOException NativeError(string call)
    {
        int error = Marshal.GetLastPInvokeError();
        return new IOException($"{call}: {Marshal.GetPInvokeErrorMessage(error)}", error);
    }
}
