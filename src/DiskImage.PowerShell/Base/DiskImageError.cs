using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>
/// The one table from a kind of error to what PowerShell's users match on: the id <c>DiskImage&lt;Kind&gt;</c> and a category.
/// </summary>
internal static class DiskImageError
{
    /// <summary>The id of what no kind stands for: a fault of this program.</summary>
    public const string UnexpectedId = "DiskImageUnexpected";

    /// <summary>The record of an error.</summary>
    /// <param name="error">What was thrown.</param>
    /// <param name="target">What was being worked on; the file concerned if null.</param>
    public static ErrorRecord Record(Exception error, object? target)
    {
        target = target is string url && url.Contains("://", StringComparison.Ordinal) ? Printable.Of(url) : target; // no password
        if (error is PSInvalidOperationException) // the host's, which cannot ask
        {
            error = new DiskImageException(
                DiskImageErrorKind.Refused,
                $"{target}: is asked about first, and nobody can be asked here ({error.Message}) Nothing is done. "
                    + "-Confirm:$false has it done unasked.",
                cause: error);
        }
        return error is DiskImageException known
            ? new(InWords(known), $"DiskImage{known.Kind}", Category(known.Kind), target ?? known.Path)
            : new(
                new InvalidOperationException(
                    Printable.Of($"{target}: a fault of this program ({error.GetType().Name}): {error.Message}"), error),
                UnexpectedId, ErrorCategory.NotSpecified, target);
    }

    private static DiskImageException InWords(DiskImageException error)
        => error.Wording.Remedies.Any() ? new(error.Kind, RemedyWords.Say(error), error.Path, error.Offset, error) : error;

    private static ErrorCategory Category(DiskImageErrorKind kind) => kind switch
    {
        DiskImageErrorKind.NotFound => ErrorCategory.ObjectNotFound,
        DiskImageErrorKind.AccessDenied or DiskImageErrorKind.ReadOnly => ErrorCategory.PermissionDenied,
        DiskImageErrorKind.SecretRequired or DiskImageErrorKind.WrongSecret => ErrorCategory.AuthenticationError,
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
