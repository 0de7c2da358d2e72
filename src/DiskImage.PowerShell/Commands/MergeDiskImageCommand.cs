using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Merge-DiskImage</c>: writes what an image holds into an image below it.</summary>
[Cmdlet(VerbsData.Merge, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.High)]
[OutputType(typeof(DiskImageInfo))]
public sealed class MergeDiskImageCommand : OpenImageCmdlet
{
    private string? _base; // as PowerShell resolves it

    /// <summary>The image of the chain that takes it all; the image's own backing image if absent.</summary>
    [Parameter(Position = 1)]
    [Alias("DestinationPath")]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Leaves the image as it is afterwards, instead of emptying it.</summary>
    [Parameter]
    public SwitchParameter KeepTop { get; set; }

    /// <summary>Removes the files of the image and of the layers between it and the base afterwards.</summary>
    [Parameter]
    public SwitchParameter Delete { get; set; }

    /// <summary>Bytes of the image and what it stands on that are read a second at most; 0 for no limit.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long RateLimit { get; set; }

    /// <summary>Does not ask.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    private protected override OpenRequest Request(string path) => Limited(base.Request(path), RateLimit);

    /// <inheritdoc/>
    private protected override OpenPolicy Policy => base.Policy.Naming(_base, ".");

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        _base = BasePath is null ? null : await AskAsync(() => SessionPath.Literal(SessionState.Path, BasePath)).ConfigureAwait(false);
        if (Delete && KeepTop)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, "-Delete and -KeepTop contradict each other.", path);
        }
        OpenedImage opened = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<ChainLayer> chain;
        int depth;
        using var kept = new KeptLocks();
        await using (opened.ConfigureAwait(false))
        {
            chain = ChainLayer.Of(opened);
            depth = Depth(chain);
            MergeOperation.Keep(kept, opened, depth);
        }
        var operation = new MergeOperation(this, Registry, Request(path), chain, depth, kept);
        ChainLayer top = chain[0];
        ChainLayer target = chain[depth];
        bool empties = !KeepTop && !Delete && depth == 1;
        if (empties && !top.CanBeEmptied)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{top.Path}: images of format '{top.Format}' cannot be emptied in place. Merge with -KeepTop or -Delete.",
                top.Path);
        }
        if (!await AgreeAsync(operation, chain, depth, empties, cancellationToken).ConfigureAwait(false))
        {
            return;
        }
        await operation.RunAsync(cancellationToken).ConfigureAwait(false);
        if (empties)
        {
            await operation.EmptyAsync(cancellationToken).ConfigureAwait(false);
        }
        if (Delete)
        {
            await operation.RemoveAsync().ConfigureAwait(false);
        }
        await DescribeBaseAsync(target, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>How many layers below the top the base is.</summary>
    private int Depth(IReadOnlyList<ChainLayer> chain)
    {
        if (chain.Count == 1)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{chain[0].Path}: has no backing image that it could be merged into.", chain[0].Path);
        }
        if (BasePath is null || _base is null)
        {
            return 1;
        }
        // As PowerShell resolves it, else as it would stand in the image: from the image's folder.
        string beside = System.IO.Path.Combine(System.IO.Path.GetDirectoryName(chain[0].Path) ?? ".", BasePath);
        foreach (string candidate in new[] { _base, beside })
        {
            NodeIdentity? identity = Opener.IdentityOf(candidate);
            for (int depth = 1; identity is not null && depth < chain.Count; depth++)
            {
                if (chain[depth].Identity == identity)
                {
                    return depth;
                }
            }
        }
        throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{chain[0].Path}: '{BasePath}' is not in its backing chain. The chain is: "
                + $"{string.Join(", ", chain.Skip(1).Select(l => l.Path))}.",
            chain[0].Path);
    }

    private async Task<bool> AgreeAsync(
        MergeOperation operation, IReadOnlyList<ChainLayer> chain, int depth, bool empties, CancellationToken cancellationToken)
    {
        ChainLayer[] changed = [.. chain.Take(depth + 1).Skip(Delete ? 0 : 1)];
        foreach ((string image, string layer) in await FolderDependents.FindAsync(
            Registry, changed, chain, cancellationToken).ConfigureAwait(false))
        {
            await WarnAsync($"{image}: stands on {layer}, which the merge changes{(Delete ? " or removes" : "")}, so it will not "
                + $"read as before.").ConfigureAwait(false);
        }
        string removed = string.Join(", ", chain.Take(depth).Select(l => l.Path));
        string[] recording = [.. operation.Recording.Select(l => l.Path)];
        string record = recording.Length == 0 ? "" : $", recording that in {string.Join(" and ", recording)}";
        string then = record + (Delete ? $", then remove {removed}" : empties ? ", then empty it" : "");
        string through = depth == 1 ? "" : $" by way of {string.Join(", ", chain.Skip(1).Take(depth - 1).Select(l => l.Path))}";
        string files = empties ? chain[0].Files : chain[0].Path, action = $"Merge into {chain[depth].Files}{through}{then}";
        bool agreed = await AskAsync(
            () => (Force && Switch("Confirm") is not true && !IsWhatIf)
                || ShouldProcess(Printable.Of(files), Printable.Of(action))).ConfigureAwait(false);
        if (!agreed)
        {
            return false;
        }
        if (!Delete && depth > 1)
        {
            await WarnAsync(
                $"{string.Join(", ", chain.Skip(1).Take(depth - 1).Select(l => l.Path))}: will not read as before, because what is below "
                    + $"changes. {chain[0].Path} stays as it is and stays valid.").ConfigureAwait(false);
        }
        return true;
    }

    private async Task DescribeBaseAsync(ChainLayer target, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(
            new OpenRequest(target.Path) { Format = target.Format, WithBacking = false }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            await OutputAsync(await DiskImageInfo.OfAsync(image.Node, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
        }
    }
}
