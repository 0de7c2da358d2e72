using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img dd</c>.</summary>
internal sealed class DdCommand : ImgCommand
{
    private const long DefaultBlock = 512;

    public override string Name => "dd";

    public override string Summary => "Copy blocks of a disk into a new image";

    public override string OperandText => "if=FILE of=FILE [bs=SIZE] [count=N] [skip=N]";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('O', "output-format", "FMT", "format of the new image; raw if not given"),
        ForceShareOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        var given = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string operand in Operands)
        {
            string[] pair = operand.Split('=', 2);
            given[pair[0]] = pair.Length == 2 && pair[0] is "if" or "of" or "bs" or "count" or "skip"
                ? pair[1]
                : throw new CommandException($"unrecognized operand {operand}");
        }
        if (!given.TryGetValue("if", out string? from) || !given.TryGetValue("of", out string? to))
        {
            throw new CommandException("Must specify both input and output files");
        }
        long block = Number(given, "bs") ?? DefaultBlock;
        if (block is <= 0 or > int.MaxValue)
        {
            throw new CommandException($"invalid number: '{given["bs"]}'");
        }
        string format = Named(Arguments.Last("output-format")) ?? "raw";
        OpenedImage source = await OpenAsync(from, Request(from, Arguments.Last("format")), cancellationToken).ConfigureAwait(false);
        await using (source.ConfigureAwait(false))
        {
            await CopyAsync(source, block, Number(given, "skip") ?? 0, Number(given, "count"), to, format, cancellationToken)
                .ConfigureAwait(false);
        }
        return 0;
    }

    private async Task CopyAsync(
        OpenedImage source, long block, long skip, long? count, string to, string format, CancellationToken cancellationToken)
    {
        var spec = new NewImageSpec(to, format, []);
        long offset = source.Node.Length, length = 0; // what is left out may be more than there is: nothing is copied then
        if (skip <= source.Node.Length / block)
        {
            (offset, length) = DiskRange.Of(source.Node, block, skip, count);
        }
        else
        {
            await Io.Error.WriteLineAsync($"qemu-img: {from(source)}: cannot skip to specified offset").ConfigureAwait(false);
        }
        spec.Size = length;
        NewImage image = await spec.CreateAsync(Front, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            if (length > 0)
            {
                BlockNode range = await DiskRange.OpenAsync(
                    FrontEnd.Registry, source.Node, offset, length, cancellationToken).ConfigureAwait(false);
                await using (range.ConfigureAwait(false))
                {
                    _ = await new ConvertJob(range, image.Node, new ConvertOptions()).RunAsync(
                        progress: null, cancellationToken).ConfigureAwait(false);
                }
            }
            await image.CompleteAsync(durable: false, cancellationToken).ConfigureAwait(false);
        }

        static string from(OpenedImage image) => Printable.Of(image.Path);
    }

    private static long? Number(Dictionary<string, string> given, string name)
        => !given.TryGetValue(name, out string? text) ? null
            : QemuSize.TryParse(text, out long number) ? number
            : throw new CommandException($"invalid number: '{text}'");
}
