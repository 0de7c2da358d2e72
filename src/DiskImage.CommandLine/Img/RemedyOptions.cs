using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>How users of qemu-img do what the library says can be done.</summary>
internal static class RemedyOptions
{
    /// <summary>A text of the library with qemu-img's options in it, fit to be shown.</summary>
    public static string Say(Wording text) => Printable.Of(text.Say(Of));

    /// <summary>The message of an error, likewise. Of a file that is not there, what scripts look for: the system's words.</summary>
    public static string Say(DiskImageException error)
    {
        const string Missing = "No such file or directory";
        return IsMissing(error) ? Missing
            : error.InnerException is DiskImageException below && IsMissing(below)
                && error.Wording.ToString().Contains(" its backing file ", StringComparison.Ordinal)
            ? $"Could not open backing file: Could not open '{Printable.Of(below.Path ?? "")}': {Missing}"
            : Say(error.Wording);

        static bool IsMissing(DiskImageException error) => error.Kind == DiskImageErrorKind.NotFound
            && error.Wording.ToString().Equals($"{error.Path}: no such file", StringComparison.Ordinal);
    }

    private static string Of(Remedy remedy) => remedy.Kind switch
    {
        RemedyKind.Format => $"{Option(remedy.Role)}{(remedy.Value is null ? "" : $" {remedy.Value}")}",
        RemedyKind.ForceShare => "-U",
        RemedyKind.Snapshot => "-l",
        RemedyKind.Bitmaps => "--bitmaps",
        RemedyKind.Check => "qemu-img check",
        RemedyKind.Repair => "qemu-img check -r all",
        RemedyKind.Convert => "qemu-img convert",
        RemedyKind.Compact => "qemu-img convert",
        RemedyKind.Shrink => "qemu-img resize --shrink",
        RemedyKind.Overlay => "qemu-img create -b",
        RemedyKind.SetBacking => "qemu-img rebase",
        RemedyKind.RecordBacking => "qemu-img rebase -u",
        RemedyKind.Secret or RemedyKind.NewSecret => "--object secret,id=ID,file=FILE and key-secret=ID",
        RemedyKind.SetOption => $"qemu-img amend -o {remedy.Value}",
        RemedyKind.AllowShrink => "--shrink",
        RemedyKind.RemoveBitmap => "qemu-img bitmap --remove",
        RemedyKind.IgnoreIdMismatch => "--image-opts with ignore_id_mismatch=on",
        _ => remedy.ToString(),
    };

    private static string Option(ImageRole role) => role switch
    {
        ImageRole.Backing or ImageRole.Difference or ImageRole.Source => "-F",
        ImageRole.Target => "-O",
        _ => "-f",
    };
}
