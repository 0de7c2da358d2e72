using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>QEMU and this library over images of one format, in both directions.</summary>
/// <param name="folder">Where they are made.</param>
/// <param name="format">The format, as both call it.</param>
internal sealed class BothWays(TestFolder folder, string format)
{
    /// <summary>
    /// Converts a raw disk with some options by QEMU and by this library: each reads what the other made as that disk, and this library's
    /// check has nothing to say of either.
    /// </summary>
    /// <param name="size">Bytes of the disk.</param>
    /// <param name="options">The options, as both spell them.</param>
    /// <param name="canCheck">False for what QEMU has no check of.</param>
    public async Task ConvertAsync(int size, string options, bool canCheck = true)
    {
        string raw = folder["disk.raw"], theirs = folder[$"theirs.{format}"], ours = folder[$"ours.{format}"];
        await Images.MakeRawAsync(raw, size, seed: 5);
        string[] given = options.Length == 0 ? [] : ["-o", options];
        await Programs.QemuImgAsync(["convert", "-f", "raw", "-O", format, .. given, raw, theirs]);
        await Images.ConvertAsync(theirs, null, folder["back.raw"], "raw");
        DiskFormat.Same(await File.ReadAllBytesAsync(raw), await File.ReadAllBytesAsync(folder["back.raw"]));
        await Images.ConvertAsync(raw, "raw", ours, format, options);
        if (canCheck)
        {
            await Programs.CheckAsync(ours, format);
        }
        await Programs.CompareAsync(raw, "raw", ours, format);
        foreach (string path in new[] { theirs, ours })
        {
            await using BlockNode disk = await Images.OpenAsync(path);
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
    }

    /// <summary>This library makes requests at random and QEMU writes, in turns: an image goes on to read as its twin.</summary>
    /// <param name="path">The image.</param>
    /// <param name="twin">What it reads as.</param>
    /// <param name="random">Where and how much.</param>
    /// <param name="canCheck">QEMU's check is asked, too.</param>
    /// <param name="zeroes">Bytes that QEMU also writes as zeroes in each turn; 0 for none.</param>
    public async Task TwinAsync(string path, byte[] twin, Random random, bool canCheck = false, int zeroes = 0)
    {
        for (int turn = 0; turn < 4; turn++)
        {
            await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
            {
                await DiskFormat.RequestsAsync(disk, twin, random, 40);
            }
            await AgreeAsync();
            int at = random.Next(twin.Length / 512 / 2) * 512, length = 512 * random.Next(1, 400), zero = at + length + 100_352;
            twin.AsSpan(at, length).Fill((byte)(turn + 1));
            twin.AsSpan(zero, zeroes).Clear();
            await Programs.RunAsync(
                "qemu-io", "-f", format, "-c", $"write -P {turn + 1} {at} {length}", "-c",
                zeroes > 0 ? $"write -z {zero} {zeroes}" : "flush", path);
        }
        await AgreeAsync();
        await using BlockNode again = await Images.OpenAsync(path);
        byte[] read = new byte[twin.Length];
        await again.ReadAsync(0, read);
        DiskFormat.Same(twin, read);
        Assert.Equal(0, (await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Corruptions);

        async Task AgreeAsync()
        {
            await File.WriteAllBytesAsync(folder["twin.raw"], twin);
            await Programs.CompareAsync(folder["twin.raw"], "raw", path, format);
            if (canCheck)
            {
                await Programs.CheckAsync(path, format);
            }
        }
    }
}
