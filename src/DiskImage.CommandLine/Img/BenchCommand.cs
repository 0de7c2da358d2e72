using System.Globalization;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img bench</c>.</summary>
internal sealed class BenchCommand : ImgCommand
{
    private const long LargestBuffer = 1 << 30; // ours
    private const int MostAtOnce = 1024; // ours

    public override string Name => "bench";

    public override string Summary => "Time requests of one size to an image";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('t', "cache", "CACHE", "cache mode of the image"),
        new('c', "count", "COUNT", "how many requests; 75000 if not given"),
        new('d', "depth", "DEPTH", "how many at once; 64 if not given"),
        new('o', "offset", "OFFSET", "where to begin"),
        new('s', "buffer-size", "SIZE", "bytes of a request; 4096 if not given"),
        new('S', "step-size", "SIZE", "bytes from one request to the next; those of a request if not given"),
        new('w', "write", null, "write instead of reading"),
        new('\0', "pattern", "PATTERN", "byte that is written; 0 if not given"),
        new('\0', "flush-interval", "NUM", "flush after so many writes"),
        new('\0', "no-drain", null, "do not wait for what is under way before a flush"),
        new('i', "aio", "AIO", "taken, and has no effect"),
        new('n', "native", null, "taken, and has no effect"),
        ForceShareOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string given = OneImage();
        bool isWrite = Arguments.Has("write");
        long count = Number("count", 75000), depth = Number("depth", 64), flush = Number("flush-interval", 0);
        long pattern = Number("pattern", 0);
        long size = Arguments.Last("buffer-size") is { } s ? QemuSize.Of("buffer size", s) : 4096;
        long step = Arguments.Last("step-size") is { } t && QemuSize.Of("step size", t) is > 0 and var wanted ? wanted : size;
        long offset = Arguments.Last("offset") is { } o ? QemuSize.Of("offset", o) : 0;
        string? wrong = !isWrite && flush > 0 ? "--flush-interval is only available in write tests"
            : flush > 0 && flush < depth ? "Flush interval can't be smaller than depth"
            : size is <= 0 or > LargestBuffer ? "Invalid buffer size specified"
            : pattern > byte.MaxValue ? "Invalid pattern byte specified" : null;
        if (wrong is not null)
        {
            throw new CommandException(wrong);
        }
        FrontEnd front = Front.With(Cache("cache", CacheMode.Writeback));
        OpenedImage image = await OpenAsync(
            front, given, Request(given, Arguments.Last("format")) with { Writable = isWrite }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            Io.Output.WriteLine($"Sending {Text(count)} {(isWrite ? "write" : "read")} requests, {Text(size)} bytes each, "
                + $"{Text(depth)} in parallel (starting at offset {Text(offset)}, step size {Text(step)})");
            if (flush > 0)
            {
                Io.Output.WriteLine($"Sending flush every {Text(flush)} requests");
            }
            var shape = new BenchShape((int)size, offset, step, isWrite, (byte)pattern, flush, Drains: !Arguments.Has("no-drain"));
            BenchResult result = await new BenchJob(image.Node, shape, count, (int)Math.Clamp(depth, 1, MostAtOnce)).RunAsync(
                progress: null, cancellationToken).ConfigureAwait(false);
            Io.Output.WriteLine($"Run completed in {result.Elapsed.TotalSeconds.ToString("0.000", CultureInfo.InvariantCulture)} seconds.");
        }
        return 0;
    }

    private long Number(string key, long otherwise)
        => Arguments.Last(key) is not { } text ? otherwise
            : QemuSize.TryParse(text, out long number) ? number
            : throw new CommandException($"Invalid {key.Replace('-', ' ')} specified");

    private static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);
}
