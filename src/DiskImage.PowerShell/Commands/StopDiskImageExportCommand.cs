using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Stop-DiskImageExport</c>: ends servers of this session, and closes their images.</summary>
[Cmdlet(VerbsLifecycle.Stop, "DiskImageExport", SupportsShouldProcess = true, DefaultParameterSetName = IdSet)]
public sealed class StopDiskImageExportCommand : DiskImageCmdlet
{
    private const string IdSet = "Id", NameSet = "Name";

    /// <summary>The numbers of servers. One server may have several exports: all of them end.</summary>
    [Parameter(Mandatory = true, ParameterSetName = IdSet, ValueFromPipelineByPropertyName = true)]
    public int[] Id { get; set; } = [];

    /// <summary>Names of exports, whose servers end; wildcards are expanded.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = NameSet)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Name { get; set; } = [];

    /// <inheritdoc/>
    protected override void ProcessRecord() => Run(async _ =>
    {
        bool byName = ParameterSetName.Equals(NameSet, StringComparison.Ordinal);
        foreach (object asked in byName ? Name.Cast<object>() : Id.Cast<object>())
        {
            await RunItemAsync(asked, () => StopAsync(asked, byName)).ConfigureAwait(false);
        }
    });

    private async Task StopAsync(object asked, bool byName)
    {
        RunningExport[] meant = [.. RunningExports.All.Where(r => byName
            ? r.Exports().Any(e => WildcardPattern.Get((string)asked, WildcardOptions.IgnoreCase).IsMatch(e.Name))
            : r.Id == (int)asked)];
        if (meant.Length == 0 && !(byName && WildcardPattern.ContainsWildcardCharacters((string)asked)))
        {
            if (byName)
            {
                throw new DiskImageException(DiskImageErrorKind.NotFound, $"This session serves no export '{asked}'.");
            }
            return; // several exports of one server: it has ended with the first
        }
        foreach (RunningExport running in meant)
        {
            string names = string.Join(", ", running.Exports().Select(e => e.Uri));
            if (await ConfirmAsync(names, "Stop serving").ConfigureAwait(false))
            {
                await RunningExports.StopAsync(running.Id).ConfigureAwait(false);
            }
        }
    }
}
