using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageInfo</c>: what images say about themselves.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageInfo", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageInfo))]
public sealed class GetDiskImageInfoCommand : ReadImageCmdlet
{
    /// <summary>Describes the backing images too, each as an object of its own, from the top down.</summary>
    [Parameter]
    public SwitchParameter BackingChain { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(
            Request(path) with { WithBacking = BackingChain, ToDescribe = true }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            for (BlockNode? node = image.Node; node is not null; node = node.BackingNode())
            {
                foreach (UnopenedNode unopened in References == ReferenceScope.None ? [] : node.Children.Values.OfType<UnopenedNode>())
                {
                    await WarnAsync($"{RemedyWords.Say(unopened.Reason)} Only what the image itself says is shown.").ConfigureAwait(false);
                }
                await OutputAsync(await DiskImageInfo.OfAsync(node, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
            }
        }
    }
}
