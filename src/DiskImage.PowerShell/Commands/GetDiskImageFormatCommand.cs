using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageFormat</c>: the image formats, what they can do, and their options.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageFormat")]
[OutputType(typeof(DiskImageFormat))]
public sealed class GetDiskImageFormatCommand : PSCmdlet
{
    /// <summary>Names of formats; wildcards are expanded. All if absent.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Format")]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = ["*"];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (string name in Name)
        {
            var pattern = WildcardPattern.Get(name, WildcardOptions.IgnoreCase);
            FormatDriver[] found = [.. DiskImageCmdlet.Registry.Formats
                .Where(f => f.Aliases.Prepend(f.Name).Any(pattern.IsMatch)).OrderBy(f => f.Name, StringComparer.Ordinal)];
            if (found.Length == 0 && !WildcardPattern.ContainsWildcardCharacters(name))
            {
                var error = new DiskImageException(
                    DiskImageErrorKind.NotFound, $"There is no format '{name}'. Known: {string.Join(", ", DiskImageCmdlet.Registry.Formats.Select(f => f.Name))}.");
                WriteError(DiskImageError.Record(error, name));
            }
            foreach (FormatDriver format in found)
            {
                WriteObject(DiskImageFormat.Of(format));
            }
        }
    }
}
