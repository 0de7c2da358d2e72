using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>A descriptor that stays open as long as this.</summary>
internal readonly ref struct BorrowedDescriptor
{
    private readonly SafeFileHandle _handle;

    public BorrowedDescriptor(SafeFileHandle handle)
    {
        bool isHeld = false;
        handle.DangerousAddRef(ref isHeld);
        (_handle, Number) = (handle, (int)handle.DangerousGetHandle());
    }

    /// <summary>It.</summary>
    public int Number { get; }

    /// <summary>Lets it go.</summary>
    public void Dispose() => _handle.DangerousRelease();
}
