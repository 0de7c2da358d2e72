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
}

/// <summary>
/// What a user can do, as a value inside a <see cref="Wording"/>: each front end has its own words for it (<c>-Format raw</c>, <c>-f raw</c>).
/// Its text is what is said where there is no front end; it fits where a parameter's name would stand.
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
        _ => "a request for them",
    };

    private string Of => Role switch { ImageRole.Backing => " of the backing image", ImageRole.Difference => " of the other image", ImageRole.Source => " of the source", _ => "" };
}
