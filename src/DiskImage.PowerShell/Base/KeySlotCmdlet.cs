using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet about the key slots of encrypted images.</summary>
public abstract class KeySlotCmdlet : OpenImageCmdlet
{
    /// <summary>The ability, or an error that names the format.</summary>
    private protected static IKeySlots Slots(OpenedImage image) => image.Require<IKeySlots>("have no key slots");

    /// <summary>The slots of an image, which is closed again. Its secret is not needed.</summary>
    private protected Task<(string Path, IReadOnlyList<KeySlot> Slots)> ListAsync(string path, CancellationToken cancellationToken)
        => LookAsync(
            path,
            image => new ValueTask<(string, IReadOnlyList<KeySlot>)>((image.Path, Slots(image).GetKeySlots())),
            cancellationToken);
}
