using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>Windows: FSCTL_QUERY_ALLOCATED_RANGES, FSCTL_SET_ZERO_DATA, FSCTL_SET_SPARSE, file allocation size.</summary>
[SupportedOSPlatform("windows")]
internal sealed partial class WindowsFile : HostFile
{
    private const uint SetSparse = 0x000900C4, SetZeroData = 0x000980C8, QueryAllocatedRanges = 0x000940CF, SetCompression = 0x0009C040;
    private const int MoreData = 234, DiskFull = 112, HandleDiskFull = 39, AllocationInfo = 5, StandardInfo = 1;

    private const int NoBuffering = 0x2000_0000, LargestSector = 4096; // FILE_FLAG_NO_BUFFERING, which wants whole sectors
    private const uint DiskType = 1, CharacterType = 2; // FILE_TYPE_*

    public override HostFileKind KindOf(string path) => WindowsName.KindOf(path) switch
    {
        WindowsNameKind.Device => HostFileKind.Device,
        WindowsNameKind.Pipe => HostFileKind.Pipe, // not looked at: that would connect to it
        _ => File.Exists(path) ? HostFileKind.Regular : Directory.Exists(path) ? HostFileKind.Directory : HostFileKind.None,
    };

    public override ValueTask<Stream> OpenPipeAsync(string path, CancellationToken cancellationToken)
        => new(new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0, FileOptions.Asynchronous));

    public override HostFileKind KindOf(SafeFileHandle handle) => TypeOf(handle) switch
    {
        DiskType => HostFileKind.Regular,
        CharacterType => HostFileKind.Device,
        _ => HostFileKind.Other,
    };

    public override SafeFileHandle Open(string path, bool writable, HostSharing sharing)
        => Open(path, writable, sharing, FileOptions.None);

    // An open file cannot be changed so, and its own share mode keeps a second opening out.
    protected override OpenFile? BypassCache(string path, SafeFileHandle handle, bool writable, HostSharing sharing)
    {
        handle.Dispose();
        return new OpenFile(Open(path, writable, sharing, (FileOptions)NoBuffering), LargestSector, LargestSector);
    }

    public override void Flush(SafeFileHandle handle)
    {
        if (!FlushBuffers(handle))
        {
            int error = Marshal.GetLastPInvokeError();
            throw new IOException($"FlushFileBuffers: {Marshal.GetPInvokeErrorMessage(error)}", HResultOf(error));
        }
    }

    public override void SetLength(SafeFileHandle handle, long length) => RandomAccess.SetLength(handle, length);

    public override string? WhyNoNewFile(string path) => WindowsName.WhyNoNewFile(path);

    public override long? AllocatedLength(SafeFileHandle handle)
        => GetInformation(handle, StandardInfo, out FileStandardInfo info, (uint)Marshal.SizeOf<FileStandardInfo>())
            ? info.AllocationSize
            : null;

    public override bool TryFindExtent(SafeFileHandle handle, long offset, long length, out bool isData, out long end)
    {
        (isData, end) = (true, length);
        if (!TrustsHoles(File.GetAttributes(handle)))
        {
            return false;
        }
        var asked = new ByteRange { Start = offset, Second = length - offset };
        bool whole = ControlRange(
            handle,
            QueryAllocatedRanges,
            in asked,
            (uint)Marshal.SizeOf<ByteRange>(),
            out ByteRange found,
            (uint)Marshal.SizeOf<ByteRange>(),
            out uint returned,
            0);
        if (!whole && Marshal.GetLastPInvokeError() != MoreData)
        {
            return false;
        }
        if (returned == 0)
        {
            isData = false;
            return true;
        }
        isData = found.Start <= offset;
        end = Math.Min(length, isData ? found.Start + found.Second : found.Start);
        return end > offset;
    }

    /// <summary>
    /// False for a file whose contents are elsewhere in part (tiered storage, a cloud provider, any reparse point but a link, which is
    /// followed when it is opened): what is not stored here is no zeroes.
    /// </summary>
    internal static bool TrustsHoles(FileAttributes attributes)
    {
        const FileAttributes RecallOnOpen = (FileAttributes)0x0004_0000, RecallOnDataAccess = (FileAttributes)0x0040_0000;
        return (attributes & (FileAttributes.Offline | FileAttributes.ReparsePoint | RecallOnOpen | RecallOnDataAccess)) == 0;
    }

    public override bool TryPunchHole(SafeFileHandle handle, long offset, long length)
    {
        var range = new ByteRange { Start = offset, Second = offset + length };
        return Control(handle, SetZeroData, in range, (uint)Marshal.SizeOf<ByteRange>(), 0, 0, out _, 0);
    }

    // In a file without holes FSCTL_SET_ZERO_DATA keeps the space; in a sparse one it would give it back.
    public override bool TryZeroRange(SafeFileHandle handle, long offset, long length) => false;

    public override bool TryAllocate(SafeFileHandle handle, long offset, long length)
    {
        long end = checked(offset + length), current = RandomAccess.GetLength(handle);
        if (end > current) // an allocation smaller than the file would cut it
        {
            if (!SetInformation(handle, AllocationInfo, in end, sizeof(long)))
            {
                int error = Marshal.GetLastPInvokeError();
                return error is DiskFull or HandleDiskFull
                    ? throw new IOException($"SetFileInformationByHandle: {Marshal.GetPInvokeErrorMessage(error)}", HResultOf(error))
                    : false;
            }
            SetLength(handle, end);
        }
        return true;
    }

    public override void AllowHoles(SafeFileHandle handle) => _ = Control(handle, SetSparse, 0, 0, 0, 0, out _, 0);

    public override SafeFileHandle WithoutMarks(string path, SafeFileHandle handle)
    {
        const ushort None = 0; // COMPRESSION_FORMAT_NONE
        _ = ControlFormat(handle, SetCompression, None, sizeof(ushort), 0, 0, out _, 0);
        if ((File.GetAttributes(handle) & FileAttributes.Encrypted) == 0)
        {
            return handle;
        }
        handle.Dispose(); // a file in use is not decrypted
        File.Decrypt(path);
        return File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
    }

    protected override (DiskImageErrorKind Kind, string What)? Meaning(int code) => MeaningOf(code);

    /// <summary>What an error of Windows means, given as the runtime gives it: 0x8007 and the error's number.</summary>
    internal static (DiskImageErrorKind Kind, string What)? MeaningOf(int code) => (code & 0xFFFF) switch
    {
        _ when (code & 0xFFFF_0000) != 0x8007_0000 => null,
        32 or 33 => (DiskImageErrorKind.Locked, "another process is using it"), // ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION
        HandleDiskFull or DiskFull => (DiskImageErrorKind.NoSpace, "the disk is full"),
        1295 => (DiskImageErrorKind.NoSpace, OverQuota), // ERROR_DISK_QUOTA_EXCEEDED
        223 => (DiskImageErrorKind.NoSpace, TooLarge), // ERROR_FILE_TOO_LARGE
        19 => (DiskImageErrorKind.AccessDenied, "its disk can only be read"), // ERROR_WRITE_PROTECT
        123 => (DiskImageErrorKind.InvalidOption, "the name has characters that file names cannot have"), // ERROR_INVALID_NAME
        206 => (DiskImageErrorKind.InvalidOption, TooLong), // ERROR_FILENAME_EXCED_RANGE
        80 or 183 => (DiskImageErrorKind.AlreadyExists, "it already exists"), // ERROR_FILE_EXISTS, ERROR_ALREADY_EXISTS
        _ => null,
    };

    private static SafeFileHandle Open(string path, bool writable, HostSharing sharing, FileOptions options)
        => File.OpenHandle(
            path,
            FileMode.Open,
            writable ? FileAccess.ReadWrite : FileAccess.Read,
            sharing switch { HostSharing.Nobody => FileShare.None, HostSharing.Readers => FileShare.Read, _ => FileShare.ReadWrite },
            options);

    private static int HResultOf(int error) => unchecked((int)0x8007_0000) | error;

    [LibraryImport("kernel32", EntryPoint = "FlushFileBuffers", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool FlushBuffers(SafeFileHandle handle);

    [LibraryImport("kernel32", EntryPoint = "GetFileType", SetLastError = true)]
    private static partial uint TypeOf(SafeFileHandle handle);

    [LibraryImport("kernel32", EntryPoint = "DeviceIoControl", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool ControlFormat(
        SafeFileHandle handle,
        uint code,
        in ushort input,
        uint inputSize,
        nint output,
        uint outputSize,
        out uint returned,
        nint overlapped);

    [LibraryImport("kernel32", EntryPoint = "DeviceIoControl", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool ControlRange(
        SafeFileHandle handle,
        uint code,
        in ByteRange input,
        uint inputSize,
        out ByteRange output,
        uint outputSize,
        out uint returned,
        nint overlapped);

    [LibraryImport("kernel32", EntryPoint = "DeviceIoControl", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool Control(
        SafeFileHandle handle,
        uint code,
        in ByteRange input,
        uint inputSize,
        nint output,
        uint outputSize,
        out uint returned,
        nint overlapped);

    [LibraryImport("kernel32", EntryPoint = "DeviceIoControl", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool Control(
        SafeFileHandle handle, uint code, nint input, uint inputSize, nint output, uint outputSize, out uint returned, nint overlapped);

    [LibraryImport("kernel32", EntryPoint = "GetFileInformationByHandleEx", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool GetInformation(SafeFileHandle handle, int kind, out FileStandardInfo info, uint size);

    [LibraryImport("kernel32", EntryPoint = "SetFileInformationByHandle", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool SetInformation(SafeFileHandle handle, int kind, in long allocationSize, uint size);

    /// <summary>FILE_ALLOCATED_RANGE_BUFFER (offset, length) and FILE_ZERO_DATA_INFORMATION (offset, offset past the end).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ByteRange
    {
        public long Start, Second;
    }

    /// <summary>FILE_STANDARD_INFO.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct FileStandardInfo
    {
        public long AllocationSize, EndOfFile;
        public uint Links;
        public byte DeletePending, Directory;
    }
}
