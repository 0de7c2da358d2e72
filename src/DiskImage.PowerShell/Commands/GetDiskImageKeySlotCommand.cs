using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageKeySlot</c>: the key slots of encrypted images. Needs no secret.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageKeySlot", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageKeySlot))]
public sealed class GetDiskImageKeySlotCommand : KeySlotCmdlet
{
    /// <summary>Lists slots without a key, too.</summary>
    [Parameter]
    public SwitchParameter All { get; set; }

    /// <summary>Reads images that another program has open for writing. What is read may then not fit together.</summary>
    [Parameter]
    public SwitchParameter ForceShare { get; set; }

    /// <inheritdoc/>
    private protected override bool ReadsAlongWriters => ForceShare;

    /// <inheritdoc/>
    private protected override bool GivesSecrets => false;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string image, IReadOnlyList<KeySlot> slots) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        foreach (KeySlot slot in slots.Where(s => s.IsActive || All))
        {
            await OutputAsync(DiskImageKeySlot.Of(image, slot)).ConfigureAwait(false);
        }
    }
}
