using System.Globalization;
using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Graph;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary>The image that qemu-io has open, and what is asked of it.</summary>
/// <param name="front">Opens images.</param>
internal sealed class IoSession(FrontEnd front) : IAsyncDisposable
{
    private static readonly IReadOnlyList<CommandOption> s_openOptions =
    [
        new('r', null, null, "to be read only"),
        new('s', null, null, "what is written goes to a temporary overlay"),
        new('n', null, null, "past the host's cache"),
        new('C', null, null, "keep what is read from the backing image"),
        new('U', null, null, "although others write to it"),
        new('k', null, null, "taken, and has no effect"),
        new('t', null, "CACHE", "cache mode"),
        new('d', null, "off|unmap", "what a discard does"),
        new('i', null, "AIO", "taken, and has no effect"),
        new('o', null, "OPTS", "options of the image: driver=…"),
    ];

    private static readonly IReadOnlyList<CommandOption> s_reopenOptions =
    [
        new('r', null, null, "to be read only"),
        new('w', null, null, "to be written, too"),
        new('c', null, "CACHE", "cache mode"),
        new('o', null, "OPTS", "options that change"),
    ];

    private OpenedImage? _image;
    private bool _isWritable;
    private (OpenRequest Request, CommandArguments How)? _opened;

    /// <summary>Where words go.</summary>
    public ProgramIO Io => front.Io;

    /// <summary>What is taken where none is named; null to probe.</summary>
    public string? Format { get; init; }

    /// <summary>Operands are option strings.</summary>
    public bool IsDescribed { get; init; }

    /// <summary>The commands about the image itself.</summary>
    public IReadOnlyList<IoCommand> Commands =>
    [
        new(["open", "o"], s_openOptions, "[FILE]", 0, 1, "open an image", OpenAsync),
        new(["close", "c"], [], "", 0, 0, "close it", CloseAsync),
        new(["reopen"], s_reopenOptions, "", 0, 0, "open it again in another way", ReopenAsync),
        new(["length", "l"], [], "", 0, 0, "say how long the disk is", LengthAsync),
        new(["info", "i"], [], "", 0, 0, "say what it is", InfoAsync),
        new(["map", "m"], [], "", 0, 0, "say which ranges the image itself holds", MapAsync),
        new(["alloc", "a"], [], "OFFSET [COUNT]", 1, 2, "say how many bytes of a range the image itself holds", AllocAsync),
    ];

    /// <summary>The open disk.</summary>
    /// <exception cref="CommandException">None is.</exception>
    public BlockNode Disk() => _image is null ? throw CommandException.Usage("no file open, try 'help open'") : _image.Node;

    /// <summary>Something was asked for that changes the open image.</summary>
    public bool IsChanged { get; set; }

    /// <summary>Requests that are under way.</summary>
    public IoPending Pending { get; } = new(front.Io);

    /// <summary>A number of bytes.</summary>
    public static long Number(string text)
        => QemuSize.TryParse(text, out long number) ? number : throw new CommandException(
                $"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}");

    /// <summary>Opens an image.</summary>
    /// <param name="file">Its path or option string.</param>
    /// <param name="how">The options of <c>open</c>, or those of the program, which are the same letters.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async Task<bool> OpenAsync(string? file, CommandArguments how, CancellationToken cancellationToken)
    {
        if (_image is not null)
        {
            throw new CommandException("file open already, try 'help close'");
        }
        string? options = how.Last("o");
        if (file is null && options is null)
        {
            throw new CommandException("no file given");
        }
        string locator = options is not null
            ? Described(options, file)
            : IsDescribed ? NodeSpec.From(OptionSchema.Split(file!)).ToString() : file!;
        _isWritable = !how.Has("r");
        _opened = (new OpenRequest(locator) { Format = options is null && !IsDescribed ? Format : null }, how);
        return await OpenAsync(IsDescribed ? "" : file ?? "", cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        if (_image is not null)
        {
            await EndAsync(_image).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Has all that is under way end, also what was stopped, and closes the image. That its file cannot be flushed then is no error for one
    /// that nothing was asked to change, as in QEMU.
    /// </summary>
    private async Task EndAsync(OpenedImage image)
    {
        IoBreakpoints.Of(image.Node)?.RemoveAll();
        await Pending.DrainAsync().ConfigureAwait(false);
        try
        {
            await image.DisposeAsync().ConfigureAwait(false);
        }
        catch (DiskImageException) when (!IsChanged)
        {
            // Nothing is lost by it.
        }
        IsChanged = false;
    }

    private string Described(string options, string? file)
    {
        var said = NodeSpec.From(OptionSchema.Split(options));
        return (file is null ? said : said.Over(DebugName.Named(said, file, Io))).ToString();
    }

    private async Task<bool> OpenAsync(string shown, CancellationToken cancellationToken)
    {
        (OpenRequest request, CommandArguments how) = _opened!.Value;
        CacheMode mode = how.Has("n") ? CacheMode.None : (how.Last("t") ?? how.Last("c")) is not { } cache ? CacheMode.Writeback
            : Enum.TryParse(cache, ignoreCase: true, out CacheMode named) ? named
            : throw new CommandException($"Invalid cache option: {cache}");
        FrontEnd opening = front.With(mode);
        bool isShared = how.Has("U");
        opening = opening with { Policy = opening.Policy with { ForceShare = isShared } };
        string locator = how.Has("C")
            ? front.Opener.Join(
                NodeSpec.Of("copy-on-read"), ImageLocator.Parse(DebugName.Expand(request.Locator, Io)).Spec).ToString()
            : request.Locator;
        try
        {
            _image = await opening.OpenAsync(
                request with { Locator = locator, Writable = _isWritable, TemporaryOverlay = how.Has("s") },
                cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (DiskImageException e)
        {
            string what = shown.Length > 0 ? $" device {Printable.Of(shown)}" : "";
            await Io.Error.WriteLineAsync($"qemu-io: can't open{what}: {ErrorText.OfOpening(e)}").ConfigureAwait(false);
            return false;
        }
    }

    private Task<bool> OpenAsync(CommandArguments arguments, CancellationToken cancellationToken)
        => OpenAsync(arguments.Operands.Count > 0 ? arguments.Operands[0] : null, arguments, cancellationToken);

    private async Task<bool> CloseAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        _ = Disk();
        OpenedImage image = _image!;
        _image = null;
        await EndAsync(image).ConfigureAwait(false);
        return true;
    }

    private async Task<bool> ReopenAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        _ = await CloseAsync(arguments, cancellationToken).ConfigureAwait(false);
        OpenRequest request = _opened!.Value.Request;
        if (arguments.Last("o") is { } options)
        {
            request = request with
            {
                Locator = NodeSpec.From(OptionSchema.Split(options)).Over(ImageLocator.Parse(request.Locator).Spec).ToString(),
            };
        }
        _isWritable = !arguments.Has("r") && (arguments.Has("w") || _isWritable);
        _opened = (request, arguments);
        return await OpenAsync("", cancellationToken).ConfigureAwait(false);
    }

    private Task<bool> LengthAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        Io.Output.WriteLine(QemuSize.Exact(Disk().Length));
        return Task.FromResult(true);
    }

    private async Task<bool> InfoAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        _ = Disk();
        ImageDescription? said = _image!.Node.As<IDescribed>()?.Describe();
        await Io.Output.WriteLineAsync($"format name: {_image.Format.Name}").ConfigureAwait(false);
        await Io.Output.WriteLineAsync($"cluster size: {QemuSize.Exact(said?.ClusterSize ?? 0)}").ConfigureAwait(false);
        await Io.Output.WriteLineAsync($"vm state offset: {QemuSize.Exact(StateOffset(said))}").ConfigureAwait(false);
        string text = (await new InfoFacts(_image, _image.Path, null).LoadAsync(cancellationToken).ConfigureAwait(false)).Text();
        int at = text.IndexOf("Format specific", StringComparison.Ordinal), end = text.IndexOf("Child node", StringComparison.Ordinal);
        await Io.Output.WriteAsync(at < 0 ? "" : text[at..(end < 0 ? text.Length : end)]).ConfigureAwait(false);
        return true;
    }

    /// <summary>Where a machine's state begins: behind the disk, where the next L2 table does. 0 for formats that keep none.</summary>
    private long StateOffset(ImageDescription? said)
    {
        if (said is not { FormatSpecific: Qcow2Info info, ClusterSize: long cluster })
        {
            return 0;
        }
        long reach = cluster / (info.ExtendedL2 ? 16 : 8) * cluster; // of one L2 table
        return (Disk().Length + reach - 1) / reach * reach;
    }

    private async Task<bool> MapAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        BlockNode disk = Disk();
        for (long offset = 0; offset < disk.Length;)
        {
            (bool isHeld, long length) = await RunAsync(disk, offset, disk.Length, cancellationToken).ConfigureAwait(false);
            await Io.Output.WriteLineAsync(string.Create(
                CultureInfo.InvariantCulture,
                $"{QemuSize.Exact(length)} (0x{length:x}) bytes {(isHeld ? "    allocated" : "not allocated")} at offset "
                    + $"{QemuSize.Exact(offset)} (0x{offset:x})")).ConfigureAwait(false);
            offset += length;
        }
        return true;
    }

    private async Task<bool> AllocAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        BlockNode disk = Disk();
        long start = Number(arguments.Operands[0]), count = arguments.Operands.Count > 1 ? Number(arguments.Operands[1]) : 512, held = 0;
        if (start > disk.Length)
        {
            throw new CommandException("sector past end of device");
        }
        count = Math.Min(count, disk.Length - start);
        for (long offset = start; offset < start + count;)
        {
            (bool isHeld, long length) = await RunAsync(disk, offset, start + count, cancellationToken).ConfigureAwait(false);
            held += isHeld ? length : 0;
            offset += length;
        }
        await Io.Output.WriteLineAsync(string.Create(
            CultureInfo.InvariantCulture, $"{held}/{count} bytes allocated at offset {QemuSize.Exact(start)}")).ConfigureAwait(false);
        return true;
    }

    /// <summary>How far the image itself holds what is there, or does not.</summary>
    private static async Task<(bool IsHeld, long Length)> RunAsync(
        BlockNode disk, long offset, long end, CancellationToken cancellationToken)
    {
        BlockExtent extent = await disk.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
        bool isHeld = IsHeld(extent);
        while (extent.End < end)
        {
            BlockExtent next = await disk.GetExtentAsync(extent.End, end - extent.End, cancellationToken).ConfigureAwait(false);
            if (IsHeld(next) != isHeld)
            {
                break;
            }
            extent = next;
        }
        return (isHeld, extent.End - offset);

        static bool IsHeld(in BlockExtent extent) => extent is { IsAllocated: true, Depth: 0 };
    }
}
