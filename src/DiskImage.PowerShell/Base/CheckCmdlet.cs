namespace DiskImage.PowerShell;

/// <summary>A cmdlet whose result says what is wrong with images.</summary>
public abstract class CheckCmdlet : OpenImageCmdlet
{
    /// <inheritdoc/>
    private protected override bool WarnsOfImages => false;
}
