using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary>A subcommand of qemu-img: its options and its work. One object serves one call.</summary>
internal abstract class ImgCommand
{
    private protected static readonly CommandOption FormatOption = new('f', "format", "FMT", "format of the image");
    private protected static readonly CommandOption ImageOptsOption
        = new('\0', "image-opts", null, "treat file names as option strings, not as file names");

    private protected static readonly CommandOption ForceShareOption
        = new('U', "force-share", null, "open the image although others write to it");

    private protected static readonly CommandOption ObjectOption = new('\0', "object", "OBJECT", "define a secret: secret,id=ID,file=FILE");
    private protected static readonly CommandOption QuietOption = new('q', "quiet", null, "say nothing but errors");
    private protected static readonly CommandOption ProgressOption = new('p', "progress", null, "show how far it is");
    private protected static readonly CommandOption OutputOption = new('\0', "output", "human|json", "how the result is written");
    private protected static readonly CommandOption CacheOption = new('t', "cache", "CACHE", "cache mode of what is written");
    private protected static readonly CommandOption SourceCacheOption = new('T', "source-cache", "CACHE", "cache mode of what is read");
    private protected static readonly CommandOption HelpOption = new('h', "help", null, "show this and exit");

    /// <summary>Its name.</summary>
    public abstract string Name { get; }

    /// <summary>What it does, in one line.</summary>
    public abstract string Summary { get; }

    /// <summary>What stands behind its options, in help.</summary>
    public abstract string OperandText { get; }

    /// <summary>Its options.</summary>
    public abstract IReadOnlyList<CommandOption> Options { get; }

    /// <summary>The status if an image cannot be opened or the arguments are wrong.</summary>
    public virtual int FailureStatus => CommandException.Failure;

    private protected CommandArguments Arguments { get; private set; } = null!;

    /// <summary>Opens what is read.</summary>
    private protected FrontEnd Front { get; private set; } = null!;

    private protected ProgramIO Io => Front.Io;

    private protected bool IsJson { get; private set; }

    private protected IReadOnlyList<string> Operands => Arguments.Operands;

    /// <summary>Runs it; the exit status.</summary>
    public async Task<int> RunAsync(IReadOnlyList<string> arguments, FrontEnd front, CancellationToken cancellationToken)
    {
        Arguments = new CommandArguments([.. Options, HelpOption], Prepare(arguments));
        if (Arguments.Has("help"))
        {
            front.Io.Output.WriteLine(QemuImg.HelpOf(this));
            return 0;
        }
        Front = front with
        {
            IsQuiet = Arguments.Has("quiet"),
            ShowsProgress = Arguments.Has("progress") && !Arguments.Has("quiet"),
            Secrets = SecretObjects.Of(Arguments.All("object"), front.Io),
            Policy = front.Policy with { ForceShare = Arguments.Has("force-share") },
        };
        IsJson = Arguments.Last("output") switch
        {
            null or "human" => false,
            "json" => true,
            _ => throw new CommandException("--output must be used with human or json as argument."),
        };
        return await WorkAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Takes out of the arguments what is not read as options are.</summary>
    private protected virtual IReadOnlyList<string> Prepare(IReadOnlyList<string> arguments) => arguments;

    /// <summary>Does it; the exit status.</summary>
    private protected abstract Task<int> WorkAsync(CancellationToken cancellationToken);

    private protected void Say(string line)
    {
        if (!Front.IsQuiet)
        {
            Io.Output.WriteLine(line);
        }
    }

    /// <summary>The only operand.</summary>
    private protected string OneImage()
        => Operands.Count == 1 ? Operands[0] : throw CommandException.Usage("Expecting one image file name");

    /// <summary>A cache mode that was given; else the default.</summary>
    private protected CacheMode Cache(string key, CacheMode otherwise) => Arguments.Last(key) switch
    {
        null => otherwise,
        string name when Enum.TryParse(name, ignoreCase: true, out CacheMode mode) && !char.IsAsciiDigit(name[0]) => mode,
        string name => throw new CommandException($"Invalid {(key is "cache" ? "" : "source ")}cache option: {name}"),
    };

    /// <summary>How an image is opened: as a path, or as an option string.</summary>
    /// <param name="image">The operand.</param>
    /// <param name="format">The format that was named.</param>
    private protected OpenRequest Request(string image, string? format)
    {
        bool isDescribed = Arguments.Has("image-opts");
        if (isDescribed && format is not null)
        {
            throw new CommandException("--image-opts and --format are mutually exclusive");
        }
        return Request(image, format, isDescribed);
    }

    /// <inheritdoc cref="Request(string, string?)"/>
    private protected static OpenRequest Request(string image, string? format, bool isDescribed)
        => new(isDescribed ? NodeSpec.From(OptionSchema.Split(image)).ToString() : image) { Format = Named(format) };

    /// <summary>A format's name that is known.</summary>
    private protected static string? Named(string? format, string before = "")
        => format is null || FrontEnd.Registry.Formats.Any(f => f.IsCalled(format))
            ? format
            : throw new CommandException($"{before}Unknown file format '{format}'");

    /// <summary>Opens an image, and says of what keeps it from being opened which one it is.</summary>
    private protected Task<OpenedImage> OpenAsync(string given, OpenRequest request, CancellationToken cancellationToken)
        => OpenAsync(Front, given, request, cancellationToken);

    /// <inheritdoc cref="OpenAsync(string, OpenRequest, CancellationToken)"/>
    private protected async Task<OpenedImage> OpenAsync(
        FrontEnd front, string given, OpenRequest request, CancellationToken cancellationToken)
    {
        try
        {
            return await front.OpenAsync(request, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            throw new CommandException(CouldNotOpen(given, e), FailureStatus);
        }
    }

    private protected static string CouldNotOpen(string given, DiskImageException e)
        => $"Could not open '{Printable.Of(given)}': {ErrorText.OfOpening(e)}";

    /// <summary>The same with so many bytes read a second at most; null for no limit.</summary>
    private protected OpenRequest Limited(OpenRequest request, string? rate)
        => rate is null ? request : request with
        {
            Locator = Front.Opener.Join(
                NodeSpec.Of("throttle", ("bps-read", QemuSize.Of("rate limit", rate))),
                ImageLocator.Parse(request.Locator).Spec).ToString(),
        };

    /// <summary>A disk as it is, or as a snapshot in it keeps it.</summary>
    private protected static async Task<DiskState> StateAsync(OpenedImage image, string? snapshot, CancellationToken cancellationToken)
    {
        DiskState? state = null;
        await LoadingAsync(
            async () => state = await DiskState.OpenAsync(
                image, SnapshotName(snapshot), cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
        return state!;
    }

    /// <summary>Opens what a snapshot keeps, and says of one that is not there what QEMU says.</summary>
    private protected static async Task LoadingAsync(Func<Task> open)
    {
        try
        {
            await open().ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind is DiskImageErrorKind.NotFound or DiskImageErrorKind.Unsupported)
        {
            throw new CommandException($"Failed to load snapshot: {RemedyOptions.Say(e)}");
        }
    }

    /// <summary>The name in <c>snapshot.id=…,snapshot.name=…</c>, or the text itself; null for no snapshot.</summary>
    private protected static string? SnapshotName(string? text)
    {
        if (text?.StartsWith("snapshot.", StringComparison.Ordinal) != true)
        {
            return text;
        }
        var values = OptionSchema.Split(text).ToDictionary(p => p.Key, p => (string?)p.Value, StringComparer.Ordinal);
        return values.GetValueOrDefault("snapshot.id") ?? values.GetValueOrDefault("snapshot.name")
            ?? throw new CommandException($"Failed in parsing snapshot param '{text}'");
    }
}
