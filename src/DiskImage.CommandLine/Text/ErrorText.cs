using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>What the system says of an error, for scripts that look for that; the rest as the library says it.</summary>
internal static class ErrorText
{
    /// <summary>In the words of Linux's strerror, where a kind of error is one number there.</summary>
    public static string Of(DiskImageException error) => error.Kind switch
    {
        DiskImageErrorKind.OutOfRange or DiskImageErrorKind.Io or DiskImageErrorKind.Corrupt or DiskImageErrorKind.WriteFailed
            => "Input/output error",
        DiskImageErrorKind.NoSpace => "No space left on device",
        DiskImageErrorKind.AccessDenied => "Permission denied",
        _ => RemedyOptions.Say(error),
    };

    /// <summary>Why an image does not open: QEMU's words for a wrong secret, the library's for the rest.</summary>
    public static string OfOpening(DiskImageException error) => error.Kind == DiskImageErrorKind.WrongSecret
        ? "Invalid password, cannot unlock any keyslot"
        : RemedyOptions.Say(error);
}
