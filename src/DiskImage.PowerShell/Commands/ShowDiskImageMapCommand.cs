using System.Globalization;
using System.Management.Automation;
using System.Management.Automation.Host;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary><c>Show-DiskImageMap</c>: a disk as a picture of how its parts are stored, in the terminal or as SVG.</summary>
[Cmdlet(VerbsCommon.Show, "DiskImageMap", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(string), typeof(FileInfo))]
public sealed class ShowDiskImageMapCommand : ReadImageCmdlet
{
    private const int Narrowest = 20, Widest = 1000, DefaultWidth = 80, DefaultRows = 16, MostRows = 1000;

    private readonly List<MapRun> _marks = [];

    /// <summary>The first byte of the range to show.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Offset { get; set; }

    /// <summary>Bytes to show; to the end of the disk if absent.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(1, long.MaxValue)]
    public long? Length { get; set; }

    /// <summary>Columns; those of the window if absent.</summary>
    [Parameter]
    [ValidateRange(Narrowest, Widest)]
    public int Width { get; set; }

    /// <summary>Lines of cells at most.</summary>
    [Parameter]
    [ValidateRange(1, MostRows)]
    public int Rows { get; set; } = DefaultRows;

    /// <summary>Ranges to mark: what compare and check found, or anything with an offset and a length.</summary>
    [Parameter]
    [ValidateNotNull]
    public PSObject[] Mark { get; set; } = [];

    /// <summary>A file for the picture as SVG, instead of the terminal.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Svg { get; set; }

    /// <summary>Replaces the file.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override void BeginProcessing()
    {
        base.BeginProcessing();
        _marks.AddRange(Mark.SelectMany(MarksOf));
    }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        int width = Width;
        string? file = null;
        MapColours colours = new(null);
        if (Svg is null)
        {
            width = width > 0 ? width : await AskAsync(WindowWidth).ConfigureAwait(false);
            colours = await AskAsync(() => new MapColours(SessionState.PSVariable.GetValue("PSStyle"))).ConfigureAwait(false);
        }
        else
        {
            file = await AskAsync(() => SessionPath.Literal(SessionState.Path, Svg)).ConfigureAwait(false);
            if (!Force && File.Exists(file))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.AlreadyExists, $"{file} exists. Replace it with {new Remedy(RemedyKind.Force)}.", file);
            }
            if (!await AskAsync(() => ShouldProcess(file, "Draw the map")).ConfigureAwait(false))
            {
                return;
            }
        }
        OpenedImage image = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            long room = Math.Max(0, image.Node.Length - Offset), length = Math.Min(Length ?? room, room);
            var map = new MapCells(Offset, length, file is null ? MapText.CellsOf(width) * Rows : MapSvg.MostCells);
            await FillAsync(map, image.Node, cancellationToken).ConfigureAwait(false);
            _marks.ForEach(mark => map.Add(mark));
            string name = Leaf(image.Path);
            if (file is null)
            {
                foreach (string line in MapText.Lines(name, map, width, colours))
                {
                    await OutputAsync(line).ConfigureAwait(false);
                }
                return;
            }
            await WriteAsync(file, MapSvg.Draw(name, map), cancellationToken).ConfigureAwait(false);
            await OutputAsync(new FileInfo(file)).ConfigureAwait(false);
        }
    }

    /// <summary>Asks for the extents. A cell where damage keeps one from being known is marked.</summary>
    private static async Task FillAsync(MapCells map, BlockNode disk, CancellationToken cancellationToken)
    {
        for (long at = map.Offset, end = map.Offset + map.Length, asked = end; at < end;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            try
            {
                BlockExtent extent = await disk.GetExtentAsync(at, asked - at, cancellationToken).ConfigureAwait(false);
                map.Add(MapCells.RunOf(extent));
                at = extent.End;
                asked = at < asked ? asked : end;
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
            {
                long cell = map.EndOfCell(at);
                if (asked == cell)
                {
                    map.Add(new MapRun(MapKind.Marked, 0, at, cell - at));
                    (at, cell) = (cell, end);
                }
                asked = cell; // what is looked up along with it may be at fault
            }
        }
    }

    private async Task WriteAsync(string file, string text, CancellationToken cancellationToken)
    {
        try
        {
            var stream = new FileStream(file, Force ? FileMode.Create : FileMode.CreateNew, FileAccess.Write);
            await using (stream.ConfigureAwait(false))
            {
                await stream.WriteAsync(System.Text.Encoding.UTF8.GetBytes(text), cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DiskImageException(
                e is DirectoryNotFoundException ? DiskImageErrorKind.NotFound
                    : e is UnauthorizedAccessException ? DiskImageErrorKind.AccessDenied : DiskImageErrorKind.WriteFailed,
                $"{file}: the picture cannot be written: {e.Message}", file, cause: e);
        }
    }

    private int WindowWidth()
    {
        try
        {
            int width = Host.UI?.RawUI?.WindowSize.Width ?? 0;
            return width >= Narrowest ? Math.Min(width, Widest) : DefaultWidth;
        }
        catch (HostException)
        {
            return DefaultWidth; // there is no window
        }
    }

    /// <summary>The ranges that an object names by offset and length, of the disk rather than of the file; or its findings do.</summary>
    private static IEnumerable<MapRun> MarksOf(PSObject item)
    {
        if (item.Properties["Findings"]?.Value is System.Collections.IEnumerable findings)
        {
            return findings.Cast<object>().Select(PSObject.AsPSObject).SelectMany(MarksOf);
        }
        long? offset = Number(item, "GuestOffset") ?? Number(item, "Start") ?? Number(item, nameof(Offset));
        long length = Number(item, "GuestLength") ?? Number(item, nameof(Length)) ?? 1;
        return offset is >= 0 && length > 0 && length <= long.MaxValue - offset
            ? [new MapRun(MapKind.Marked, 0, offset.Value, length)]
            : []; // of the file only
    }

    private static long? Number(PSObject item, string property)
        => (item.BaseObject is System.Collections.IDictionary named ? named[property] : item.Properties[property]?.Value) is { } value
            && LanguagePrimitives.TryConvertTo(
            value, CultureInfo.InvariantCulture, out long number) ? number : null;
}
