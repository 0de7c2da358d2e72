using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img commit</c>.</summary>
internal sealed class CommitCommand : ImgCommand
{
    public override string Name => "commit";

    public override string Summary => "Write what an image holds into one below it";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        CacheOption,
        new('b', "base", "FILE", "image of the chain that takes it; the backing image if not given"),
        new('r', "rate-limit", "RATE", "bytes a second at most"),
        new('d', "drop", null, "do not empty the image afterwards"),
        ProgressOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string given = OneImage();
        FrontEnd front = Front.With(Cache("cache", CacheMode.Writeback));
        OpenRequest request = Limited(Request(given, Arguments.Last("format")), Arguments.Last("rate-limit"));
        OpenedImage image = await OpenAsync(front, given, request, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<ChainLayer> chain;
        string? wanted = Arguments.Last("base");
        int depth;
        using var kept = new KeptLocks();
        await using (image.ConfigureAwait(false))
        {
            chain = ChainLayer.Of(image);
            if (chain.Count == 1)
            {
                throw new CommandException("Image does not have a backing file");
            }
            depth = wanted is null ? 1 : Depth(front, chain, wanted);
            MergeOperation.Keep(kept, image, depth);
        }
        var operation = new MergeOperation(front, FrontEnd.Registry, request, chain, depth, kept);
        bool empties = !Arguments.Has("drop") && wanted is null;
        if (empties && !chain[0].CanBeEmptied)
        {
            throw new CommandException($"Could not empty {given}: images of format '{chain[0].Format}' cannot be emptied; use -d");
        }
        await operation.RunAsync(cancellationToken).ConfigureAwait(false);
        if (empties)
        {
            await operation.EmptyAsync(cancellationToken).ConfigureAwait(false);
        }
        Say("Image committed.");
        return 0;
    }

    private int Depth(FrontEnd front, IReadOnlyList<ChainLayer> chain, string wanted)
    {
        string beside = Path.Combine(Path.GetDirectoryName(chain[0].Path) ?? ".", wanted);
        foreach (string candidate in new[] { Io.Full(wanted), beside })
        {
            NodeIdentity? identity = front.Opener.IdentityOf(candidate);
            for (int depth = 1; identity is not null && depth < chain.Count; depth++)
            {
                if (chain[depth].Identity == identity)
                {
                    return depth;
                }
            }
        }
        throw new CommandException($"Did not find '{Printable.Of(wanted)}' in the backing chain of '{Printable.Of(Operands[0])}'");
    }
}
