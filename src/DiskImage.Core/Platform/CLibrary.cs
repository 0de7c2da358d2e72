using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>
/// The calls that decide whether data is safe, in the C library as this process resolves it: what a user preloads over them (to trace them,
/// to let them fail) is called here as it is by any other program. An import by library name would pass it by.
/// </summary>
/// <remarks>Each sets the last native error. Descriptors are ints and offsets 64 bits on all systems that the module runs on.</remarks>
internal static unsafe class CLibrary
{
    private const int Interrupted = 4; // EINTR

    private static readonly delegate* unmanaged<int, int> s_flush = (delegate* unmanaged<int, int>)Find("fsync");
    private static readonly delegate* unmanaged<int, long, int> s_setLength = (
        delegate* unmanaged<int, long, int>)Find("ftruncate64", "ftruncate");

    /// <summary>fsync(2); less than 0 if it failed.</summary>
    public static int Flush(SafeFileHandle handle)
    {
        using var borrowed = new BorrowedDescriptor(handle);
        int result;
        do
        {
            result = s_flush(borrowed.Number);
        }
        while (Failed(result) == Interrupted);
        return result;
    }

    /// <summary>ftruncate(2); less than 0 if it failed.</summary>
    public static int SetLength(SafeFileHandle handle, long length)
    {
        using var borrowed = new BorrowedDescriptor(handle);
        int result;
        do
        {
            result = s_setLength(borrowed.Number, length);
        }
        while (Failed(result) == Interrupted);
        return result;
    }

    /// <summary>Linux's fallocate(2); less than 0 if it failed.</summary>
    public static int Allocate(SafeFileHandle handle, int mode, long offset, long length)
    {
        using var borrowed = new BorrowedDescriptor(handle);
        int result;
        do
        {
            result = Linux.Allocate(borrowed.Number, mode, offset, length);
        }
        while (Failed(result) == Interrupted);
        return result;
    }

    private static nint Find(params string[] names)
    {
        nint process = NativeLibrary.GetMainProgramHandle();
        foreach (string name in names)
        {
            if (NativeLibrary.TryGetExport(process, name, out nint function))
            {
                return function;
            }
        }
        throw new EntryPointNotFoundException(names[^1]);
    }

    /// <summary>Keeps the error of a call that failed; 0 if it did not.</summary>
    private static int Failed(int result)
    {
        int error = result < 0 ? Marshal.GetLastSystemError() : 0;
        Marshal.SetLastPInvokeError(error);
        return error;
    }

    /// <summary>What only Linux has, looked for when it is first called.</summary>
    private static class Linux
    {
        private static readonly delegate* unmanaged<int, int, long, long, int> s_allocate
            = (delegate* unmanaged<int, int, long, long, int>)Find("fallocate64", "fallocate");

        public static int Allocate(int descriptor, int mode, long offset, long length) => s_allocate(descriptor, mode, offset, length);
    }
}
