using System.Globalization;
using System.Management.Automation;
using System.Text;

namespace DiskImage.PowerShell;

/// <summary>Draws a map with the characters of a terminal, and colours where it has some.</summary>
internal static class MapText
{
    private const int Label = 11; // columns for the offset before each line, a space included
    private const int Step = 16, Fewest = 8; // cells of a line, so that lines begin at round offsets

    /// <summary>Cells of a line that fits a window.</summary>
    public static int CellsOf(int width) => Math.Max(Fewest, (width - Label) / Step * Step);

    /// <summary>The lines of a picture: what it is, the cells, the legend.</summary>
    public static IEnumerable<string> Lines(string name, MapCells map, int width, MapColours colours)
    {
        int cells = CellsOf(width);
        yield return $"{name}: {ReadableSize.Of(map.Length)}, {ReadableSize.Of(map.CellBytes)} a cell";
        var line = new StringBuilder();
        for (int first = 0; first < map.Cells.Count; first += cells)
        {
            _ = line.Clear().Append(ReadableSize.Of(map.Offset + (first * map.CellBytes)).PadLeft(Label - 1)).Append(' ');
            string? colour = null;
            foreach (MapCell cell in map.Cells.Skip(first).Take(cells))
            {
                string next = colours[cell.Shown, cell.Depth];
                if (!next.Equals(colour, StringComparison.Ordinal))
                {
                    _ = line.Append(next);
                    colour = next;
                }
                _ = line.Append(Sign(cell.Shown));
            }
            yield return line.Append(colours.Reset).ToString();
        }
        foreach (string entry in Legend(map, width, colours))
        {
            yield return entry;
        }
    }

    /// <summary>What each sign means, and how much of the disk it is.</summary>
    private static IEnumerable<string> Legend(MapCells map, int width, MapColours colours)
    {
        var line = new StringBuilder();
        int used = 0;
        foreach (((MapKind kind, int depth), long bytes) in map.Totals.OrderByDescending(t => t.Key.Kind).ThenBy(t => t.Key.Depth))
        {
            string text = $"{Name(kind, depth)} {ReadableSize.Of(bytes)}";
            if (used > 0 && used + text.Length + 4 > width)
            {
                yield return line.ToString();
                (used, _) = (0, line.Clear());
            }
            _ = line.Append(used > 0 ? "  " : "").Append(colours[kind, depth]).Append(Sign(kind)).Append(colours.Reset)
                .Append(' ').Append(text);
            used += text.Length + (used > 0 ? 4 : 2);
        }
        if (used > 0)
        {
            yield return line.ToString();
        }
    }

    /// <summary>The words of a kind, as the view of an extent has them.</summary>
    public static string Name(MapKind kind, int depth) => kind switch
    {
        MapKind.Absent => "absent",
        MapKind.Zero => "zero",
        MapKind.Below => string.Create(CultureInfo.InvariantCulture, $"depth {depth}"),
        MapKind.Compressed => "compressed",
        MapKind.Data => "data",
        _ => "marked",
    };

    // Told apart without colours as well.
    private static char Sign(MapKind kind) => kind switch
    {
        MapKind.Absent => '·',
        MapKind.Zero => '░',
        MapKind.Below => '▒',
        MapKind.Compressed => '▓',
        MapKind.Data => '█',
        _ => 'X',
    };
}

/// <summary>The colours of kinds: those of the session's <c>$PSStyle</c>; none where it has none, or renders plain text.</summary>
/// <param name="style">What <c>$PSStyle</c> is; null for no colours.</param>
internal sealed class MapColours(object? style)
{
    private static readonly string[] s_below = ["Yellow", "Magenta", "Blue"];

    private readonly PSObject? _style = style is null || Text(PSObject.AsPSObject(style), "OutputRendering") is "PlainText"
        ? null
        : PSObject.AsPSObject(style);

    /// <summary>Ends a colour.</summary>
    public string Reset => _style is null ? "" : Text(_style, "Reset");

    /// <summary>Begins the colour of a kind.</summary>
    public string this[MapKind kind, int depth] => _style?.Properties["Foreground"]?.Value is not { } colours ? "" : Text(
        PSObject.AsPSObject(colours),
        kind switch
        {
            MapKind.Absent => "BrightBlack",
            MapKind.Zero => "White",
            MapKind.Below => s_below[(Math.Max(1, depth) - 1) % s_below.Length],
            MapKind.Compressed => "Cyan",
            MapKind.Data => "Green",
            _ => "BrightRed",
        });

    private static string Text(PSObject item, string property) => item.Properties[property]?.Value?.ToString() ?? "";
}
