using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>LUKS images both ways with qemu-img, over pairs of all options, and as cryptsetup sees them.</summary>
public sealed class LuksOracleTests : IDisposable
{
    private const int Size = 1 << 20;

    private readonly TestFolder _folder = new();

    public LuksOracleTests() => Images.UseSecret(LuksQemu.Passphrase);

    public void Dispose() => _folder.Dispose();

    /// <summary>A sample of the rows that cover every pair; <c>DISKIMAGE_CAMPAIGN</c> makes it all.</summary>
    public static TheoryData<string> Options => [.. LuksOptionMatrix.Sample(step: 5)];

    /// <summary>What is claimed of the rows, counted without what made them: no combination that QEMU takes has a pair that no row has.</summary>
    [Fact]
    public void Every_pair_that_can_stand_is_in_a_row()
    {
        HashSet<string> covered = [.. LuksOptionMatrix.Rows.SelectMany(Pairs)];
        List<string> all = [.. LuksOptionMatrix.Full()];
        Assert.Empty(all.SelectMany(Pairs).Except(covered, StringComparer.Ordinal));
        Assert.True(all.Count > 500, $"only {all.Count} combinations");
        Assert.InRange(LuksOptionMatrix.Rows.Count, 70, 200); // ten ciphers with seven hashes
        Assert.All(
            LuksOptionMatrix.Values.Where(o => o.Name != "ivgen-hash-alg").SelectMany(o => o.Values.Select(v => $"{o.Name}={v}")),
            value => Assert.Contains(LuksOptionMatrix.Rows, row => row.Split(',').Contains(value, StringComparer.Ordinal)));

        static IEnumerable<string> Pairs(string row)
        {
            string[] parts = row.Split(',');
            return parts.SelectMany((one, i) => parts.Skip(i + 1).Select(other => $"{one} {other}"));
        }
    }

    /// <summary>QEMU reads what is written here and writes into it, and that is read here: both directions of the data in one image.</summary>
    [OracleTheory]
    [MemberData(nameof(Options))]
    public async Task Both_read_what_the_other_writes(string options)
    {
        await Images.MakeRawAsync(_folder["raw"], Size, seed: 3, unit: 16384);
        byte[] expected = await File.ReadAllBytesAsync(_folder["raw"]);
        await Images.ConvertAsync(_folder["raw"], "raw", _folder["ours"], "luks", $"{options},iter-time=1");
        await LuksQemu.CompareAsync(_folder["ours"], "luks", _folder["raw"], "raw");
        _ = await LuksQemu.IoAsync(_folder["ours"], "luks", "write -P 0x3c 200k 300k");
        expected.AsSpan(200 << 10, 300 << 10).Fill(0x3C);
        await using BlockNode ours = await Images.OpenAsync(_folder["ours"]);
        byte[] read = new byte[ours.Length];
        await ours.ReadAsync(0, read);
        Assert.Equal(expected, read);
    }

    /// <summary>
    /// Headers that QEMU makes. It measures how fast the machine is for seconds each time, so it is a sample;
    /// <c>DISKIMAGE_CAMPAIGN</c> makes it all.
    /// </summary>
    [OracleFact]
    public async Task What_QEMU_makes_is_opened()
    {
        await Images.MakeRawAsync(_folder["raw"], Size, seed: 3, unit: 16384);
        byte[] expected = await File.ReadAllBytesAsync(_folder["raw"]), read = new byte[Size];
        foreach (string options in LuksOptionMatrix.Sample(step: 25))
        {
            await TryConvertAsync("raw", "raw", "theirs", "luks", $"key-secret=s0,{options},iter-time=10");
            await using BlockNode theirs = await Images.OpenAsync(_folder["theirs"]);
            await theirs.ReadAsync(0, read);
            Assert.True(expected.AsSpan().SequenceEqual(read), options);
        }
    }

    [OracleFact]
    public async Task Both_write_into_each_others()
    {
        await TryCreateAsync("theirs", "key-secret=s0,iter-time=10", "2M");
        await using (BlockNode theirs = await Images.OpenAsync(_folder["theirs"], writable: true))
        {
            await theirs.WriteAsync(1000, Pattern(70_000, 5)); // no whole sectors
            await theirs.WriteZeroesAsync(4096, 4096 + 300);
            await theirs.ResizeAsync(3 << 20);
        }
        _ = await LuksQemu.IoAsync(_folder["theirs"], "luks", "write -P 0x5a 1M 64k", "read -P 0 4096 4396", "read -P 0 2M 1M");
        await using BlockNode again = await Images.OpenAsync(_folder["theirs"]);
        byte[] read = new byte[70_000];
        await again.ReadAsync(1000, read);
        byte[] expected = Pattern(70_000, 5);
        expected.AsSpan(3096, 4396).Clear();
        Assert.Equal(expected, read);
        await again.ReadAsync(1 << 20, read.AsMemory(0, 65536));
        Assert.All(read[..65536], b => Assert.Equal(0x5A, b));
    }

    /// <summary>Offsets, lengths and defaults of a new header are QEMU's.</summary>
    [OracleFact]
    public async Task A_new_image_is_laid_out_as_QEMUs()
    {
        await TryCreateAsync("theirs", "key-secret=s0,iter-time=10", "1M");
        await Images.CreateAsync(_folder["ours"], "luks", "size=1M,iter-time=10");
        Assert.Equal(new FileInfo(_folder["theirs"]).Length, new FileInfo(_folder["ours"]).Length);
        string theirs = await Programs.QemuImgAsync("info", "--output=json", _folder["theirs"]);
        string ours = await Programs.QemuImgAsync("info", "--output=json", _folder["ours"]);
        foreach (string fact in new[] { "payload-offset", "cipher-alg", "cipher-mode", "ivgen-alg", "hash-alg", "key-offset", "stripes" })
        {
            Assert.Equal(Facts(theirs, fact), Facts(ours, fact));
        }
        Assert.Equal(1 << 20, (await Images.OpenAsync(_folder["ours"])).Length);

        static string[] Facts(string json, string name)
            => [.. json.Split('\n').Where(l => l.Contains($"\"{name}\"", StringComparison.Ordinal)).Select(l => l.Trim())];
    }

    [OracleTheory("cryptsetup")]
    [InlineData("version=1")]
    [InlineData("version=1,cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha512")]
    [InlineData("version=2")]
    [InlineData("version=2,cipher-alg=aes-128,hash-alg=sha512")]
    public async Task Cryptsetup_opens_what_is_made(string options)
    {
        await Images.CreateAsync(_folder["ours"], "luks", $"size=1M,iter-time=10,{options}");
        await CryptsetupAsync(LuksQemu.Passphrase, "open", "--test-passphrase", _folder["ours"]);
        string dump = await Programs.RunAsync("cryptsetup", "luksDump", _folder["ours"]);
        Assert.Contains(options.Split(',')[0]["version=".Length..], dump, StringComparison.Ordinal);
        Assert.NotEqual(0, (await TryCryptsetupAsync("wrong", "open", "--test-passphrase", _folder["ours"])).Code);
    }

    [OracleTheory("cryptsetup")]
    [InlineData("--type luks1 --pbkdf-force-iterations 1000")]
    [InlineData("--type luks1 --pbkdf-force-iterations 1000 --cipher aes-cbc-essiv:sha256 --key-size 256 --hash sha512")]
    [InlineData("--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000")]
    [InlineData("--type luks2 --pbkdf argon2id --pbkdf-memory 32 --pbkdf-force-iterations 4 --pbkdf-parallel 2 --sector-size 4096")]
    [InlineData("--type luks2 --pbkdf argon2i --pbkdf-memory 64 --pbkdf-force-iterations 4 --cipher aes-cbc-essiv:sha256 --key-size 256 --sector-size 1024")]
    public async Task What_cryptsetup_makes_is_opened(string options)
    {
        await using (FileStream file = File.Create(_folder["theirs"]))
        {
            file.SetLength(20 << 20);
        }
        await CryptsetupAsync(LuksQemu.Passphrase, ["luksFormat", "--batch-mode", .. options.Split(' '), _folder["theirs"]]);
        await using (BlockNode disk = await Images.OpenAsync(_folder["theirs"], writable: true))
        {
            IKeySlots slots = Assert.IsAssignableFrom<IKeySlots>(disk);
            Assert.True(slots.IsUnlocked);
            KeySlot slot = Assert.Single(slots.GetKeySlots(), s => s.IsActive);
            Assert.Equal(0, slot.Number);
            await disk.WriteAsync(5000, Pattern(100_000, 6));
            int added = await slots.AddKeySlotAsync(Images.Secret("another one"), null, 10, default);
            Assert.Equal(1, added);
        }
        await CryptsetupAsync("another one", "open", "--test-passphrase", _folder["theirs"]);
        await CryptsetupAsync(LuksQemu.Passphrase, "open", "--test-passphrase", "--key-slot", "0", _folder["theirs"]);
        await using (BlockNode disk = await Images.OpenAsync(_folder["theirs"], writable: true))
        {
            byte[] read = new byte[100_000];
            await disk.ReadAsync(5000, read);
            Assert.Equal(Pattern(100_000, 6), read);
            await ((IKeySlots)disk).RemoveKeySlotAsync(0, allowLast: false, default);
        }
        Assert.NotEqual(0, (await TryCryptsetupAsync(LuksQemu.Passphrase, "open", "--test-passphrase", _folder["theirs"])).Code);
        await CryptsetupAsync("another one", "open", "--test-passphrase", _folder["theirs"]);
    }

    private static byte[] Pattern(int length, int seed)
    {
        byte[] data = new byte[length];
        new Random(seed).NextBytes(data);
        return data;
    }

    private static async Task CryptsetupAsync(string secret, params string[] arguments)
    {
        (int code, string output, string errors) = await TryCryptsetupAsync(secret, arguments);
        Assert.True(code == 0, $"cryptsetup {string.Join(' ', arguments)} → {code}\n{output}\n{errors}");
    }

    private static async Task<(int Code, string Output, string Errors)> TryCryptsetupAsync(string secret, params string[] arguments)
    {
        using var key = new TestFolder();
        await File.WriteAllTextAsync(key["key"], secret);
        return await Programs.TryAsync("cryptsetup", [.. arguments, "--key-file", key["key"]]);
    }

    /// <summary>qemu-img now and then fails to measure how fast it is; then it is asked again.</summary>
    private async Task TryCreateAsync(string path, string options, string size)
        => await AgainAsync(() => LuksQemu.CreateAsync(_folder[path], "luks", options, size));

    private Task TryConvertAsync(string source, string sourceFormat, string target, string targetFormat, string options)
        => AgainAsync(() => LuksQemu.ConvertAsync(_folder[source], sourceFormat, _folder[target], targetFormat, options));

    private static async Task AgainAsync(Func<Task> work)
    {
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                await work();
                return;
            }
            catch (Xunit.Sdk.XunitException e) when (attempt < 5 && e.Message.Contains("CPU usage", StringComparison.Ordinal))
            {
            }
        }
    }
}
