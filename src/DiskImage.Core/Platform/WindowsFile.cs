using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>Windows: FSCTL_QUERY_ALLOCATED_RANGES, FSCTL_SET_ZERO_DATA, FSCTL_SET_SPARSE, file allocation size.</summary>
[SupportedOSPlatform("windows")]
internal sealed partial class WindowsFile : HostFile
{
    private const uint SetSparse = 0x000900C4, SetZeroData = 0x000980C8, QueryAllocatedRanges = 0x000940CF, SetCompression = 0x0009C040;
    private const int MoreData = 234, DiskFull = 112, AllocationInfo = 5, StandardInfo = 1;

    public override HostFileKind KindOf(string path)
    {
        if (path.StartsWith(@"\\.\", StringComparison.Ordinal) || path.StartsWith(@"\\?\GLOBALROOT\", StringComparison.OrdinalIgnoreCase))
        {
            return path.StartsWith(@"\\.\pipe\", StringComparison.OrdinalIgnoreCase) ? HostFileKind.Other : HostFileKind.Device;
        }
        return File.Exists(path) ? HostFileKind.Regular : Directory.Exists(path) ? HostFileKind.Directory : HostFileKind.None;
    }

    public override long? AllocatedLength(SafeFileHandle handle)
        => GetInformation(handle, StandardInfo, out FileStandardInfo info, (uint)Marshal.SizeOf<FileStandardInfo>()) ? info.AllocationSize : null;

    public override bool TryFindExtent(SafeFileHandle handle, long offset, long length, out bool isData, out long end)
    {
        (isData, end) = (true, length);
        var asked = new ByteRange { Start = offset, Second = length - offset };
        bool whole = ControlRange(
            handle, QueryAllocatedRanges, in asked, (uint)Marshal.SizeOf<ByteRange>(), out ByteRange found, (uint)Marshal.SizeOf<ByteRange>(), out uint returned, 0);
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
        if (end > current)
        {
            if (!SetInformation(handle, AllocationInfo, in end, sizeof(long)))
            {
                return Marshal.GetLastPInvokeError() == DiskFull ? throw NativeError("SetFileInformationByHandle") : false;
            }
            RandomAccess.SetLength(handle, end);
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

    [LibraryImport("kernel32", EntryPoint = "DeviceIoControl", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool ControlFormat(
        SafeFileHandle handle, uint code, in ushort input, uint inputSize, nint output, uint outputSize, out uint returned, nint overlapped);

    [LibraryImport("kernel32", EntryPoint = "DeviceIoControl", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool ControlRange(
        SafeFileHandle handle, uint code, in ByteRange input, uint inputSize, out ByteRange output, uint outputSize, out uint returned, nint overlapped);

    [LibraryImport("kernel32", EntryPoint = "DeviceIoControl", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool Control(
        SafeFileHandle handle, uint code, in ByteRange input, uint inputSize, nint output, uint outputSize, out uint returned, nint overlapped);

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
