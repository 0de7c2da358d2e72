using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vpc;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>What is measured, judged by the files that are made then.</summary>
public sealed class VpcMeasureTests
{
    private const int Piece = 64 << 10, Size = 300 * Piece;

    [Theory]
    [InlineData("")]
    [InlineData("force_size")]
    [InlineData("subformat=fixed")]
    [InlineData("subformat=fixed,force_size")]
    [InlineData("block_size=4k,force_size")]
    [InlineData("block_size=64k")]
    [InlineData("block_size=512k")]
    [InlineData("block_size=16M")]
    public async Task A_converted_disk_has_exactly_the_measured_size(string options)
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size={Size + 1024}"); // the last block is a partial one
        await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true))
        {
            var random = new Random(1);
            byte[] noise = new byte[Piece];
            for (long at = 0; at < Size; at += Piece)
            {
                random.NextBytes(noise);
                if (random.Next(12) == 0)
                {
                    await disk.WriteAsync(at, noise);
                }
            }
            await disk.WriteAsync(Size, noise.AsMemory(0, 1024));
        }
        ImageMeasurement measured;
        await using (BlockNode source = await Images.OpenAsync(folder["a.qcow2"]))
        {
            measured = await MeasureAsync(options, source);
        }
        await Images.ConvertAsync(folder["a.qcow2"], null, folder["b.vhd"], "vpc", options);
        Assert.Equal(new FileInfo(folder["b.vhd"]).Length, measured.Required);

        await Images.CreateAsync(folder["empty.vhd"], "vpc", $"size={Size + 1024}{(options.Length == 0 ? "" : ",")}{options}");
        ImageMeasurement empty = await MeasureAsync($"size={Size + 1024}{(options.Length == 0 ? "" : ",")}{options}", null);
        Assert.Equal(new FileInfo(folder["empty.vhd"]).Length, empty.Required);
        Assert.Equal(measured.FullyAllocated, empty.FullyAllocated);
        await using (BlockNode disk = await Images.OpenAsync(folder["empty.vhd"], writable: true))
        {
            byte[] noise = new byte[disk.Length];
            new Random(2).NextBytes(noise);
            await disk.WriteAsync(0, noise);
        }
        Assert.Equal(new FileInfo(folder["empty.vhd"]).Length, measured.FullyAllocated);
    }

    [Fact]
    public async Task What_cannot_be_made_cannot_be_measured()
    {
        foreach (string options in new[] { "size=3T", "", "size=1M,backing_file=base.vhd", "size=2000G,block_size=4k" })
        {
            DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(async () => await MeasureAsync(options, null));
            Assert.True(refused.Kind is DiskImageErrorKind.InvalidOption or DiskImageErrorKind.Unsupported, $"{options}: {refused}");
        }
    }

    private static ValueTask<ImageMeasurement> MeasureAsync(string options, BlockNode? source)
    {
        var driver = new VpcDriver();
        return driver.MeasureAsync(driver.CreateOptions.Bind(OptionSchema.Split(options)), source, CancellationToken.None);
    }
}
