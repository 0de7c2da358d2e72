namespace DiskImage.Block;

/// <summary>What a user can do about an error or a warning.</summary>
public enum RemedyKind
{
    /// <summary>Allow that something is replaced.</summary>
    Force,

    /// <summary>Have what is there written to instead of replaced.</summary>
    InPlace,

    /// <summary>Name the format; the value is its name, or nothing for whichever it is.</summary>
    Format,

    /// <summary>Let names in images reach further; the value is how far.</summary>
    References,

    /// <summary>Allow longer chains.</summary>
    ChainDepth,

    /// <summary>Read although others may write.</summary>
    ForceShare,

    /// <summary>Copy one snapshot.</summary>
    Snapshot,

    /// <summary>Copy bitmaps.</summary>
    Bitmaps,

    /// <summary>Look at all of an image for damage.</summary>
    Check,

    /// <summary>Have all damage repaired.</summary>
    Repair,

    /// <summary>Copy an image into another.</summary>
    Convert,

    /// <summary>Give up what an image does not need.</summary>
    Compact,

    /// <summary>Make a disk smaller.</summary>
    Shrink,

    /// <summary>Make an image that stands on this one.</summary>
    Overlay,

    /// <summary>Change the reference to the backing image.</summary>
    SetBacking,

    /// <summary>Change the reference to the backing image, and nothing that is stored.</summary>
    RecordBacking,

    /// <summary>Take a parent whose identity is not the recorded one.</summary>
    IgnoreIdMismatch,

    /// <summary>Look for a parent in further folders.</summary>
    ParentSearchPath,

    /// <summary>Give the secret of an encrypted image.</summary>
    Secret,

    /// <summary>Give the secret of an encrypted image that is to be made.</summary>
    NewSecret,

    /// <summary>Change a create option; the value is the option with its value.</summary>
    SetOption,

    /// <summary>Allow that a disk becomes smaller.</summary>
    AllowShrink,

    /// <summary>Make a disk as small as its partitions let it.</summary>
    MinimumSize,

    /// <summary>Remove a bitmap.</summary>
    RemoveBitmap,

    /// <summary>Allow that a disk of the machine is written to.</summary>
    AllowDeviceWrite,
}

/// <summary>Which of several images in a request is meant.</summary>
public enum ImageRole
{
    /// <summary>The image that is worked on.</summary>
    Image,

    /// <summary>What an image stands on.</summary>
    Backing,

    /// <summary>The image that it is compared with.</summary>
    Difference,

    /// <summary>The image that something is taken from.</summary>
    Source,

    /// <summary>The image that is written into.</summary>
    Target,
}

/// <summary>
/// What a user can do, as a value inside a <see cref="Wording"/>: each front end has its own words for it (<c>-Format raw</c>, <c>-f
/// raw</c>). Its text is what is said where there is no front end; it fits where a parameter's name would stand.
/// </summary>
/// <param name="Kind">What.</param>
/// <param name="Value">With what, where there is a choice.</param>
/// <param name="Role">Of which image.</param>
public sealed record Remedy(RemedyKind Kind, string? Value = null, ImageRole Role = ImageRole.Image)
{
    /// <inheritdoc/>
    public override string ToString() => Kind switch
    {
        RemedyKind.Force => "force",
        RemedyKind.InPlace => "writing in place",
        RemedyKind.Format when Value is null => $"the format{Of}",
        RemedyKind.Format => $"the format {Value}{Of}",
        RemedyKind.References => $"references as far as {Value}",
        RemedyKind.ChainDepth => "a greater depth",
        RemedyKind.ForceShare => "shared reading",
        RemedyKind.Snapshot => "its name",
        RemedyKind.Check => "a check",
        RemedyKind.Repair => "a repair of all damage",
        RemedyKind.Convert => "a conversion",
        RemedyKind.Compact => "compacting",
        RemedyKind.Shrink => "a resize that may shrink it",
        RemedyKind.Overlay => "a new image with this backing image",
        RemedyKind.SetBacking => "a change of the backing image",
        RemedyKind.RecordBacking => "a change of the recorded parent alone",
        RemedyKind.IgnoreIdMismatch => "the permission",
        RemedyKind.ParentSearchPath => "the folders to search",
        RemedyKind.Secret => "its secret",
        RemedyKind.NewSecret => "the new image's secret",
        RemedyKind.SetOption => $"the option {Value}",
        RemedyKind.AllowShrink => "the permission to shrink it",
        RemedyKind.MinimumSize => "the smallest size",
        RemedyKind.RemoveBitmap => "its removal",
        RemedyKind.AllowDeviceWrite => "the permission to write to disks",
        _ => "a request for them",
    };

    private string Of => Role switch
    {
        ImageRole.Backing => " of the backing image",
        ImageRole.Difference => " of the other image",
        ImageRole.Source => " of the source",
        _ => "",
    };
}
