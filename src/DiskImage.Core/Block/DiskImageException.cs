namespace DiskImage.Block;

/// <summary>What went wrong, as a small stable classification. The cmdlet layer maps each kind to one error id and category.</summary>
public enum DiskImageErrorKind
{
    /// <summary>The host failed a request: device error, connection lost, file shrank while in use.</summary>
    Io,

    /// <summary>The host failed to write, to flush or to change a length: what was written may not be there.</summary>
    WriteFailed,

    /// <summary>No such file, folder, snapshot or driver.</summary>
    NotFound,

    /// <summary>The host refuses access to the file.</summary>
    AccessDenied,

    /// <summary>The target exists and replacing it was not asked for.</summary>
    AlreadyExists,

    /// <summary>Somebody else (QEMU, another session) is using the image in a way that excludes this use.</summary>
    Locked,

    /// <summary>The host has no room left: disk or quota full, or a file as large as it may become.</summary>
    NoSpace,

    /// <summary>The bytes are not what the format demands (never was, or was damaged beyond recognition).</summary>
    InvalidFormat,

    /// <summary>The image is of the format, but its structures contradict each other.</summary>
    Corrupt,

    /// <summary>A feature, format, protocol or version that this program does not have.</summary>
    Unsupported,

    /// <summary>A request lies outside the virtual disk, or a value outside its allowed range.</summary>
    OutOfRange,

    /// <summary>An option or parameter is unknown or has a value that is not allowed.</summary>
    InvalidOption,

    /// <summary>A change was asked of something opened read-only.</summary>
    ReadOnly,

    /// <summary>The image is encrypted, and what is asked needs its secret, which was not given.</summary>
    SecretRequired,

    /// <summary>The secret that was given is not one of the image's.</summary>
    WrongSecret,

    /// <summary>Policy refuses: a reference inside an image to something that the user did not allow it to open.</summary>
    Refused,
}

/// <summary>
/// The only exception that leaves the library for reasons that lie in images, files or requests.
/// <see cref="Exception.Message"/> tells a person what happened, the value found, what is allowed and what to do next. Names from
/// images stand in it, so it is <see cref="Printable"/>.
/// </summary>
public sealed class DiskImageException : IOException
{
    /// <summary>Makes an error of a kind, optionally tied to a path and a byte offset in it.</summary>
    public DiskImageException(DiskImageErrorKind kind, Wording message, string? path = null, long? offset = null, Exception? cause = null)
        : base(Printable.Of(message.ToString()), cause)
        => (Kind, Path, Offset, Wording) = (kind, path, offset, message);

    /// <summary>The message, and what it says can be done as values: front ends have their own words for that.</summary>
    public Wording Wording { get; }

    /// <summary>The stable classification.</summary>
    public DiskImageErrorKind Kind { get; }

    /// <summary>The image or file concerned, where one is.</summary>
    public string? Path { get; }

    /// <summary>The byte offset in <see cref="Path"/>, where one is.</summary>
    public long? Offset { get; }
}
