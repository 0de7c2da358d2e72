using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>The one table from a kind of error to what PowerShell's users match on: the id <c>DiskImage&lt;Kind&gt;</c> and a category.</summary>
internal static class DiskImageError
{
    public static ErrorRecord Record(DiskImageException error, object? target)
        => new(error, $"DiskImage{error.Kind}", Category(error.Kind), target ?? error.Path);

    private static ErrorCategory Category(DiskImageErrorKind kind) => kind switch
    {
        DiskImageErrorKind.NotFound => ErrorCategory.ObjectNotFound,
        DiskImageErrorKind.AccessDenied or DiskImageErrorKind.ReadOnly => ErrorCategory.PermissionDenied,
        DiskImageErrorKind.Refused => ErrorCategory.SecurityError,
        DiskImageErrorKind.AlreadyExists => ErrorCategory.ResourceExists,
        DiskImageErrorKind.Locked => ErrorCategory.ResourceBusy,
        DiskImageErrorKind.NoSpace or DiskImageErrorKind.WriteFailed => ErrorCategory.WriteError,
        DiskImageErrorKind.InvalidFormat or DiskImageErrorKind.Corrupt => ErrorCategory.InvalidData,
        DiskImageErrorKind.Unsupported => ErrorCategory.NotImplemented,
        DiskImageErrorKind.OutOfRange or DiskImageErrorKind.InvalidOption => ErrorCategory.InvalidArgument,
        _ => ErrorCategory.ReadError,
    };
}
