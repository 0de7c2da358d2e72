using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img bitmap</c>.</summary>
internal sealed class BitmapCommand : ImgCommand
{
    private static readonly string[] s_actions = ["add", "remove", "clear", "enable", "disable", "merge"];

    public override string Name => "bitmap";

    public override string Summary => "Change dirty bitmaps inside an image";

    public override string OperandText => "FILE BITMAP";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('\0', "add", null, "add it"),
        new('g', "granularity", "GRANULARITY", "bytes that a bit of a new bitmap stands for"),
        new('\0', "remove", null, "remove it"),
        new('\0', "clear", null, "clear its bits"),
        new('\0', "enable", null, "have it record writes"),
        new('\0', "disable", null, "have it record no writes"),
        new('\0', "merge", "BITMAP", "set the bits that another one has"),
        new('b', "source-file", "FILE", "image that holds the other bitmap"),
        new('F', "source-format", "FMT", "format of that image"),
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        (string Key, string? Value)[] actions = [.. Arguments.Given.Where(g => s_actions.Contains(g.Key, StringComparer.Ordinal))];
        if (actions.Length == 0)
        {
            throw new CommandException("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
        }
        if (Operands.Count != 2)
        {
            throw CommandException.Usage("Expecting filename and bitmap name");
        }
        if (Arguments.Has("granularity") && !Arguments.Has("add"))
        {
            throw new CommandException("granularity only supported with --add");
        }
        (string given, string bitmap) = (Operands[0], Operands[1]);
        long? granularity = Arguments.Last("granularity") is { } g ? QemuSize.Of("granularity", g) : null;
        OpenedImage image = await OpenAsync(
            given, Request(given, Arguments.Last("format")) with { Writable = true }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            foreach ((string action, string? value) in actions)
            {
                try
                {
                    IBitmaps kept = image.Node.As<IBitmaps>() ?? throw new DiskImageException(
                        DiskImageErrorKind.Unsupported,
                        $"Can't store persistent bitmaps: images of format '{image.Format.Name}' keep none");
                    await ActAsync(kept, action, bitmap, value, granularity, cancellationToken).ConfigureAwait(false);
                }
                catch (DiskImageException e)
                {
                    throw new CommandException($"Operation {action} on bitmap {Printable.Of(bitmap)} failed: {RemedyOptions.Say(e)}");
                }
            }
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        return 0;
    }

    private async Task ActAsync(
        IBitmaps kept, string action, string bitmap, string? value, long? granularity, CancellationToken cancellationToken)
    {
        switch (action)
        {
            case "add":
                _ = await kept.AddBitmapAsync(bitmap, granularity, enabled: true, cancellationToken).ConfigureAwait(false);
                break;
            case "remove":
                await kept.RemoveBitmapAsync(bitmap, cancellationToken).ConfigureAwait(false);
                break;
            case "clear":
                await kept.ClearBitmapAsync(bitmap, cancellationToken).ConfigureAwait(false);
                break;
            case "merge":
                IReadOnlyList<(long Offset, long Length)> dirty = await DirtyAsync(kept, value!, cancellationToken).ConfigureAwait(false);
                await kept.MergeBitmapAsync(bitmap, dirty, cancellationToken).ConfigureAwait(false);
                break;
            default:
                await kept.EnableBitmapAsync(bitmap, action is "enable", cancellationToken).ConfigureAwait(false);
                break;
        }
    }

    /// <summary>What another bitmap holds, of the same image or of another.</summary>
    private async Task<IReadOnlyList<(long Offset, long Length)>> DirtyAsync(
        IBitmaps kept, string bitmap, CancellationToken cancellationToken)
    {
        if (Arguments.Last("source-file") is not { } file)
        {
            return await kept.GetDirtyRangesAsync(bitmap, cancellationToken).ConfigureAwait(false);
        }
        OpenedImage source = await OpenAsync(
            file,
            Request(file, Arguments.Last("source-format"), isDescribed: false) with { WithBacking = false, Role = ImageRole.Source },
            cancellationToken).ConfigureAwait(false);
        await using (source.ConfigureAwait(false))
        {
            IBitmapList list = source.Node.As<IBitmapList>() ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound, $"Dirty bitmap '{bitmap}' not found");
            return await list.GetDirtyRangesAsync(bitmap, cancellationToken).ConfigureAwait(false);
        }
    }
}
