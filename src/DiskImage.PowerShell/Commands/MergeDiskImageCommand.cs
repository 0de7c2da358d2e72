using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary><c>Merge-DiskImage</c>: writes what an image holds into an image below it.</summary>
[Cmdlet(VerbsData.Merge, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class MergeDiskImageCommand : OpenImageCmdlet
{
    /// <summary>The image of the chain that takes it all; the image's own backing image if absent.</summary>
    [Parameter(Position = 1)]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Leaves the image as it is afterwards, instead of emptying it.</summary>
    [Parameter]
    public SwitchParameter KeepTop { get; set; }

    /// <summary>Removes the files of the image and of the layers between it and the base afterwards. Asked about.</summary>
    [Parameter]
    public SwitchParameter Delete { get; set; }

    /// <summary>Removes them without asking.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        if (Delete && KeepTop)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, "-Delete and -KeepTop contradict each other.", path);
        }
        OpenedImage opened = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<ChainLayer> chain;
        await using (opened.ConfigureAwait(false))
        {
            chain = ChainLayer.Of(opened);
        }
        ChainLayer top = chain[0];
        int depth = await DepthAsync(chain).ConfigureAwait(false);
        ChainLayer target = chain[depth];
        bool empties = !KeepTop && !Delete && depth == 1;
        if (empties && !top.CanBeEmptied)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{top.Path}: images of format '{top.Format}' cannot be emptied in place. Merge with -KeepTop or -Delete.", top.Path);
        }
        if (!await AgreeAsync(chain, depth, empties).ConfigureAwait(false))
        {
            return;
        }
        await MergeAsync(path, depth, target, cancellationToken).ConfigureAwait(false);
        for (int layer = depth - 1; !Delete && layer >= 0; layer--)
        {
            await RelinkAsync(chain[layer], chain[layer + 1], cancellationToken).ConfigureAwait(false);
        }
        if (empties)
        {
            _ = await ChangeAsync(
                path,
                async image =>
                {
                    await image.Require<IEmptiable>("cannot be emptied in place").MakeEmptyAsync(cancellationToken).ConfigureAwait(false);
                    return true;
                },
                cancellationToken).ConfigureAwait(false);
            await VerboseAsync($"{top.Path}: emptied; it reads the same, from {target.Path}").ConfigureAwait(false);
        }
        for (int layer = 0; Delete && layer < depth; layer++)
        {
            await RemoveAsync(chain[layer].Path).ConfigureAwait(false);
        }
        await DescribeBaseAsync(target, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>How many layers below the top the base is.</summary>
    private async Task<int> DepthAsync(IReadOnlyList<ChainLayer> chain)
    {
        if (chain.Count == 1)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{chain[0].Path}: has no backing image that it could be merged into.", chain[0].Path);
        }
        if (BasePath is null)
        {
            return 1;
        }
        // As PowerShell resolves it, else as it would stand in the image: from the image's folder.
        string given = await AskAsync(() => SessionPath.Literal(SessionState.Path, BasePath)).ConfigureAwait(false);
        string beside = System.IO.Path.Combine(System.IO.Path.GetDirectoryName(chain[0].Path) ?? ".", BasePath);
        foreach (string candidate in new[] { given, beside })
        {
            for (int depth = 1; depth < chain.Count; depth++)
            {
                if (FileIdentity.Same(chain[depth].Path, candidate))
                {
                    return depth;
                }
            }
        }
        throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{chain[0].Path}: '{BasePath}' is not in its backing chain. The chain is: {string.Join(", ", chain.Skip(1).Select(l => l.Path))}.",
            chain[0].Path);
    }

    private async Task<bool> AgreeAsync(IReadOnlyList<ChainLayer> chain, int depth, bool empties)
    {
        string removed = string.Join(", ", chain.Take(depth).Select(l => l.Path));
        string then = Delete ? $", then remove {removed}" : empties ? ", then empty it" : "";
        string through = depth == 1 ? "" : $" by way of {string.Join(", ", chain.Skip(1).Take(depth - 1).Select(l => l.Path))}";
        if (!await ConfirmAsync(chain[0].Path, $"Merge into {chain[depth].Path}{through}{then}").ConfigureAwait(false))
        {
            return false;
        }
        if (!Delete && depth > 1)
        {
            await WarnAsync(
                $"{string.Join(", ", chain.Skip(1).Take(depth - 1).Select(l => l.Path))}: will not read as before, because what is below changes. {chain[0].Path} stays as it is and stays valid.").ConfigureAwait(false);
        }
        bool asked = Delete && !Force && !(MyInvocation.BoundParameters.TryGetValue("Confirm", out object? confirm) && confirm is SwitchParameter { IsPresent: false });
        return !asked || await AskAsync(() => ShouldContinue($"Remove {removed} after the merge?", "Remove the merged images")).ConfigureAwait(false);
    }

    private async Task MergeAsync(string path, int depth, ChainLayer target, CancellationToken cancellationToken)
    {
        // The base is opened first, for writing, and the chain above shares it.
        OpenedImage below = await OpenAsync(new OpenRequest(target.Path) { Format = target.Format, Writable = true }, cancellationToken).ConfigureAwait(false);
        await using (below.ConfigureAwait(false))
        {
            var shared = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { [target.Path] = below.Node };
            OpenedImage top = await OpenAsync(Request(path) with { Opened = shared }, cancellationToken).ConfigureAwait(false);
            await using (top.ConfigureAwait(false))
            {
                if (below.Node.Length < top.Node.Length)
                {
                    await VerboseAsync($"{target.Path}: grows from {ReadableSize.WithBytes(below.Node.Length)} to {ReadableSize.WithBytes(top.Node.Length)}").ConfigureAwait(false);
                }
                ConvertResult result = await ShowAsync(
                    $"Merging {Leaf(top.Path)} into {Leaf(target.Path)}",
                    progress => new CommitJob(top.Node, depth, below.Node).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
                await VerboseAsync(
                    $"{target.Path}: {ReadableSize.Of(result.BytesCopied)} copied, {ReadableSize.Of(result.BytesZero)} zeroes, in {result.Elapsed.TotalSeconds:0.0} s").ConfigureAwait(false);
            }
        }
    }

    /// <summary>
    /// Some formats record which state of its backing image an image stands on. For them it is recorded anew, from the base up,
    /// since that changes the state of each image too.
    /// </summary>
    private async Task RelinkAsync(ChainLayer layer, ChainLayer backing, CancellationToken cancellationToken)
    {
        if (Registry.Format(layer.Format) is not ICreatable { RecordsBackingIdentity: true })
        {
            return;
        }
        OpenedImage below = await OpenAsync(new OpenRequest(backing.Path) { Format = backing.Format }, cancellationToken).ConfigureAwait(false);
        await using (below.ConfigureAwait(false))
        {
            OpenedImage above = await OpenAsync(
                new OpenRequest(layer.Path) { Format = layer.Format, WithBacking = false, Writable = true }, cancellationToken).ConfigureAwait(false);
            await using (above.ConfigureAwait(false))
            {
                ImageDescription said = above.Describe();
                await above.Require<IRebasable>("cannot record their backing image anew")
                    .SetBackingAsync(said.BackingFile, said.BackingFormat, below.Node, cancellationToken).ConfigureAwait(false);
                await above.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task RemoveAsync(string path)
    {
        try
        {
            File.Delete(path);
            await VerboseAsync($"{path}: removed").ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DiskImageException(DiskImageErrorKind.AccessDenied, $"{path}: is merged, but cannot be removed: {e.Message}", path, cause: e);
        }
    }

    private async Task DescribeBaseAsync(ChainLayer target, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(new OpenRequest(target.Path) { Format = target.Format, WithBacking = false }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            await OutputAsync(await DiskImageInfo.OfAsync(image.Node, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
        }
    }
}
