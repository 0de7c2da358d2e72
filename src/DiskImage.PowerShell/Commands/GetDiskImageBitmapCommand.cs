using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageBitmap</c>: the dirty bitmaps inside images, or the ranges they hold.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageBitmap", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageBitmap), typeof(DiskImageDirtyRange))]
public sealed class GetDiskImageBitmapCommand : BitmapCmdlet
{
    /// <summary>Names; wildcards are expanded. All if absent.</summary>
    [Parameter(Position = 1)]
    [ArgumentCompleter(typeof(BitmapNameCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = ["*"];

    /// <summary>Lists the ranges that were written, instead of the bitmaps.</summary>
    [Parameter]
    public SwitchParameter Extents { get; set; }

    /// <summary>Reads images that another program has open for writing. What is read may then not fit together.</summary>
    [Parameter]
    public SwitchParameter ForceShare { get; set; }

    /// <inheritdoc/>
    private protected override bool ReadsAlongWriters => ForceShare;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        // The image is closed before anything goes down the pipeline, so that what follows can change it.
        List<object> found = await LookAsync(
            path,
            async image =>
            {
                var objects = new List<object>();
                foreach (DiskBitmap bitmap in Select(
                    image.Path, await Listed(image).GetBitmapsAsync(cancellationToken).ConfigureAwait(false), Name))
                {
                    if (!Extents)
                    {
                        objects.Add(DiskImageBitmap.Of(image.Path, bitmap));
                        continue;
                    }
                    var ranges = await Listed(image).GetDirtyRangesAsync(bitmap.Name, cancellationToken).ConfigureAwait(false);
                    foreach ((long offset, long length) in ranges)
                    {
                        objects.Add(new DiskImageDirtyRange(image.Path, bitmap.Name, offset, length));
                    }
                }
                return objects;
            },
            cancellationToken).ConfigureAwait(false);
        foreach (object item in found)
        {
            await OutputAsync(item).ConfigureAwait(false);
        }
    }
}
