using System.Diagnostics;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

/// <summary>New images that are sent to a stream or pipe.</summary>
public sealed class SentImageTests : IDisposable
{
    private const int Size = 48 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>The formats that say so of themselves, each in the form that it names, on a disk larger than what is held.</summary>
    public static TheoryData<string, string> Forms()
    {
        var data = new TheoryData<string, string>();
        foreach (string form in Images.Registry.Formats.Select(f => f.ForwardForm).OfType<string>())
        {
            string[] parts = form.Split(" with ");
            data.Add(parts[0], parts.ElementAtOrDefault(1) ?? "");
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public async Task What_is_sent_is_the_image_that_a_file_would_hold(string format, string options)
    {
        await using MemoryNode disk = await DiskAsync();
        using var sink = new MemoryStream();
        await ConvertAsync(disk, new ImageCreator(Images.Opener) { Sink = sink }, "sent", format, options);
        Assert.False(File.Exists(_folder["sent"]));
        await File.WriteAllBytesAsync(_folder["arrived"], sink.ToArray());
        await using (BlockNode arrived = await Images.OpenAsync(_folder["arrived"], format))
        {
            Assert.True((await new CompareJob(disk, arrived, strict: false).RunAsync(null, CancellationToken.None)).Identical);
            if (arrived.As<ICheckable>() is { } checkable)
            {
                Assert.Empty((await checkable.CheckAsync(null, CancellationToken.None)).Findings);
            }
        }
    }

    [Fact]
    public async Task What_is_not_written_forward_is_refused_and_the_choice_named()
    {
        using var sink = new MemoryStream();
        foreach ((string format, string options) in new[] { ("qcow2", ""), ("vpc", "subformat=dynamic"), ("vhdx", "") })
        {
            DiskImageException problem = await Assert.ThrowsAsync<DiskImageException>(
                () => CreateAsync(new ImageCreator(Images.Opener) { Sink = sink }, "sent", format, options));
            Assert.Equal(DiskImageErrorKind.Unsupported, problem.Kind);
            Assert.Contains("vpc with subformat=fixed", problem.Message, StringComparison.Ordinal);
        }
        Assert.Equal(0, sink.Length);
    }

    [NotOnWindowsFact("pipes in folders")]
    public async Task A_pipe_has_the_whole_image()
    {
        await Programs.RunAsync("mkfifo", _folder["pipe"]);
        await using MemoryNode disk = await DiskAsync();
        Task<byte[]> read = Task.Run(() => File.ReadAllBytes(_folder["pipe"]));
        await ConvertAsync(disk, new ImageCreator(Images.Opener), "pipe", "raw", "");
        Assert.True((await read).AsSpan().SequenceEqual(disk.ToArray()));
    }

    [NotOnWindowsTheory("pipes in folders")]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_pipe_that_nobody_reads_can_be_given_up(bool isOpened)
    {
        await Programs.RunAsync("mkfifo", _folder["pipe"]);
        using var cancellation = new CancellationTokenSource();
        await using MemoryNode disk = await DiskAsync();
        Task<FileStream>? reader = isOpened ? Task.Run(() => File.OpenRead(_folder["pipe"])) : null;
        Task work = ConvertAsync(disk, new ImageCreator(Images.Opener), "pipe", "raw", "", cancellation.Token);
        await using FileStream? opened = reader is null ? null : await reader;
        await Task.Delay(300);
        Assert.False(work.IsCompleted);
        await cancellation.CancelAsync();
        long started = Stopwatch.GetTimestamp();
        _ = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => work.WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.True(File.Exists(_folder["pipe"]), $"after {Stopwatch.GetElapsedTime(started)}");
    }

    private static async Task<MemoryNode> DiskAsync()
    {
        var random = new Random(7);
        var disk = new MemoryNode(new byte[Size]);
        byte[] data = new byte[300_000];
        for (int offset = 1 << 20; offset < Size - data.Length; offset += random.Next(1, 3 << 20))
        {
            random.NextBytes(data);
            await disk.WriteAsync(offset, data);
        }
        return disk;
    }

    private async Task ConvertAsync(
        BlockNode disk, ImageCreator creator, string name, string format, string options, CancellationToken cancellationToken = default)
    {
        await using NewImage image = await CreateAsync(creator, name, format, options, cancellationToken);
        Assert.True(image.IsSent);
        _ = await new ConvertJob(
            disk, image.Node, new ConvertOptions { InOrder = image.IsSent, Workers = 4 }).RunAsync(null, cancellationToken);
        await image.CompleteAsync(durable: false, cancellationToken);
    }

    private async Task<NewImage> CreateAsync(
        ImageCreator creator, string name, string format, string options, CancellationToken cancellationToken = default)
    {
        FormatDriver driver = Images.Registry.Format(format);
        object record = ((ICreatable)driver).CreateOptions.Bind(
            [.. OptionSchema.Split(options), new("size", Size.ToString(System.Globalization.CultureInfo.InvariantCulture))]);
        return await creator.CreateAsync(_folder[name], driver, record, TargetMode.New, openOptions: null, cancellationToken);
    }
}
