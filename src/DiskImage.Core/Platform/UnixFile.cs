using System.IO.Pipes;
using System.Runtime.InteropServices;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>
/// What Linux and macOS share: opening without waiting, flock(2) as the runtime takes it, byte locks that belong to the open file, holes
/// found with lseek, kinds told from st_mode.
/// </summary>
internal abstract partial class UnixFile : HostFile
{
    // Error numbers that are the same on Linux and macOS.
    private const int NotPermitted = 1, NoEntry = 2, Interrupted = 4, NoSuchAddress = 6, Denied = 13, Exists = 17, NotDirectory = 20;
    private const int IsDirectory = 21;
    private const int Busy = 26, FileTooLarge = 27, NoSpace = 28, ReadOnlyFileSystem = 30;
    private const int WriteOnly = 1, ReadWrite = 2; // O_WRONLY, O_RDWR
    private const int SetFlags = 4; // F_SETFL
    private const int FlockShared = 1, FlockExclusive = 2, FlockNow = 4, FlockRelease = 8; // LOCK_*
    private const int FileSizeSignal = 25; // SIGXFSZ

    private static readonly TimeSpan s_untilRead = TimeSpan.FromMilliseconds(20); // between two looks for a reader of a pipe. Ours

    private static PosixSignalRegistration? s_fileSizeSignal;

    /// <summary>SEEK_DATA and SEEK_HOLE have different numbers on different systems.</summary>
    protected abstract int SeekData { get; }

    /// <inheritdoc cref="SeekData"/>
    protected abstract int SeekHole { get; }

    /// <summary>O_NONBLOCK | O_NOCTTY | O_CLOEXEC.</summary>
    protected abstract int OpenFlags { get; }

    /// <summary>EAGAIN: somebody holds a lock or a lease.</summary>
    protected abstract int WouldBlock { get; }

    public override SafeFileHandle Open(string path, bool writable, HostSharing sharing)
    {
        int number;
        do
        {
            number = OpenFile(path, OpenFlags | (writable ? ReadWrite : 0));
        }
        while (number < 0 && Marshal.GetLastPInvokeError() == Interrupted);
        if (number < 0)
        {
            throw NativeError("open");
        }
        var handle = new SafeFileHandle(number, ownsHandle: true);
        _ = Control(handle, SetFlags, 0); // not waiting was for the opening
        int mode = sharing switch { HostSharing.Nobody => FlockExclusive, HostSharing.Readers => FlockShared, _ => 0 };
        // any other failure: no such locks here
        if (mode != 0 && Lock(handle, mode | FlockNow) < 0 && Marshal.GetLastPInvokeError() == WouldBlock)
        {
            IOException error = NativeError("flock");
            handle.Dispose();
            throw error;
        }
        return handle;
    }

    // Its folder is the user's alone, so nobody opens the file while it has a name.
    public override SafeFileHandle OpenTemporary()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("diskimage-");
        try
        {
            string path = Path.Combine(folder.FullName, "overlay");
            return File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    // A pipe that nobody reads yet cannot be opened without waiting, so this asks until somebody does. The runtime's own kind of pipe can
    // be told to stop while it waits for its reader.
    public override async ValueTask<Stream> OpenPipeAsync(string path, CancellationToken cancellationToken)
    {
        int number;
        while ((number = OpenFile(path, OpenFlags | WriteOnly)) < 0)
        {
            if (Marshal.GetLastPInvokeError() is not (NoSuchAddress or Interrupted))
            {
                throw NativeError("open");
            }
            await Task.Delay(s_untilRead, cancellationToken).ConfigureAwait(false);
        }
        return new AnonymousPipeClientStream(PipeDirection.Out, new SafePipeHandle(number, ownsHandle: true));
    }

    protected override void ReleaseLocks(SafeFileHandle handle) => _ = Lock(handle, FlockRelease);

    public override void SetLength(SafeFileHandle handle, long length)
    {
        if (CLibrary.SetLength(handle, length) < 0)
        {
            throw NativeError("ftruncate");
        }
    }

    public override void Flush(SafeFileHandle handle)
    {
        if (CLibrary.Flush(handle) < 0)
        {
            throw NativeError("fsync");
        }
    }

    // Handled, not ignored: a process that is started from here begins with the system's default again.
    public override void SurviveFileSizeLimit()
    {
        if (s_fileSizeSignal is null)
        {
            PosixSignalRegistration made = PosixSignalRegistration.Create(
                (PosixSignal)FileSizeSignal, static context => context.Cancel = true);
            if (Interlocked.CompareExchange(ref s_fileSizeSignal, made, null) is not null)
            {
                made.Dispose();
            }
        }
    }

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

    protected override (DiskImageErrorKind Kind, string What)? Meaning(int code) => code switch
    {
        NoEntry => (DiskImageErrorKind.NotFound, "there is no such file, or no such folder"),
        NotDirectory => (DiskImageErrorKind.NotFound, "a part of its path is not a folder"),
        Denied or NotPermitted => (DiskImageErrorKind.AccessDenied, "access is denied, to it or to a folder on its path"),
        ReadOnlyFileSystem => (DiskImageErrorKind.AccessDenied, "its file system can only be read"),
        IsDirectory => (DiskImageErrorKind.InvalidOption, "it is a folder, not a disk image"),
        NoSuchAddress => (DiskImageErrorKind.InvalidOption, "it is a pipe, socket or missing device, not a disk image"),
        Exists => (DiskImageErrorKind.AlreadyExists, "it already exists"),
        Busy => (DiskImageErrorKind.Locked, "it is a program that is running"),
        NoSpace => (DiskImageErrorKind.NoSpace, "the disk is full"),
        FileTooLarge => (DiskImageErrorKind.NoSpace, TooLarge),
        _ when code == WouldBlock => (DiskImageErrorKind.Locked, "another process is using it"),
        _ => null,
    };

    /// <summary>fcntl(2) with a number.</summary>
    protected abstract int Control(SafeFileHandle handle, int command, nint argument);

    /// <summary>What a lock request that failed means: taken, or not to be had here.</summary>
    protected ByteLockResult WhyNoLock()
        => Marshal.GetLastPInvokeError() is int error && (error == WouldBlock || error == Denied)
            ? ByteLockResult.Taken
            : ByteLockResult.Unsupported;

    /// <summary>The kind that an st_mode names.</summary>
    internal static HostFileKind KindOfMode(int mode) => (mode & 0xF000) switch
    {
        0x8000 => HostFileKind.Regular,
        0x4000 => HostFileKind.Directory,
        0x6000 or 0x2000 => HostFileKind.Device,
        0x1000 => HostFileKind.Pipe,
        _ => HostFileKind.Other,
    };

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int OpenFile(string path, int flags);

    [LibraryImport("libc", EntryPoint = "flock", SetLastError = true)]
    private static partial int Lock(SafeFileHandle handle, int operation);

    [LibraryImport("libc", EntryPoint = "lseek", SetLastError = true)]
    private static partial long Seek(SafeFileHandle handle, long offset, int whence);
}
