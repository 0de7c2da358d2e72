using System.Globalization;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img map</c>.</summary>
internal sealed class MapCommand : ImgCommand
{
    public override string Name => "map";

    public override string Summary => "Show where an image keeps its data";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('s', "start-offset", "OFFSET", "where to begin"),
        new('l', "max-length", "LEN", "how many bytes to look at"),
        OutputOption,
        ForceShareOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string given = OneImage();
        long start = Arguments.Last("start-offset") is { } s ? QemuSize.Of("start offset", s) : 0;
        long? most = Arguments.Last("max-length") is { } l ? QemuSize.Of("max length", l) : null;
        OpenedImage image = await OpenAsync(given, Request(given, Arguments.Last("format")), cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            long length = Math.Min(most ?? long.MaxValue, image.Node.Length - start);
            if (!IsJson)
            {
                Io.Output.WriteLine("Offset          Length          Mapped to       File");
            }
            string name = Arguments.Has("image-opts") ? image.Path : ShownName.Given(given);
            bool isFirst = true;
            Io.Output.Write(IsJson ? "[" : "");
            await foreach (BlockExtent extent in MapJob.ExtentsAsync(
                image.Node, start, Math.Max(0, length), cancellationToken).ConfigureAwait(false))
            {
                if (IsJson)
                {
                    Io.Output.Write((isFirst ? "" : ",\n") + Json(extent));
                }
                else
                {
                    WriteRow(extent, image, name);
                }
                isFirst = false;
            }
            Io.Output.Write(IsJson ? "]\n" : "");
        }
        return 0;
    }

    private static string Json(in BlockExtent extent)
    {
        string offset = extent.HostOffset is long host ? $", \"offset\": {Number(host)}" : "";
        return $"{{ \"start\": {Number(extent.Offset)}, \"length\": {Number(extent.Length)}, \"depth\": {Number(extent.Depth)}, "
            + $"\"present\": {Word(extent.IsAllocated)}, \"zero\": {Word(extent.IsZero)}, \"data\": {Word(extent.IsData)}, "
            + $"\"compressed\": {Word(extent.IsCompressed)}{offset}}}";
    }

    private void WriteRow(in BlockExtent extent, OpenedImage image, string given)
    {
        if (!extent.IsData || extent.IsZero)
        {
            return;
        }
        if (extent.HostOffset is not long host)
        {
            throw new CommandException("File contains external, encrypted or compressed clusters.");
        }
        string file = ShownName.Of(extent.Node?.Name ?? "", image.Path, given);
        Io.Output.WriteLine($"{Hex(extent.Offset),-16}{Hex(extent.Length),-16}{Hex(host),-16}{Printable.Of(file)}");
    }

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Word(bool value) => value ? "true" : "false";

    private static string Hex(long value) => value == 0 ? "0" : "0x" + value.ToString("x", CultureInfo.InvariantCulture);
}
