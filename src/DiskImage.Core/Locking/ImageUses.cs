namespace DiskImage.Locking;

/// <summary>What a program does with an image file, or lets others do. Numbers and meaning are those of QEMU's block permissions.</summary>
[Flags]
internal enum ImageUses
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Reads and needs what it reads to fit together.</summary>
    ConsistentRead = 1,

    /// <summary>Changes contents.</summary>
    Write = 2,

    /// <summary>Writes what is there already, as when data is moved between layers.</summary>
    WriteUnchanged = 4,

    /// <summary>Changes the length.</summary>
    Resize = 8,

    /// <summary>All of them.</summary>
    All = ConsistentRead | Write | WriteUnchanged | Resize,
}

/// <summary>What an opening needs, and what it bears beside itself.</summary>
/// <param name="Uses">What is done with the file.</param>
/// <param name="Shares">What others may do meanwhile.</param>
internal readonly record struct ImageClaim(ImageUses Uses, ImageUses Shares)
{
    private const ImageUses Harmless = ImageUses.ConsistentRead | ImageUses.WriteUnchanged;

    /// <summary>Reading: nobody may change it, for the structures that were read once are relied on.</summary>
    public static ImageClaim Reading { get; } = new(ImageUses.ConsistentRead, Harmless);

    /// <summary>Reading whatever others do: what is read may not fit together.</summary>
    public static ImageClaim ReadingAlongWriters { get; } = new(ImageUses.ConsistentRead, ImageUses.All);

    /// <summary>Writing, and nobody else may.</summary>
    public static ImageClaim Writing { get; } = new(ImageUses.ConsistentRead | ImageUses.Write | ImageUses.Resize, Harmless);
}
