using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>Whoever claims much space says how far it is.</summary>
public sealed class ClaimProgressTests : IDisposable
{
    private const long MiB = 1 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("raw", "", PreallocationMode.Full)]
    [InlineData("raw", "", PreallocationMode.Falloc)]
    [InlineData("qcow2", "", PreallocationMode.Full)]
    [InlineData("vpc", "subformat=fixed", PreallocationMode.Full)]
    [InlineData("vpc", "", PreallocationMode.Full)]
    [InlineData("vhdx", "", PreallocationMode.Full)]
    [InlineData("vhdx", "subformat=fixed", PreallocationMode.Full)]
    public async Task Growing(string format, string options, PreallocationMode mode)
    {
        await Images.CreateAsync(_folder["disk"], format, $"size=4M,{options}");
        await using BlockNode disk = await Images.OpenAsync(_folder["disk"], format, writable: true);
        var claimed = new Reports();
        await disk.ResizeAsync(20 * MiB, mode, claimed, CancellationToken.None);
        claimed.RequireRisingTo(16 * MiB - 512);
    }

    [Theory]
    [InlineData("raw", "preallocation=full")]
    [InlineData("qcow2", "preallocation=full")]
    [InlineData("qcow2", "preallocation=falloc")]
    public async Task Making(string format, string options)
    {
        FormatDriver driver = Images.Registry.Format(format);
        var claimed = new Reports();
        var creator = new ImageCreator(new ImageOpener(Images.Registry, OpenPolicy.Default));
        await using NewImage image = await creator.CreateAsync(
            _folder["new"],
            driver,
            ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split($"size=16M,{options}")),
            TargetMode.New,
            null,
            claimed,
            CancellationToken.None);
        claimed.RequireRisingTo(16 * MiB);
    }

    /// <summary>Keeps what is told, in order: <see cref="Progress{T}"/> would not.</summary>
    private sealed class Reports : IProgress<long>
    {
        private readonly List<long> _values = [];

        public void Report(long value) => _values.Add(value);

        public void RequireRisingTo(long end)
        {
            Assert.NotEmpty(_values);
            Assert.Equal(_values.Order(), _values);
            Assert.True(_values[^1] >= end, $"{_values[^1]:#,0} of {end:#,0}");
        }
    }
}
