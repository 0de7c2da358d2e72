using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>How PowerShell's users do what the library says can be done.</summary>
internal static class RemedyWords
{
    /// <summary>A text of the library with the cmdlets' parameters in it, fit to be shown.</summary>
    public static string Say(Wording text) => Printable.Of(text.Say(Of));

    /// <summary>The message of an error, likewise.</summary>
    public static string Say(DiskImageException error) => Say(error.Wording);

    private static string Of(Remedy remedy) => remedy.Kind switch
    {
        RemedyKind.Force => "-Force",
        RemedyKind.InPlace => "-InPlace",
        RemedyKind.Format => $"-{Parameter(remedy.Role)}{(remedy.Value is null ? "" : $" {remedy.Value}")}",
        RemedyKind.References => $"-References {remedy.Value}",
        RemedyKind.ChainDepth => "-MaximumChainDepth",
        RemedyKind.ForceShare => "-ForceShare",
        RemedyKind.Snapshot => "-Snapshot",
        RemedyKind.Bitmaps => "-Bitmaps",
        RemedyKind.Check => "Test-DiskImage",
        RemedyKind.Repair => "Repair-DiskImage -Mode All",
        RemedyKind.Convert => "Convert-DiskImage",
        RemedyKind.Compact => "Optimize-DiskImage",
        RemedyKind.Shrink => "Resize-DiskImage -Shrink",
        RemedyKind.Overlay => "New-DiskImage -BackingPath",
        RemedyKind.SetBacking => "Set-DiskImageBacking",
        RemedyKind.RecordBacking => "Set-DiskImageBacking -Unsafe",
        RemedyKind.IgnoreIdMismatch => "-IgnoreIdMismatch",
        RemedyKind.ParentSearchPath => "-ParentSearchPath",
        RemedyKind.Secret => "-Secret",
        RemedyKind.NewSecret => "-NewSecret",
        RemedyKind.SetOption => $"Set-DiskImageOption -Option {remedy.Value}",
        RemedyKind.AllowShrink => "-Shrink",
        RemedyKind.MinimumSize => "-ToMinimumSize",
        RemedyKind.RemoveBitmap => "Remove-DiskImageBitmap",
        RemedyKind.AllowDeviceWrite => "-AllowDeviceWrite",
        _ => remedy.ToString(),
    };

    private static string Parameter(ImageRole role) => role switch
    {
        ImageRole.Backing => "BackingFormat",
        ImageRole.Difference => "DifferenceFormat",
        ImageRole.Source => "SourceFormat",
        ImageRole.Target => "DestinationFormat",
        _ => "Format",
    };
}
