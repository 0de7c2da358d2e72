namespace DiskImage.Block;

/// <summary>What somebody does with a node, or lets others do with it. Numbers and meaning are those of QEMU's block permissions.</summary>
[Flags]
public enum Permissions
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Reads, and needs what it reads to fit together.</summary>
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

/// <summary>
/// What the opening of a node needs, and what it bears beside itself. The protocol maps it to what its host has of locks.
/// </summary>
/// <param name="Needs">What is done with the node.</param>
/// <param name="Lets">What others may do meanwhile.</param>
public readonly record struct Access(Permissions Needs, Permissions Lets)
{
    private const Permissions Harmless = Permissions.ConsistentRead | Permissions.WriteUnchanged;

    /// <summary>Reading: nobody may change it, for the structures that were read once are relied on.</summary>
    public static Access Reading { get; } = new(Permissions.ConsistentRead, Harmless);

    /// <summary>Reading whatever others do: what is read may not fit together.</summary>
    public static Access ReadingAlongWriters { get; } = new(Permissions.ConsistentRead, Permissions.All);

    /// <summary>
    /// Writing beside other writers, who see to it among themselves that they do not disturb each other (QEMU's share-rw). The length
    /// stays, for all of them.
    /// </summary>
    public static Access WritingAlongWriters { get; } = new(
        Permissions.ConsistentRead | Permissions.Write, Permissions.All & ~Permissions.Resize);

    /// <summary>Writing, and nobody else may.</summary>
    public static Access Writing { get; } = new(Permissions.ConsistentRead | Permissions.Write | Permissions.Resize, Harmless);

    /// <summary>The node is opened for writing.</summary>
    public bool Writes => (Needs & Permissions.Write) != Permissions.None;

    /// <summary>The length may be changed.</summary>
    public bool Resizes => (Needs & Permissions.Resize) != Permissions.None;

    /// <summary>Others may write to it meanwhile.</summary>
    public bool LetsOthersWrite => (Lets & Permissions.Write) != Permissions.None;

    /// <summary>
    /// The access that writing or reading means, the latter beside writers if those are borne with. Writing is shared only if that is said.
    /// </summary>
    public static Access To(bool write, bool besideWriters, bool sharesWrites = false) => write
        ? sharesWrites ? WritingAlongWriters : Writing
        : besideWriters || sharesWrites ? ReadingAlongWriters : Reading;
}
