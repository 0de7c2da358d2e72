using System.Runtime.InteropServices;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>
/// Memory between two pages that nobody may touch (Linux and macOS; elsewhere plain memory): reading or writing outside ends the
/// test run instead of going unnoticed.
/// </summary>
internal sealed unsafe partial class GuardedMemory : IDisposable
{
    private const int NoAccess = 0, ReadWrite = 3, Private = 2;
    private readonly byte* _base;
    private readonly nuint _page, _total;
    private readonly bool _guarded;

    public GuardedMemory(int capacity)
    {
        _page = (nuint)Environment.SystemPageSize;
        Capacity = (int)(((nuint)capacity + _page - 1) / _page * _page);
        _total = (nuint)Capacity + (2 * _page);
        _guarded = !OperatingSystem.IsWindows();
        if (!_guarded)
        {
            _base = (byte*)NativeMemory.AllocZeroed(_total);
            return;
        }
        _base = (byte*)Map(null, _total, ReadWrite, Private | (OperatingSystem.IsMacOS() ? 0x1000 : 0x20), -1, 0);
        Assert.True((nint)_base != -1, "no memory");
        Assert.Equal(0, Protect(_base, _page, NoAccess));
        Assert.Equal(0, Protect(_base + _page + Capacity, _page, NoAccess));
    }

    public int Capacity { get; }

    /// <summary>Bytes that end where the memory ends.</summary>
    public Span<byte> Last(int length) => new(_base + _page + Capacity - length, length);

    /// <summary>Bytes that begin where the memory begins.</summary>
    public Span<byte> First(int length) => new(_base + _page, length);

    public void Dispose()
    {
        if (_guarded)
        {
            _ = Unmap(_base, _total);
        }
        else
        {
            NativeMemory.Free(_base);
        }
    }

    [LibraryImport("libc", EntryPoint = "mmap")]
    private static partial void* Map(void* address, nuint length, int protection, int flags, int file, nint offset);

    [LibraryImport("libc", EntryPoint = "mprotect")]
    private static partial int Protect(void* address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "munmap")]
    private static partial int Unmap(void* address, nuint length);
}
