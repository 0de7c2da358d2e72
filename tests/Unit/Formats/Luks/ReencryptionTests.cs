using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>Images of version 2 that cryptsetup encrypted anew, or began to.</summary>
public sealed class ReencryptionTests : IDisposable
{
    private const int Size = 3 << 20;

    private readonly TestFolder _folder = new();

    public ReencryptionTests() => Images.UseSecret(LuksQemu.Passphrase);

    public void Dispose() => _folder.Dispose();

    /// <summary>Data that we wrote, under another cipher, key and sector size, is still the data; and what we then add is found.</summary>
    [OracleTheory("cryptsetup")]
    [InlineData("--sector-size 1024")]
    [InlineData("--sector-size 2048 --cipher aes-xts-plain64 --key-size 256")]
    [InlineData("--sector-size 4096")]
    [InlineData("--sector-size 512 --cipher aes-cbc-essiv:sha256 --key-size 256")]
    [InlineData("--sector-size 4096 --cipher aes-cbc-essiv:sha256 --key-size 256")]
    public async Task What_was_encrypted_anew_reads_the_same(string options)
    {
        byte[] data = await MakeAsync();
        await ReencryptAsync([.. options.Split(' ')]);
        await using (BlockNode disk = await Images.OpenAsync(_folder["disk"], writable: true))
        {
            await EqualsAsync(data, disk);
            data.AsSpan(0, 70_000).CopyTo(data.AsSpan(1_000_001));
            await disk.WriteAsync(1_000_001, data.AsMemory(0, 70_000)); // no whole sectors
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, default)).Findings);
        }
        await ReencryptAsync("--sector-size", "512", "--cipher", "aes-xts-plain64", "--key-size", "512"); // reads what was added
        await using BlockNode again = await Images.OpenAsync(_folder["disk"]);
        await EqualsAsync(data, again);
    }

    [OracleFact("cryptsetup")]
    public async Task One_that_was_only_begun_is_refused_by_name()
    {
        _ = await MakeAsync();
        await ReencryptAsync("--init-only", "--sector-size", "4096");
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["disk"]));
        Assert.Equal(DiskImageErrorKind.Unsupported, e.Kind);
        Assert.Contains("reencryption in progress", e.Message, StringComparison.Ordinal);
    }

    /// <summary>A slot with a key of something else, of another length: it neither says how long the disk's key is nor counts as its.</summary>
    [OracleFact("cryptsetup")]
    public async Task A_slot_that_holds_another_key_is_none_of_the_disks()
    {
        byte[] data = await MakeAsync();
        await File.WriteAllTextAsync(_folder["other"], "unbound");
        await RunAsync(
            "luksAddKey", "--unbound", "--key-size", "128", "--key-slot", "3", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
            _folder["disk"], _folder["other"]);
        await RunAsync("config", "--priority", "prefer", "--key-slot", "3", _folder["disk"]);
        await using BlockNode disk = await Images.OpenAsync(_folder["disk"], writable: true);
        await EqualsAsync(data, disk);
        IKeySlots slots = disk.As<IKeySlots>()!;
        Assert.Equal([0, 3], slots.GetKeySlots().Where(s => s.IsActive).Select(s => s.Number));
        Assert.Null(await slots.FindKeySlotAsync(Images.Secret("unbound"), default));
        Assert.Equal(DiskImageErrorKind.Refused, (await Assert.ThrowsAsync<DiskImageException>(
            () => slots.RemoveKeySlotAsync(0, allowLast: false, default).AsTask())).Kind);
        Assert.Equal(1, await slots.AddKeySlotAsync(Images.Secret("more"), null, 10, default));
        await slots.RemoveKeySlotAsync(3, allowLast: false, default);
        await slots.RemoveKeySlotAsync(0, allowLast: false, default);
        Assert.Equal(1, await slots.FindKeySlotAsync(Images.Secret("more"), default));
    }

    private async Task<byte[]> MakeAsync()
    {
        byte[] data = new byte[Size];
        new Random(9).NextBytes(data);
        await Images.CreateAsync(_folder["disk"], "luks", $"size={Size},version=2,iter-time=10");
        await using BlockNode disk = await Images.OpenAsync(_folder["disk"], writable: true);
        await disk.WriteAsync(0, data);
        return data;
    }

    private Task ReencryptAsync(params string[] options)
        => RunAsync(
            ["reencrypt", "--force-offline-reencrypt", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", .. options, _folder["disk"]]);

    private async Task RunAsync(params string[] arguments)
    {
        await File.WriteAllTextAsync(_folder["key"], LuksQemu.Passphrase);
        (int code, string output, string errors) = await Programs.TryAsync(
            "cryptsetup", [arguments[0], "--batch-mode", "--key-file", _folder["key"], .. arguments[1..]]);
        Assert.True(code == 0, $"cryptsetup {string.Join(' ', arguments)} → {code}\n{output}\n{errors}");
    }

    private static async Task EqualsAsync(byte[] expected, BlockNode disk)
    {
        Assert.Equal(expected.Length, disk.Length);
        byte[] read = new byte[expected.Length];
        await disk.ReadAsync(0, read);
        Assert.True(expected.AsSpan().SequenceEqual(read), $"differs at {expected.AsSpan().CommonPrefixLength(read):#,0}");
    }
}
