using System.Globalization;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img convert</c>.</summary>
internal sealed class ConvertCommand : ImgCommand
{
    private const long LargestSparse = 16 << 20; // QEMU's limit
    private const int MostWorkers = 16; // QEMU's limit
    private const long DefaultSparse = 4096;

    private readonly List<OpenedImage> _sources = [];
    private DiskState? _state; // of the one source; null for several

    public override string Name => "convert";

    public override string Summary => "Copy disks into a new image";

    public override string OperandText => "FILE [FILE2 …] TARGET";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        new('f', "source-format", "FMT", "format of the sources"),
        ImageOptsOption,
        new('l', "source-snapshot", "SNAPSHOT", "copy a snapshot in the source: its name, or snapshot.id=ID,snapshot.name=NAME"),
        SourceCacheOption,
        new('O', "target-format", "FMT", "format of the target; raw if not given"),
        new('\0', "target-image-opts", null, "the target is an option string, not a file name"),
        new('o', "target-format-options", "OPTS", "options of the target's format; help lists them"),
        new('c', "compress", null, "store data compressed"),
        CacheOption,
        new('B', "target-backing", "FILE", "backing image of the target: what the source has from its own is left out"),
        new('F', "backing-format", "FMT", "format of that image"),
        new('n', "no-create", null, "write into a target that is there already"),
        new('\0', "target-is-zero", null, "the target reads as zeroes; with -n"),
        new('S', "sparse-size", "SIZE", "shortest run of zeroes that is not stored; 0 stores everything"),
        new('\0', "bitmaps", null, "copy dirty bitmaps, too"),
        new('\0', "skip-broken-bitmaps", null, "leave out bitmaps that were not saved properly"),
        new('\0', "salvage", null, "read on after errors; what cannot be read is zeroes"),
        new('r', "rate-limit", "RATE", "bytes a second at most"),
        new('m', "parallel", "NUM", "requests at once, 1 to 16"),
        new('W', "oob", null, "write out of order, which is done anyway"),
        new('C', "copy-range-offloading", null, "have the host copy, which is done anyway where it can"),
        ForceShareOption,
        ProgressOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string format = Arguments.Last("target-format") ?? "raw";
        if (Arguments.All("target-format-options").Any(o => o is "help" or "?"))
        {
            Named(format);
            Io.Output.WriteLine(CreateOptionLines.Help(
                $"Supported {format} options:",
                (FrontEnd.Registry.Format(format) as Drivers.ICreatable)?.CreateOptions ?? DiskImage.Options.OptionSchema.Empty));
            return 0;
        }
        if (Operands.Count < 2)
        {
            throw new CommandException("Must specify image file name");
        }
        bool isThere = Arguments.Has("no-create");
        CheckTogether(isThere);
        try
        {
            BlockNode disk = await OpenSourcesAsync(cancellationToken).ConfigureAwait(false);
            await ConvertAsync(disk, Operands[^1], format, isThere, cancellationToken).ConfigureAwait(false);
            return 0;
        }
        finally
        {
            if (_state is not null)
            {
                await _state.DisposeAsync().ConfigureAwait(false);
            }
            foreach (OpenedImage source in _sources)
            {
                await source.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private void CheckTogether(bool isThere)
    {
        string? wrong = Arguments.Has("target-image-opts") && !isThere ? "--target-image-opts requires use of -n flag"
            : Arguments.Has("target-is-zero") && !isThere ? "--target-is-zero requires use of -n flag"
            : Arguments.Has("target-is-zero") && Arguments.Has("target-backing")
                ? "Cannot use --target-is-zero when the destination image has a backing file"
            : Arguments.Has("skip-broken-bitmaps") && !Arguments.Has("bitmaps") ? "Use of --skip-broken-bitmaps requires --bitmaps"
            : Arguments.Has("compress") && Arguments.Has("copy-range-offloading") ? "Cannot enable copy offloading when -c is used"
            : Arguments.Has("sparse-size") && Arguments.Has("copy-range-offloading") ? "Cannot enable copy offloading when -S is used"
            : Arguments.Has("salvage") && Arguments.Has("copy-range-offloading") ? "Cannot use copy offloading in salvaging mode"
            : Arguments.Has("target-image-opts") && Arguments.Has("target-format") ? "Cannot use --target-image-opts and -O together"
            : Arguments.Has("target-backing") && Arguments.Last("backing-format") is null && !HasOption("backing_fmt") && !isThere
                ? "Use of backing file requires explicit backing format"
            : Arguments.Has("source-snapshot") && Operands.Count > 2 ? "No support for concatenating multiple snapshot"
            : null;
        if (wrong is not null)
        {
            throw new CommandException(wrong);
        }
    }

    private bool HasOption(string name)
        => OptionSchema.Split(string.Join(',', Arguments.All("target-format-options")))
            .Any(o => o.Key.Equals(name, StringComparison.Ordinal));

    /// <summary>The disk that is copied: a source, a snapshot of it, or several sources one behind the other.</summary>
    private async Task<BlockNode> OpenSourcesAsync(CancellationToken cancellationToken)
    {
        FrontEnd front = Front.With(Cache("source-cache", CacheMode.Writeback));
        foreach (string given in Operands.SkipLast(1))
        {
            OpenRequest request = Limited(Request(given, Arguments.Last("source-format")), Arguments.Last("rate-limit"));
            _sources.Add(await OpenAsync(front, given, request, cancellationToken).ConfigureAwait(false));
        }
        if (_sources.Count == 1)
        {
            _state = await StateAsync(_sources[0], Arguments.Last("source-snapshot"), cancellationToken).ConfigureAwait(false);
        }
        BlockNode disk = _state?.Disk ?? new JoinedNode([.. _sources.Select(s => s.Node)]);
        return !Arguments.Has("salvage") ? disk : new SalvageNode(disk, (offset, length, why) => front.Warn(
            $"error while reading offset {offset.ToString(CultureInfo.InvariantCulture)}: {RemedyOptions.Say(why)}"));
    }

    private async Task ConvertAsync(
        BlockNode disk, string target, string format, bool isThere, CancellationToken cancellationToken)
    {
        FrontEnd front = Front.With(Cache("cache", CacheMode.Unsafe));
        var operation = new ConvertOperation(front, _sources[0], disk, Request());
        NewImageSpec? spec = isThere ? null : Target(target, format, disk);
        await operation.PrepareAsync(cancellationToken).ConfigureAwait(false);
        if (spec is null)
        {
            await OverwriteAsync(front, operation, disk, target, format, cancellationToken).ConfigureAwait(false);
            return;
        }
        NewImage image;
        try
        {
            if (_sources.Any(s => s.Node.FindSame(front.Opener.IdentityOf(Io.Full(target))) is not null))
            {
                throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"it is part of what is copied");
            }
            image = await spec.CreateAsync(front, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            throw new CommandException($"{target}: error while converting {format}: {RemedyOptions.Say(e)}");
        }
        await using (image.ConfigureAwait(false))
        {
            RequireCompression(image.Node);
            _ = await operation.RunAsync(image, cancellationToken).ConfigureAwait(false);
        }
    }

    private NewImageSpec Target(string target, string format, BlockNode disk)
    {
        Named(format);
        var spec = new NewImageSpec(target, format, Arguments.All("target-format-options"));
        if (Arguments.Last("target-backing") is { } backing)
        {
            spec.SetBacking(backing, Named(Arguments.Last("backing-format")));
        }
        if (spec["size"] is null)
        {
            spec.Size = disk.Length;
        }
        return spec;
    }

    private async Task OverwriteAsync(
        FrontEnd front, ConvertOperation operation, BlockNode disk, string target, string format, CancellationToken cancellationToken)
    {
        bool isDescribed = Arguments.Has("target-image-opts");
        OpenRequest request = Request(target, isDescribed ? null : format, isDescribed) with { Writable = true };
        OpenedImage image = await OpenAsync(front, target, request, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            RequireCompression(image.Node);
            if (image.Node.Length < disk.Length)
            {
                throw new CommandException("output file is smaller than input file");
            }
            _ = await operation.OverwriteAsync(image.Node, Arguments.Has("target-is-zero"), cancellationToken).ConfigureAwait(false);
        }
    }

    private void RequireCompression(BlockNode target)
    {
        if (Arguments.Has("compress") && target.As<ICompressedWritable>() is null)
        {
            throw new CommandException("Compression not supported for this file format");
        }
    }

    private ConvertRequest Request()
    {
        long sparse = DefaultSparse;
        if (Arguments.Last("sparse-size") is { } text
            && (!QemuSize.TryParse(text, out sparse) || sparse % 512 != 0 || sparse > LargestSparse))
        {
            throw new CommandException("Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to "
                + LargestSparse.ToString(CultureInfo.InvariantCulture)
                + ". Select 0 to disable sparse detection (fully allocates output).");
        }
        int workers = 0;
        if (Arguments.Last("parallel") is { } number
            && (!int.TryParse(number, CultureInfo.InvariantCulture, out workers) || workers is < 1 or > MostWorkers))
        {
            throw new CommandException(
                "Invalid number of coroutines. Allowed number of coroutines is between 1 and "
                    + MostWorkers.ToString(CultureInfo.InvariantCulture));
        }
        return new ConvertRequest
        {
            IsSnapshot = Arguments.Has("source-snapshot"),
            SparseSize = sparse,
            Compress = Arguments.Has("compress"),
            Bitmaps = !Arguments.Has("bitmaps") ? BitmapChoice.None
                : Arguments.Has("skip-broken-bitmaps") ? BitmapChoice.Sound : BitmapChoice.All,
            Shares = !Arguments.Has("sparse-size") || sparse == 0,
            Durable = Arguments.Has("cache") && Cache("cache", CacheMode.Unsafe) != CacheMode.Unsafe,
            Workers = workers,
        };
    }
}
