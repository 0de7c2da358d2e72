using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Bench;

/// <summary>How time grows with data and with extents: it should do so as they do. Prints tables and draws them.</summary>
internal static class Growth
{
    private const int ClusterBytes = 4096, TableEntries = ClusterBytes / 8;

    private sealed record Line(string Title, string Unit, IReadOnlyList<(double Amount, double Milliseconds)> Points);

    /// <summary>Measures, prints and draws.</summary>
    /// <param name="folder">Where the files go, one at a time; each is removed.</param>
    /// <param name="output">Where the tables and the drawing go.</param>
    /// <param name="gibibytes">Sizes of disks, half of it data.</param>
    /// <param name="extents">Numbers of extents.</param>
    public static async Task RunAsync(string folder, string output, int[] gibibytes, int[] extents)
    {
        folder = Path.Combine(folder, $"diskimage-growth-{Environment.ProcessId}");
        _ = Directory.CreateDirectory(folder);
        try
        {
            var there = new List<(double, double)>();
            var back = new List<(double, double)>();
            foreach (int size in gibibytes)
            {
                (double to, double from) = await ConvertAsync(folder, (long)size << 30);
                there.Add((size, to));
                back.Add((size, from));
            }
            var map = new List<(double, double)>();
            var check = new List<(double, double)>();
            foreach (int count in extents)
            {
                (double mapped, double checkedIn) = await TablesAsync(folder, count);
                map.Add((count, mapped));
                check.Add((count, checkedIn));
            }
            Line[] lines =
            [
                new("raw → qcow2", "GiB", there), new("qcow2 → raw", "GiB", back),
                new("map", "extents", map), new("check", "extents", check),
            ];
            string table = Table(lines);
            Console.Write(table);
            _ = Directory.CreateDirectory(output);
            await File.WriteAllTextAsync(Path.Combine(output, "growth.md"), table);
            await File.WriteAllTextAsync(Path.Combine(output, "growth.svg"), Draw(lines));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task<(double There, double Back)> ConvertAsync(string folder, long size)
    {
        string raw = Path.Combine(folder, "mix.raw"), image = Path.Combine(folder, "mix.qcow2"), again = Path.Combine(folder, "again.raw");
        Mix.Write(raw, size);
        double there = await TimeAsync(() => Scenario.ConvertAsync(raw, "raw", image, "qcow2"));
        File.Delete(raw);
        double back = await TimeAsync(() => Scenario.ConvertAsync(image, "qcow2", again, "raw"));
        File.Delete(image);
        File.Delete(again);
        return (there, back);
    }

    private static async Task<(double Map, double Check)> TablesAsync(string folder, int count)
    {
        string path = Path.Combine(folder, "extents.qcow2");
        await Comparison.RunQemuImgAsync(
        [
            "create", "-q", "-f", "qcow2", "-o", $"preallocation=metadata,cluster_size={ClusterBytes}", path, $"{(long)count * ClusterBytes}",
        ]);
        MakeHoles(path);
        await using OpenedImage image = await new ImageOpener(BuiltInDrivers.CreateRegistry(), OpenPolicy.Default).OpenAsync(
            new OpenRequest(path) { Format = "qcow2" }, CancellationToken.None);
        int found = 0;
        double map = await TimeAsync(async () =>
        {
            await foreach (BlockExtent extent in MapJob.ExtentsAsync(image.Node, 0, image.Node.Length, CancellationToken.None))
            {
                found++;
            }
        });
        if (found != count)
        {
            throw new InvalidOperationException($"{found} extents, not {count}");
        }
        double check = await TimeAsync(async () => _ = await image.Node.As<ICheckable>()!.CheckAsync(null, CancellationToken.None));
        File.Delete(path);
        return (map, check);
    }

    /// <summary>Takes every other cluster out of the tables, so that each is an extent of its own.</summary>
    private static void MakeHoles(string path)
    {
        using FileStream file = File.Open(path, FileMode.Open);
        byte[] header = new byte[48], table = new byte[ClusterBytes];
        file.ReadExactly(header);
        byte[] first = new byte[BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(36)) * 8];
        file.Position = BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(40));
        file.ReadExactly(first);
        for (int at = 0; at < first.Length; at += 8)
        {
            long place = BinaryPrimitives.ReadInt64BigEndian(first.AsSpan(at)) & 0x00FF_FFFF_FFFF_FE00;
            if (place == 0)
            {
                continue;
            }
            file.Position = place;
            file.ReadExactly(table);
            for (int entry = 1; entry < TableEntries; entry += 2)
            {
                table.AsSpan(entry * 8, 8).Clear();
            }
            file.Position = place;
            file.Write(table);
        }
    }

    private static async Task<double> TimeAsync(Func<Task> work)
    {
        long start = Stopwatch.GetTimestamp();
        await work();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }

    private static string Table(Line[] lines)
    {
        var text = new StringBuilder("| | | ms | ms for each |\n|---|---|---|---|\n");
        foreach (Line line in lines)
        {
            foreach ((double amount, double time) in line.Points)
            {
                _ = text.Append(
                    CultureInfo.InvariantCulture, $"| {line.Title} | {amount:#,0} {line.Unit} | {time:#,0} | {time / amount:0.#####} |\n");
            }
        }
        return text.ToString();
    }

    /// <summary>Two plots side by side, both axes logarithmic, so that growth in proportion is a line at 45 degrees.</summary>
    private static string Draw(Line[] lines)
    {
        const int Width = 420, Height = 320, Left = 70, Bottom = 50, Top = 40, Plot = Width - Left - 20, Rise = Height - Bottom - Top;
        string[] colours = ["#1f6feb", "#d1242f"];
        var svg = new StringBuilder();
        IGrouping<string, Line>[] plots = [.. lines.GroupBy(l => l.Unit, StringComparer.Ordinal)];
        _ = svg.Append(
            CultureInfo.InvariantCulture,
            $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {Width * plots.Length} {Height}\" font-family=\"sans-serif\" "
                + $"font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
        for (int p = 0; p < plots.Length; p++)
        {
            (double Amount, double Milliseconds)[] all = [.. plots[p].SelectMany(l => l.Points)];
            (double leftmost, double rightmost) = (Math.Log10(all.Min(a => a.Amount)), Math.Log10(all.Max(a => a.Amount)));
            (double low, double high) = (Math.Floor(Math.Log10(all.Min(a => a.Milliseconds))), Math.Ceiling(Math.Log10(all.Max(a => a.Milliseconds))));
            (rightmost, high) = (rightmost > leftmost ? rightmost : leftmost + 1, high > low ? high : low + 1);
            int origin = (p * Width) + Left;
            double X(double amount) => origin + ((Math.Log10(amount) - leftmost) / (rightmost - leftmost) * Plot);
            double Y(double time) => Top + Rise - ((Math.Log10(time) - low) / (high - low) * Rise);
            for (double power = low; power <= high; power++)
            {
                double y = Y(Math.Pow(10, power));
                _ = svg.Append(
                    CultureInfo.InvariantCulture,
                    $"<path d=\"M{origin} {y:0.0}h{Plot}\" stroke=\"#ddd\"/><text x=\"{origin - 6}\" y=\"{y + 4:0.0}\" text-anchor=\"end\">"
                        + $"{Math.Pow(10, power):#,0.###} ms</text>\n");
            }
            foreach (double amount in all.Select(a => a.Amount).Distinct())
            {
                _ = svg.Append(
                    CultureInfo.InvariantCulture,
                    $"<text x=\"{X(amount):0.0}\" y=\"{Height - Bottom + 18}\" text-anchor=\"middle\">{amount:#,0}</text>\n");
            }
            _ = svg.Append(
                CultureInfo.InvariantCulture,
                $"<text x=\"{origin + (Plot / 2)}\" y=\"{Height - 12}\" text-anchor=\"middle\">{plots[p].Key}</text>\n");
            int number = 0;
            foreach (Line line in plots[p])
            {
                string points = string.Join(
                    ' ',
                    line.Points.Select(a => string.Create(CultureInfo.InvariantCulture, $"{X(a.Amount):0.0},{Y(a.Milliseconds):0.0}")));
                _ = svg.Append(
                    CultureInfo.InvariantCulture,
                    $"<polyline points=\"{points}\" fill=\"none\" stroke=\"{colours[number % 2]}\" stroke-width=\"2\"/>"
                        + $"<text x=\"{origin + 10 + (150 * number)}\" y=\"24\" fill=\"{colours[number % 2]}\">{line.Title}</text>\n");
                number++;
            }
        }
        return svg.Append("</svg>\n").ToString();
    }
}
