using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>A program made a disk smaller and left what was behind its new end where it was: growing it again does not show that.</summary>
public sealed class OldBytesTests
{
    private const int Full = 4 << 20;

    [Theory]
    [InlineData("qcow2", "cluster_size=64k")]
    [InlineData("qcow2", "cluster_size=64k,compat=0.10")]
    [InlineData("qcow2", "cluster_size=64k,extended_l2=on")]
    [InlineData("qcow2", "cluster_size=512")]
    [InlineData("vpc", "force_size=on")]
    [InlineData("vpc", "force_size=on,subformat=fixed")]
    [InlineData("vhdx", "block_size=1M")]
    [InlineData("vhdx", "block_size=1M,subformat=fixed")]
    public async Task Growing_shows_zeroes(string format, string options)
    {
        foreach (int cut in new[] { (1 << 20) + 512, (2 << 20) + 66_048, 3 << 20, Full - 512 })
        {
            using var folder = new TestFolder();
            string path = folder["a"];
            await Images.CreateAsync(path, format, $"size={Full},{options}");
            byte[] data = new byte[Full];
            Array.Fill(data, (byte)0x5A);
            await using (BlockNode disk = await Images.OpenAsync(path, format, writable: true))
            {
                await disk.WriteAsync(0, data);
            }
            byte[] image = await File.ReadAllBytesAsync(path);
            CutCarelessly(format, image, cut);
            await File.WriteAllBytesAsync(path, image);

            await using (BlockNode disk = await Images.OpenAsync(path, format, writable: true))
            {
                Assert.Equal(cut, disk.Length);
                if (format == "vpc" && !options.Contains("fixed", StringComparison.Ordinal) && Full - cut >= 2 << 20)
                {
                    // The table reaches further than the footer says: somebody's larger reading, which a change of size would overwrite.
                    DiskImageException refusal = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(Full));
                    Assert.Contains("behind the end of the disk", refusal.Message, StringComparison.Ordinal);
                    continue;
                }
                await disk.ResizeAsync(Full);
            }
            await using BlockNode grown = await Images.OpenAsync(path, format);
            byte[] got = new byte[Full];
            await grown.ReadAsync(0, got);
            data.AsSpan(cut).Clear();
            Assert.True(got.AsSpan().SequenceEqual(data), $"cut at {cut:#,0}: differs from {got.AsSpan().CommonPrefixLength(data):#,0} on");
        }
    }

    /// <summary>A raw external data file that is longer than the disk.</summary>
    [Theory]
    [InlineData("")]
    [InlineData(",data_file_raw=on")]
    public async Task Growing_into_a_longer_data_file_shows_zeroes(string options)
    {
        foreach (PreallocationMode mode in Enum.GetValues<PreallocationMode>())
        {
            using var folder = new TestFolder();
            await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size={(1 << 20) + 512},data_file={folder["a.data"]}{options}");
            byte[] data = new byte[Full];
            Array.Fill(data, (byte)0x5A);
            await File.WriteAllBytesAsync(folder["a.data"], data);
            await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true))
            {
                await disk.WriteAsync(0, data.AsMemory(0, (1 << 20) + 512));
                await disk.ResizeAsync(Full - 512, mode);
            }
            await using BlockNode grown = await Images.OpenAsync(folder["a.qcow2"]);
            byte[] got = new byte[Full - 512];
            await grown.ReadAsync(0, got);
            Assert.Equal((1 << 20) + 512, got.AsSpan().LastIndexOfAnyExcept((byte)0) + 1);
            byte[] raw = await File.ReadAllBytesAsync(folder["a.data"]);
            Assert.True(options.Length == 0 || raw.AsSpan(0, got.Length).SequenceEqual(got), $"{mode}: the data file is not the disk");
        }
    }

    /// <summary>Writes a smaller size where the format keeps it, and nothing else.</summary>
    private static void CutCarelessly(string format, byte[] image, int size)
    {
        if (format == "qcow2")
        {
            BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(24), size);
        }
        else if (format == "vpc")
        {
            foreach (int footer in new[] { 0, image.Length - 512 })
            {
                Span<byte> bytes = image.AsSpan(footer, 512);
                if (!bytes.StartsWith("conectix"u8))
                {
                    continue; // a fixed disk has only the one at the end
                }
                BinaryPrimitives.WriteInt64BigEndian(bytes[48..], size);
                bytes.Slice(64, 4).Clear();
                uint sum = 0;
                foreach (byte b in bytes)
                {
                    sum += b;
                }
                BinaryPrimitives.WriteUInt32BigEndian(bytes[64..], ~sum);
            }
        }
        else
        {
            byte[] old = new byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(old, Full);
            int region = image.AsSpan(0, 4 << 20).IndexOf("metadata"u8); // its items have no checksum
            int at = image.AsSpan(region + (64 << 10), 1 << 20).IndexOf(old);
            Assert.True(region > 0 && at > 0);
            BinaryPrimitives.WriteInt64LittleEndian(image.AsSpan(region + (64 << 10) + at), size);
        }
    }
}
