using System.Management.Automation;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that only reads the images it is given.</summary>
public abstract class ReadImageCmdlet : OpenImageCmdlet
{
    /// <summary>Reads images that another program has open for writing. What is read may then not fit together.</summary>
    [Parameter]
    public SwitchParameter ForceShare { get; set; }

    /// <inheritdoc/>
    private protected override bool ReadsAlongWriters => ForceShare;
}
