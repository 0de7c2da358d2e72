using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img amend</c>.</summary>
internal sealed class AmendCommand : ImgCommand
{
    public override string Name => "amend";

    public override string Summary => "Change options of an image";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        CacheOption,
        new('o', "options", "OPTS", "what is to change, name=value,name=value; help lists the options"),
        new('\0', "force", null, "allow what loses access to data: giving up the last key slot"),
        ProgressOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string[] options = [.. Arguments.All("options")];
        if (options.Length == 0)
        {
            throw CommandException.Usage("Must specify options (-o)");
        }
        string? format = Named(Arguments.Last("format"));
        if (options.Any(o => o is "help" or "?"))
        {
            string name = format ?? throw new CommandException("Format must be given with -f for the list of options");
            Io.Output.WriteLine(FrontEnd.Registry.Format(name) is IAmendable known
                ? CreateOptionLines.Help($"Amend options for '{name}':", known.AmendOptions)
                : throw new CommandException($"Format driver '{name}' does not support option amendment"));
            return 0;
        }
        string given = Operands.Count == 1 ? Operands[0] : throw CommandException.Usage("Expecting one image file name");
        FrontEnd front = Front.With(Cache("cache", CacheMode.Writeback));
        OpenRequest request = Request(given, format);
        OpenedImage image = await OpenAsync(front, given, request with { Writable = true }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            IAmendable amendable = image.Format as IAmendable
                ?? throw new CommandException($"Format driver '{image.Format.Name}' does not support option amendment");
            object record = Bind(amendable.AmendOptions, options);
            if (amendable.AmendWarning(record) is { } warning)
            {
                front.Warn(RemedyOptions.Say(warning));
            }
            long length = image.Node.Length;
            _ = await front.ShowAsync(
                "Amending",
                async progress =>
                {
                    await amendable.AmendAsync(
                        image.Node, record, new ByteProgress("Amend", progress, length), cancellationToken).ConfigureAwait(false);
                    return true;
                }).ConfigureAwait(false);
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        return 0;
    }

    private static object Bind(OptionSchema schema, string[] options)
    {
        var values = OptionSchema.Split(string.Join(',', options)).ToList();
        return values.FirstOrDefault(v => schema.Find(v.Key) is null) is { Key: { } unknown }
            ? throw new CommandException($"Invalid parameter '{unknown}'\nThis option cannot be changed in an image that is there already; "
                + $"these can be: {string.Join(", ", schema.Options.Select(o => o.Name))}")
            : schema.Bind(values);
    }
}
