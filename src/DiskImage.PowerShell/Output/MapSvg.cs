using System.Globalization;
using System.Net;
using System.Text;

namespace DiskImage.PowerShell;

/// <summary>Draws a map as a picture in SVG 1.1: a rectangle for each run of alike cells, titled with what it is, and a legend.</summary>
internal static class MapSvg
{
    private const int Columns = 128, Cell = 8, Left = 90, Top = 44, Line = 12, Margin = 16, LegendHeight = 24;

    /// <summary>Cells that a picture has at most.</summary>
    public const int MostCells = Columns * 64;

    public static string Draw(string name, MapCells map)
    {
        int rows = Math.Max(1, (map.Cells.Count + Columns - 1) / Columns), legend = Top + (rows * Line) + Margin;
        int width = Left + (Columns * Cell) + Margin, height = legend + LegendHeight + Margin;
        string title = WebUtility.HtmlEncode($"{name}: {ReadableSize.Of(map.Length)}, {ReadableSize.Of(map.CellBytes)} a cell");
        var svg = new StringBuilder();
        _ = svg.Append(CultureInfo.InvariantCulture, $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\"");
        Append($" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">");
        Append($"<title>{title}</title><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>");
        Append($"<text x=\"{Margin}\" y=\"24\" font-size=\"15\">{title}</text>");
        for (int row = 0; row < rows; row++)
        {
            int y = Top + (row * Line);
            string label = ReadableSize.Of(At(row * Columns));
            Append($"<text x=\"{Left - 8}\" y=\"{y + 9}\" font-size=\"10\" text-anchor=\"end\">{label}</text>");
            int end = Math.Min(map.Cells.Count, (row + 1) * Columns);
            for (int first = row * Columns, next; first < end; first = next)
            {
                (MapKind kind, int depth) = (map.Cells[first].Shown, map.Cells[first].Depth);
                for (next = first + 1; next < end && map.Cells[next].Shown == kind && map.Cells[next].Depth == depth; next++)
                {
                }
                long from = At(first), to = Math.Min(At(next), map.Offset + map.Length);
                int left = Left + ((first % Columns) * Cell), across = (next - first) * Cell;
                _ = svg.Append(CultureInfo.InvariantCulture, $"<rect x=\"{left}\" y=\"{y}\" width=\"{across}\" height=\"{Line - 2}\"");
                Append($" fill=\"{Colour(kind, depth)}\"><title>{from} to {to}: {MapText.Name(kind, depth)}</title></rect>");
            }
        }
        int x = Left;
        foreach (((MapKind kind, int depth), long bytes) in map.Totals.OrderByDescending(t => t.Key.Kind).ThenBy(t => t.Key.Depth))
        {
            string text = $"{MapText.Name(kind, depth)} {ReadableSize.Of(bytes)}";
            Append($"<rect x=\"{x}\" y=\"{legend}\" width=\"12\" height=\"12\" fill=\"{Colour(kind, depth)}\" stroke=\"#999\"/>");
            Append($"<text x=\"{x + 18}\" y=\"{legend + 10}\">{text}</text>");
            x += 36 + (7 * text.Length);
        }
        return svg.Append("</svg>\n").ToString();

        long At(int cell) => map.Offset + (cell * map.CellBytes);

        void Append(FormattableString element) => svg.Append(element.ToString(CultureInfo.InvariantCulture)).Append('\n');
    }

    private static string Colour(MapKind kind, int depth)
    {
        string[] below = ["#e3b341", "#bc8cff", "#58a6ff"];
        return kind switch
        {
            MapKind.Absent => "#f0f0f0",
            MapKind.Zero => "#c8c8c8",
            MapKind.Below => below[(Math.Max(1, depth) - 1) % below.Length],
            MapKind.Compressed => "#1b7c83",
            MapKind.Data => "#2da44e",
            _ => "#d1242f",
        };
    }
}
