using System.Management.Automation;
using DiskImage.Exports;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageExport</c>: what this session serves, or what a server somewhere has.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageExport")]
[OutputType(typeof(DiskImageExport))]
public sealed class GetDiskImageExportCommand : DiskImageCmdlet
{
    /// <summary>Servers of NBD, as URIs; what this session serves if absent.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true)]
    [ValidateNotNullOrEmpty]
    public string[] Uri { get; set; } = [];

    /// <summary>Names of exports; wildcards are expanded. All if absent.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Name { get; set; } = ["*"];

    /// <inheritdoc/>
    protected override void ProcessRecord() => Run(async cancellationToken =>
    {
        foreach (DiskImageExport export in Uri.Length == 0 ? RunningExports.All.SelectMany(r => r.Exports()) : [])
        {
            await OutputIfMeantAsync(export).ConfigureAwait(false);
        }
        foreach (string uri in Uri)
        {
            await RunItemAsync(uri, async () =>
            {
                foreach (ListedExport export in await ExportList.OfAsync(uri, cancellationToken).ConfigureAwait(false))
                {
                    await OutputIfMeantAsync(new DiskImageExport
                    {
                        Name = export.Name,
                        Description = export.Description,
                        Uri = export.Uri,
                        VirtualSize = export.Length,
                        IsReadOnly = export.IsReadOnly,
                        MultiConnection = export.AllowsSeveralConnections,
                        Contexts = new(export.Contexts),
                    }).ConfigureAwait(false);
                }
            }).ConfigureAwait(false);
        }
    });

    private async ValueTask OutputIfMeantAsync(DiskImageExport export)
    {
        if (Array.Exists(Name, n => WildcardPattern.Get(n, WildcardOptions.IgnoreCase).IsMatch(export.Name)))
        {
            await OutputAsync(export).ConfigureAwait(false);
        }
    }
}
