using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.Quorum;

/// <summary>How a quorum reads.</summary>
internal enum QuorumReadPattern
{
    /// <summary>All of them, and as many must agree as the threshold says.</summary>
    [OptionText("quorum")]
    Quorum,

    /// <summary>The first that does not fail.</summary>
    [OptionText("fifo")]
    Fifo,
}

/// <summary>Options of a quorum. Names as QEMU has them.</summary>
internal sealed record QuorumOptions
{
    /// <summary>How many must agree.</summary>
    [DriverOption("vote-threshold", "How many of the disks must agree on a read, and take a write", Minimum = 1, Maximum = 64)]
    public long VoteThreshold { get; init; } = 1;

    /// <summary>Two disks that must agree.</summary>
    [DriverOption("blkverify", "Of two disks with a threshold of 2: a read fails where they differ, with its offset")]
    public bool BlkVerify { get; init; }

    /// <summary>Those that were outvoted are put right.</summary>
    [DriverOption("rewrite-corrupted", "Writes the winning bytes to the disks that were outvoted")]
    public bool RewriteCorrupted { get; init; }

    /// <summary>How it reads.</summary>
    [DriverOption("read-pattern", "quorum: all disks vote; fifo: the first that does not fail")]
    public QuorumReadPattern ReadPattern { get; init; }
}

/// <summary>Several disks of the same contents that are read by vote and written together.</summary>
internal sealed class QuorumDriver : FilterDriver
{
    private const int MostChildren = 64; // ours

    public override string Name => "quorum";

    public override string Description => "Disks of the same contents that vote";

    public override IReadOnlyList<string> Roles => ["children"];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<QuorumOptions>();

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
    {
        var options = (QuorumOptions)context.Options;
        int count = context.Roles.Count;
        string? wrong = count > MostChildren ? $"has {count} children; allowed are {MostChildren}"
            : options.VoteThreshold > count ? $"has {count} children, of which vote-threshold={options.VoteThreshold} cannot agree"
            : options.BlkVerify && (count != 2 || options.VoteThreshold != 2) ? "with blkverify has two children and vote-threshold=2"
            : options.RewriteCorrupted && options.ReadPattern == QuorumReadPattern.Fifo ? "with read-pattern=fifo finds none to rewrite"
            : null;
        if (wrong is not null)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"A quorum {wrong}.");
        }
        var children = new List<BlockNode>();
        foreach (string role in context.Roles)
        {
            children.Add(await context.OpenChild(role, cancellationToken).ConfigureAwait(false));
        }
        return children.Find(c => c.Length != children[0].Length) is not { } other
            ? new QuorumNode(children, options)
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{other.Name}: has {other.Length:#,0} bytes, and {children[0].Name} {children[0].Length:#,0}; "
                    + "a quorum's disks have one length",
                other.Name);
    }
}
