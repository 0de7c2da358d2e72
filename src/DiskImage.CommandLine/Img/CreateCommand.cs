using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img create</c>.</summary>
internal sealed class CreateCommand : ImgCommand
{
    public override string Name => "create";

    public override string Summary => "Make an empty image";

    public override string OperandText => "FILE [SIZE]";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        new('f', "format", "FMT", "format of the new image; raw if not given"),
        new('o', "options", "OPTS", "options of the format, name=value,name=value; help lists them"),
        new('b', "backing", "FILE", "image that the new one stands on"),
        new('F', "backing-format", "FMT", "format of that image"),
        new('u', "backing-unsafe", null, "do not look whether the backing image is there"),
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string format = Arguments.Last("format") ?? "raw";
        if (Arguments.All("options").Any(o => o is "help" or "?"))
        {
            Named(format);
            Io.Output.WriteLine(CreateOptionLines.Help(
                $"Supported {format} options:", (FrontEnd.Registry.Format(format) as ICreatable)?.CreateOptions ?? OptionSchema.Empty));
            return 0;
        }
        string path = Operands.Count > 0 ? Operands[0] : throw CommandException.Usage("Expecting image file name");
        if (Operands.Count > 2)
        {
            throw CommandException.Usage($"Unexpected argument: {Operands[2]}");
        }
        var spec = new NewImageSpec(path, format, Arguments.All("options"))
        {
            IsUnsafe = Arguments.Has("backing-unsafe"),
        };
        long? size = Operands.Count > 1 ? QemuSize.Of("image size", Operands[1]) : null;
        if (Arguments.Last("backing") is { } backing)
        {
            spec.SetBacking(backing, format: null);
        }
        if (Arguments.Last("backing-format") is { } backingFormat && spec["backing_file"] is { } backingFile)
        {
            spec.SetBacking(backingFile, backingFormat);
        }
        if (size is long given)
        {
            spec.Size = given;
        }
        if (spec["backing_file"] is { } file)
        {
            await ResolveAsync(spec, file, cancellationToken).ConfigureAwait(false);
        }
        if (spec["size"] is null)
        {
            throw new CommandException($"{path}: Image creation needs a size parameter");
        }
        Say(CreateOptionLines.Formatting(path, spec.Format.Name, spec.Schema, spec.Values));
        await Io.Output.FlushAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            NewImage image = await spec.CreateAsync(Front, cancellationToken).ConfigureAwait(false);
            await using (image.ConfigureAwait(false))
            {
                await image.CompleteAsync(durable: false, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (DiskImageException e)
        {
            throw new CommandException($"{path}: {RemedyOptions.Say(e)}");
        }
        return 0;
    }

    /// <summary>Opens the backing image once, for its size, unless that is not wanted.</summary>
    private async Task ResolveAsync(NewImageSpec spec, string file, CancellationToken cancellationToken)
    {
        string? format = Named(spec["backing_fmt"], $"{spec.Path}: ");
        if (Arguments.Has("backing-unsafe"))
        {
            return;
        }
        string full = Io.Full(spec.Path);
        BackingReference found;
        try
        {
            found = await BackingReference.ResolveAsync(
                Front.Opener.NamingBacking(file, full), full, file, format, Io.Folder, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            throw new CommandException($"{spec.Path}: Could not open '{Printable.Of(file)}': {RemedyOptions.Say(e)}\n"
                + "Could not open backing image.");
        }
        if (format is null && spec.Schema.Find("backing_fmt") is not null)
        {
            throw new CommandException(
                $"{spec.Path}: Backing file specified without backing format\nDetected format of {found.Format}.");
        }
        if (spec["size"] is null)
        {
            spec.Size = found.Length;
        }
    }
}
