using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img resize</c>.</summary>
internal sealed class ResizeCommand : ImgCommand
{
    private string _size = "";

    public override string Name => "resize";

    public override string Summary => "Change a disk's size";

    public override string OperandText => "FILE [+|-]SIZE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('\0', "preallocation", "PREALLOC", "how new space is claimed: off, metadata, falloc, full"),
        new('\0', "shrink", null, "allow that the disk becomes smaller"),
        QuietOption,
        ObjectOption,
    ];

    /// <summary>The size is last, and may begin with a minus.</summary>
    private protected override IReadOnlyList<string> Prepare(IReadOnlyList<string> arguments)
    {
        if (arguments.Count == 0 || arguments[^1] is "-h" or "--help")
        {
            return arguments.Count == 0 ? throw CommandException.Usage("Not enough arguments") : arguments;
        }
        _size = arguments[^1];
        return [.. arguments.SkipLast(1)];
    }

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string[] files = [.. Operands];
        if (files.Length != 1)
        {
            throw CommandException.Usage(files.Length == 0 ? "Not enough arguments" : "Expecting image file name and size");
        }
        bool isRelative = _size is ['+' or '-', ..];
        if (!QemuSize.TryParse(isRelative ? _size[1..] : _size, out long bytes))
        {
            throw new CommandException("Parameter 'size' expects a non-negative number below 2^64\n"
                + "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.");
        }
        PreallocationMode preallocation = Arguments.Last("preallocation") switch
        {
            null => PreallocationMode.Off,
            string text when Enum.TryParse(text, ignoreCase: true, out PreallocationMode mode) && char.IsAsciiLetter(text[0]) => mode,
            string text => throw new CommandException($"Invalid preallocation mode '{text}'"),
        };
        OpenRequest request = Request(files[0], Arguments.Last("format"));
        OpenedImage look = await OpenAsync(files[0], request with { WithBacking = false }, cancellationToken).ConfigureAwait(false);
        await look.DisposeAsync().ConfigureAwait(false);
        request = request with { Format = look.WasProbed ? look.Format.Name : request.Format };
        using var operation = new ResizeOperation(Front, request, new SizeChange(_size[0] == '-' ? -bytes : bytes, isRelative));
        ResizePlan plan = await operation.PlanAsync(mayShrink: true, cancellationToken).ConfigureAwait(false);
        if (plan.Shrinks && !Arguments.Has("shrink"))
        {
            Front.Warn("Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, "
                + "make sure there is no important data there.");
            throw new CommandException("Use the --shrink option to perform a shrink operation.");
        }
        _ = await operation.RunAsync(plan, preallocation, cancellationToken).ConfigureAwait(false);
        Say("Image resized.");
        return 0;
    }
}
