using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Protocols.HostDevice;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageDevice</c>: the disks of this machine that may be named as images.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageDevice")]
[OutputType(typeof(DiskImageDevice))]
public sealed class GetDiskImageDeviceCommand : DiskImageCmdlet
{
    /// <summary>Names of disks; wildcards are expanded. All if absent.</summary>
    [Parameter(Position = 0)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Path { get; set; } = ["*"];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        IReadOnlyList<DiskDevice> disks = DiskDevice.All();
        foreach (string path in Path)
        {
            var pattern = WildcardPattern.Get(path, WildcardOptions.IgnoreCase);
            DiskDevice[] found = [.. disks.Where(d => pattern.IsMatch(d.Path))];
            if (found.Length == 0 && !WildcardPattern.ContainsWildcardCharacters(path))
            {
                var error = new DiskImageException(DiskImageErrorKind.NotFound, $"{path}: is no disk of this machine", path);
                WriteError(DiskImageError.Record(error, path));
            }
            WriteObject(found.Select(DiskImageDevice.Of), enumerateCollection: true);
        }
    }
}
