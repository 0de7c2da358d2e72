using System.Globalization;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img measure</c>.</summary>
internal sealed class MeasureCommand : ImgCommand
{
    public override string Name => "measure";

    public override string Summary => "Tell how large an image would become";

    public override string OperandText => "[FILE]";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('l', "snapshot", "SNAPSHOT", "measure a snapshot in the image"),
        new('O', "target-format", "FMT", "format to measure for; raw if not given"),
        new('o', "target-options", "OPTS", "options of that format; help lists them"),
        new('s', "size", "SIZE", "measure an empty disk of this size"),
        OutputOption,
        ForceShareOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string format = Arguments.Last("target-format") ?? "raw";
        if (Arguments.All("target-options").Any(o => o is "help" or "?"))
        {
            Named(format);
            Io.Output.WriteLine(CreateOptionLines.Help(
                $"Supported {format} options:",
                (FrontEnd.Registry.Format(format) as ICreatable)?.CreateOptions ?? DiskImage.Options.OptionSchema.Empty));
            return 0;
        }
        string? size = Arguments.Last("size");
        if (Operands.Count > 1)
        {
            throw new CommandException("At most one filename argument is allowed.");
        }
        if ((size is null) == (Operands.Count == 0))
        {
            throw new CommandException(size is null
                ? "Either --size N or one filename must be specified."
                : "--size N cannot be used together with a filename.");
        }
        var spec = new NewImageSpec(Operands.Count > 0 ? Operands[0] : format, format, Arguments.All("target-options"), isMeasured: true);
        if (spec.Format is not IMeasurable measurable)
        {
            throw new CommandException($"Format driver '{format}' does not support measuring");
        }
        if (size is not null)
        {
            spec.Size = QemuSize.Of("image size", size);
            Write(await measurable.MeasureAsync(spec.Bind(), null, cancellationToken).ConfigureAwait(false));
            return 0;
        }
        string given = Operands[0];
        OpenedImage image = await OpenAsync(given, Request(given, Arguments.Last("format")), cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            DiskState state = await StateAsync(image, Arguments.Last("snapshot"), cancellationToken).ConfigureAwait(false);
            await using (state.ConfigureAwait(false))
            {
                spec.Size = state.Disk.Length;
                Write(await measurable.MeasureAsync(spec.Bind(), state.Disk, cancellationToken).ConfigureAwait(false));
            }
        }
        return 0;
    }

    private void Write(ImageMeasurement measured)
    {
        if (IsJson)
        {
            Io.Output.WriteLine(Facts.Json(new Facts()
                .Add("bitmaps", measured.Bitmaps)
                .Add("required", measured.Required)
                .Add("fully-allocated", measured.FullyAllocated)));
            return;
        }
        Io.Output.WriteLine($"required size: {Number(measured.Required)}");
        Io.Output.WriteLine($"fully allocated size: {Number(measured.FullyAllocated)}");
        if (measured.Bitmaps is long bitmaps)
        {
            Io.Output.WriteLine($"bitmaps size: {Number(bitmaps)}");
        }
    }

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);
}
