using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary><c>Merge-DiskImageBitmap</c>: adds to a dirty bitmap what others have recorded, in the same image or another.</summary>
[Cmdlet(VerbsData.Merge, "DiskImageBitmap", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageBitmap))]
public sealed class MergeDiskImageBitmapCommand : BitmapCmdlet
{
    /// <summary>The bitmap that takes it all.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ArgumentCompleter(typeof(BitmapNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string Name { get; set; } = "";

    /// <summary>The bitmaps that are added to it; wildcards are expanded.</summary>
    [Parameter(Mandatory = true, Position = 2)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] SourceName { get; set; } = [];

    /// <summary>The image that holds them; the same one if absent.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? SourcePath { get; set; }

    /// <summary>Its format; probed if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? SourceFormat { get; set; }

    /// <summary>Returns the bitmap as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string name, string files, IReadOnlyList<DiskBitmap> present) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        _ = Select(
            name,
            present,
            [WildcardPattern.ContainsWildcardCharacters(Name) && !present.Any(b => b.Name.Equals(Name, StringComparison.Ordinal))
                ? WildcardPattern.Escape(Name) : Name]);
        (string source, IReadOnlyList<(string Name, IReadOnlyList<(long Offset, long Length)> Dirty)> bitmaps) = await ReadAsync(
            path, cancellationToken).ConfigureAwait(false);
        string from = string.Join(", ", bitmaps.Select(b => $"'{b.Name}'"));
        if (bitmaps.Count == 0 || !await ConfirmAsync(files, $"Merge {from} of {source} into bitmap '{Name}'").ConfigureAwait(false))
        {
            return;
        }
        _ = await ChangeAsync(
            path,
            async image =>
            {
                foreach ((_, IReadOnlyList<(long Offset, long Length)> dirty) in bitmaps)
                {
                    await Bitmaps(image).MergeBitmapAsync(Name, dirty, cancellationToken).ConfigureAwait(false);
                }
                return bitmaps.Count;
            },
            cancellationToken).ConfigureAwait(false);
        if (PassThru)
        {
            (_, _, present) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
            await OutputAsync(
                DiskImageBitmap.Of(name, present.First(b => b.Name.Equals(Name, StringComparison.Ordinal)))).ConfigureAwait(false);
        }
    }

    /// <summary>What the source bitmaps hold, and the path of their image, which is closed again.</summary>
    private async Task<(string Path, IReadOnlyList<(string Name, IReadOnlyList<(long Offset, long Length)> Dirty)> Bitmaps)> ReadAsync(
        string path, CancellationToken cancellationToken)
    {
        OpenRequest request = SourcePath is null
            ? Request(path)
            : new OpenRequest(await AskAsync(() => SessionPath.Literal(
                SessionState.Path, SourcePath)).ConfigureAwait(false)) { Format = SourceFormat, Role = ImageRole.Source };
        OpenedImage image = await OpenAsync(request with { WithBacking = false }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            var read = new List<(string Name, IReadOnlyList<(long Offset, long Length)> Dirty)>();
            foreach (DiskBitmap bitmap in Select(
                image.Path, await Bitmaps(image).GetBitmapsAsync(cancellationToken).ConfigureAwait(false), SourceName))
            {
                read.Add((bitmap.Name, await Bitmaps(image).GetDirtyRangesAsync(bitmap.Name, cancellationToken).ConfigureAwait(false)));
            }
            return (image.Path, read);
        }
    }
}
