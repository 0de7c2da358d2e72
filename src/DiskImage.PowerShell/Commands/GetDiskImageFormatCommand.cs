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

    /// <summary>Formats, or protocols and filters that <c>-ImageOption</c> names.</summary>
    [Parameter]
    public DiskImageDriverKind Kind { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        DriverRegistry registry = DiskImageCmdlet.Registry;
        NodeDriver[] drivers = [.. ((IEnumerable<NodeDriver>)[.. registry.Formats, .. registry.Protocols, .. registry.Filters])
            .Where(d => Kind == DiskImageDriverKind.Any || DiskImageFormat.KindOf(d) == Kind).OrderBy(d => d.Name, StringComparer.Ordinal)];
        foreach (string name in Name)
        {
            var pattern = WildcardPattern.Get(name, WildcardOptions.IgnoreCase);
            NodeDriver[] found = [.. drivers.Where(f => f.Aliases.Prepend(f.Name).Any(pattern.IsMatch))];
            if (found.Length == 0 && !WildcardPattern.ContainsWildcardCharacters(name))
            {
                string what = Kind == DiskImageDriverKind.Any ? "driver" : $"{Kind}".ToLowerInvariant();
                var error = new DiskImageException(
                    DiskImageErrorKind.NotFound, $"There is no {what} '{name}'. Known: {string.Join(", ", drivers.Select(f => f.Name))}.");
                WriteError(DiskImageError.Record(error, name));
            }
            foreach (NodeDriver driver in found)
            {
                WriteObject(DiskImageFormat.Of(driver));
            }
        }
    }
}
