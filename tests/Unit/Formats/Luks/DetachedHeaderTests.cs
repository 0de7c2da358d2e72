using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>A LUKS header in a file of its own, and the data in another.</summary>
public sealed class DetachedHeaderTests : IDisposable
{
    private const int Size = 1 << 20;

    private readonly TestFolder _folder = new();

    public DetachedHeaderTests() => Images.UseSecret(LuksQemu.Passphrase);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Data_is_written_and_read_by_a_header_elsewhere()
    {
        byte[] contents = Pattern(7);
        await MakeAsync();
        await using (BlockNode disk = await OpenAsync(writable: true))
        {
            Assert.Equal(Size, disk.Length);
            await disk.WriteAsync(0, contents);
            Assert.Contains("DetachedHeader = True", Facts(disk), StringComparison.Ordinal);
        }
        byte[] stored = await System.IO.File.ReadAllBytesAsync(_folder["data"]);
        Assert.Equal(Size, stored.Length);
        Assert.False(stored.AsSpan().SequenceEqual(contents));
        await using (BlockNode disk = await OpenAsync(writable: true))
        {
            byte[] read = new byte[Size];
            await disk.ReadAsync(0, read);
            Assert.Equal(contents, read);
            IKeySlots slots = disk.As<IKeySlots>()!;
            Assert.Equal(1, await slots.AddKeySlotAsync(Images.Secret("another"), null, 1, default)); // goes into the header's file
            await disk.ResizeAsync(Size + 4096);
            byte[] tail = new byte[4096];
            await disk.ReadAsync(Size, tail);
            Assert.Equal(new byte[4096], tail);
            CheckReport report = await disk.As<ICheckable>()!.CheckAsync(null, default);
            Assert.Empty(report.Findings);
        }
        Images.UseSecret("another");
        await using BlockNode again = await OpenAsync(writable: false);
        byte[] part = new byte[512];
        await again.ReadAsync(512, part);
        Assert.Equal(contents[512..1024], part);
    }

    /// <summary>Its slots can be seen to; there is no data, and none gets into its file.</summary>
    [Fact]
    public async Task The_header_alone_is_a_disk_of_no_bytes()
    {
        await MakeAsync();
        long length = new FileInfo(_folder["header"]).Length;
        await using (BlockNode alone = await Images.OpenAsync(_folder["header"], writable: true))
        {
            Assert.Equal(0, alone.Length);
            Assert.Contains("'header'", Assert.Single(alone.As<IDescribed>()!.Describe().Warnings), StringComparison.Ordinal);
            Assert.Equal(1, await alone.As<IKeySlots>()!.AddKeySlotAsync(Images.Secret("another"), null, 1, default));
            Assert.Equal(
                DiskImageErrorKind.Unsupported,
                (await Assert.ThrowsAsync<DiskImageException>(() => alone.ResizeAsync(1 << 20).AsTask())).Kind);
        }
        Assert.Equal(length, new FileInfo(_folder["header"]).Length);
        DiskImageException e;
        foreach (string options in new[] { "detached-header=on,version=2", "detached-header=on,preallocation=full" })
        {
            e = await Assert.ThrowsAsync<DiskImageException>(
                () => Images.CreateAsync(_folder["none"], "luks", $"size=1M,iter-time=1,{options}"));
            Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        }
    }

    [OracleFact("cryptsetup")]
    public async Task Cryptsetup_takes_the_header_and_its_own_is_taken()
    {
        await MakeAsync();
        await CryptsetupAsync("open", "--test-passphrase", "--header", _folder["header"], _folder["data"]);
        foreach (string type in new[] { "luks1", "luks2" })
        {
            await System.IO.File.WriteAllBytesAsync(_folder["data"], new byte[Size]);
            System.IO.File.Delete(_folder["header"]);
            await CryptsetupAsync(
                "luksFormat", "--batch-mode", "--type", type, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--header",
                _folder["header"], _folder["data"]);
            byte[] contents = Pattern(9);
            await using (BlockNode disk = await OpenAsync(writable: true))
            {
                await disk.WriteAsync(0, contents);
                _ = await disk.As<IKeySlots>()!.AddKeySlotAsync(Images.Secret(LuksQemu.Passphrase + "2"), null, 1, default);
            }
            await CryptsetupAsync("open", "--test-passphrase", "--key-slot", "0", "--header", _folder["header"], _folder["data"]);
            await using BlockNode again = await OpenAsync(writable: false);
            byte[] read = new byte[Size];
            await again.ReadAsync(0, read);
            Assert.Equal(contents, read);
        }
    }

    private async Task MakeAsync()
    {
        await Images.CreateAsync(_folder["header"], "luks", "size=1M,iter-time=1,detached-header=true");
        await System.IO.File.WriteAllBytesAsync(_folder["data"], new byte[Size]);
    }

    private Task<BlockNode> OpenAsync(bool writable)
        => Images.OpenAsync(
            NodeSpec.Of("luks", ("file", File("data")), ("header", File("header"))).ToString(), writable: writable);

    private object? File(string name) => ImageLocator.Parse(_folder[name]).Spec.Child("file");

    private static string Facts(BlockNode disk) => string.Join(
        ' ', disk.As<IDescribed>()!.Describe().FormatSpecific!.GetType().GetProperties().Select(
            p => $"{p.Name} = {p.GetValue(disk.As<IDescribed>()!.Describe().FormatSpecific)}"));

    private static async Task CryptsetupAsync(params string[] arguments)
    {
        using var key = new TestFolder();
        await System.IO.File.WriteAllTextAsync(key["key"], LuksQemu.Passphrase);
        (int code, string output, string errors) = await Programs.TryAsync("cryptsetup", [.. arguments, "--key-file", key["key"]]);
        Assert.True(code == 0, $"cryptsetup {string.Join(' ', arguments)} → {code}\n{output}\n{errors}");
    }

    private static byte[] Pattern(int seed)
    {
        byte[] data = new byte[Size];
        new Random(seed).NextBytes(data);
        return data;
    }
}
