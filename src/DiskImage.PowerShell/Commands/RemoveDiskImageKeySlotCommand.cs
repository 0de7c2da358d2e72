using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Remove-DiskImageKeySlot</c>: has a secret open an encrypted image no more.</summary>
[Cmdlet(
    VerbsCommon.Remove,
    "DiskImageKeySlot",
    DefaultParameterSetName = PathSet,
    SupportsShouldProcess = true,
    ConfirmImpact = ConfirmImpact.High)]
[OutputType(typeof(void))]
public sealed class RemoveDiskImageKeySlotCommand : KeySlotCmdlet
{
    /// <summary>The slots, by number; the one that the secret opens if absent.</summary>
    [Parameter(Position = 1, ValueFromPipelineByPropertyName = true)]
    [ValidateRange(0, 31)]
    public int[] Slot { get; set; } = [];

    /// <summary>Removes the last slot too: all data is lost then.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    private protected override bool GivesSecrets => false;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        int[] wanted = Slot;
        string image = path;
        if (wanted.Length == 0)
        {
            (image, wanted) = await LookAsync(
                path,
                async opened => (
                    opened.Path, new[] { await FindAsync(opened.Path, Slots(opened), cancellationToken).ConfigureAwait(false) }),
                cancellationToken).ConfigureAwait(false);
        }
        else
        {
            (image, _) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        }
        var agreed = new List<int>();
        foreach (int slot in wanted.Distinct())
        {
            if (await ConfirmAsync(image, $"Remove key slot {slot}, whose secret will open it no more").ConfigureAwait(false))
            {
                agreed.Add(slot);
            }
        }
        if (agreed.Count > 0)
        {
            _ = await ChangeAsync(
                path,
                async opened =>
                {
                    foreach (int slot in agreed)
                    {
                        await Slots(opened).RemoveKeySlotAsync(slot, Force, cancellationToken).ConfigureAwait(false);
                    }
                    return agreed.Count;
                },
                cancellationToken,
                withBacking: false).ConfigureAwait(false);
        }
    }

    private async ValueTask<int> FindAsync(string image, IKeySlots slots, CancellationToken cancellationToken)
        => await slots.FindKeySlotAsync(SecretFor(image), cancellationToken).ConfigureAwait(false)
            ?? throw new DiskImageException(
                DiskImageErrorKind.WrongSecret, $"{image}: the secret opens none of its key slots, so none is removed.", image);
}
