using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Add-DiskImageKeySlot</c>: has a further secret open an encrypted image.</summary>
[Cmdlet(VerbsCommon.Add, "DiskImageKeySlot", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageKeySlot))]
public sealed class AddDiskImageKeySlotCommand : KeySlotCmdlet
{
    /// <summary>The further secret.</summary>
    [Parameter(Mandatory = true)]
    [ValidateNotNull]
    public object? NewSecret { get; set; }

    /// <summary>The slot to use; the first that is free if absent.</summary>
    [Parameter]
    [ValidateRange(0, 31)]
    public int? Slot { get; set; }

    /// <summary>How long trying a secret is to take on this machine, in milliseconds.</summary>
    [Parameter]
    [ValidateRange(1, 600_000)]
    public int? IterationTime { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string image, _) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        string where = Slot is int slot ? $"key slot {slot}" : "a free key slot";
        if (!await ConfirmAsync(image, $"Add a secret in {where}").ConfigureAwait(false))
        {
            return;
        }
        KeySlot added = await ChangeAsync(
            path,
            async opened =>
            {
                IKeySlots slots = Slots(opened);
                int number = await slots.AddKeySlotAsync(
                    SecretFor(NewSecret, nameof(NewSecret), opened.Path), Slot, IterationTime, cancellationToken).ConfigureAwait(false);
                return slots.GetKeySlots().First(s => s.Number == number);
            },
            cancellationToken,
            withBacking: false).ConfigureAwait(false);
        await OutputAsync(DiskImageKeySlot.Of(image, added)).ConfigureAwait(false);
    }
}
