using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;
using DiskImage.Formats.Dmg;
using DiskImage.Tests.Compression.Apple;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Dmg;

/// <summary>A disk image of zlib, ADC, raw, zero and LZFSE chunks in turns.</summary>
public sealed class DmgNodeTests : NodeConformance
{
    private protected override bool CanWrite => false;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => new DiskFormat("dmg").OpenAsync(new MemoryNode(DmgTests.Mixed(contents).Make(), readOnly: true)).AsTask();
}

public sealed class DmgTests : IDisposable
{
    private static readonly DiskFormat s_dmg = new("dmg");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Some contents as chunks of 100 sectors.</summary>
    internal static DmgMaker Mixed(byte[] contents, DmgMaker? maker = null)
    {
        const int Chunk = 100 * 512;
        DmgKind[] kinds = [DmgKind.Zlib, DmgKind.Adc, DmgKind.Raw, DmgKind.Lzfse];
        var parts = new List<DmgPart>();
        for (int at = 0; at < contents.Length; at += Chunk)
        {
            byte[] part = contents[at..Math.Min(contents.Length, at + Chunk)];
            DmgKind kind = part.AsSpan().ContainsAnyExcept((byte)0)
                ? kinds[parts.Count % kinds.Length]
                : parts.Count % 2 == 0 ? DmgKind.Zero : DmgKind.Ignore;
            parts.Add(DmgPart.Of(kind, part));
        }
        return (maker ?? new DmgMaker()).Add("whole disk (Apple_HFS : 0)", [.. parts]);
    }

    private static byte[] Contents(int sectors, int seed = 1)
    {
        byte[] contents = AppleDecoderTests.Text(sectors * 512);
        new Random(seed).NextBytes(contents.AsSpan(contents.Length / 2, contents.Length / 8));
        contents.AsSpan(contents.Length / 4, contents.Length / 8).Clear();
        return contents;
    }

    private async Task<DmgPart> PackedAsync(DmgKind kind, byte[] contents)
    {
        string program = kind == DmgKind.Xz ? "xz" : "bzip2";
        await File.WriteAllBytesAsync(_folder["part"], contents);
        _ = await Programs.RunAsync(program, "-f", "-k", _folder["part"]);
        return new(kind, contents, await File.ReadAllBytesAsync(_folder[kind == DmgKind.Xz ? "part.xz" : "part.bz2"]));
    }

    private async Task<DmgMaker> OfAsync(string kind)
    {
        byte[] contents = Contents(200), text = AppleDecoderTests.Text(150_016), small = AppleDecoderTests.Text(2048);
        return new DmgMaker().Add(kind, kind switch
        {
            "zlib" => [DmgPart.Of(DmgKind.Zlib, contents), DmgPart.Of(DmgKind.Zlib, text)],
            "raw" =>
            [
                DmgPart.Of(DmgKind.Raw, contents),
                DmgPart.Of(DmgKind.Zero, new byte[51_200]),
                DmgPart.Of(DmgKind.Raw, small),
                DmgPart.Of(DmgKind.Ignore, new byte[5120]),
            ],
            "adc" => [DmgPart.Of(DmgKind.Adc, contents), DmgPart.Of(DmgKind.Adc, text)],
            "bzip2" => [await PackedAsync(DmgKind.Bzip2, contents), await PackedAsync(DmgKind.Bzip2, text)],
            "xz" => [await PackedAsync(DmgKind.Xz, contents), await PackedAsync(DmgKind.Xz, text)],
            "lzfse" =>
            [
                // 7-Zip takes no others
                new(
                    DmgKind.Lzfse,
                    text,
                    AppleDecoderTests.Kept("text.bvx2")), new(DmgKind.Lzfse, small, AppleDecoderTests.Kept("text.bvxn")),
            ],
            _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, null),
        });
    }

    /// <summary>An image of one kind of chunks, what it is read as, and the checksums of its maker have judged that.</summary>
    private async Task<byte[]> ReadOfAsync(string kind)
    {
        await File.WriteAllBytesAsync(_folder["a.dmg"], (await OfAsync(kind)).Make());
        await Images.ConvertAsync(_folder["a.dmg"], null, _folder["ours.raw"], "raw");
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.dmg"]))
        {
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
        return await File.ReadAllBytesAsync(_folder["ours.raw"]);
    }

    [Theory]
    [InlineData("zlib")]
    [InlineData("raw")]
    [InlineData("adc")]
    [InlineData("lzfse")]
    public async Task Each_kind_of_chunk_is_read_and_has_the_right_checksums(string kind) => Assert.NotEmpty(await ReadOfAsync(kind));

    [OracleFact("bzip2")]
    public async Task So_is_what_bzip2_compresses() => Assert.NotEmpty(await ReadOfAsync("bzip2"));

    [OracleFact("xz")]
    public async Task So_is_what_xz_compresses() => Assert.NotEmpty(await ReadOfAsync("xz"));

    [OracleTheory]
    [InlineData("zlib")]
    [InlineData("raw")]
    public async Task Each_kind_of_chunk_is_read_as_qemu_reads_it(string kind)
    {
        _ = await ReadOfAsync(kind);
        await Programs.CompareAsync(_folder["ours.raw"], "raw", _folder["a.dmg"], "dmg");
    }

    [OracleTheory("dmg2img")]
    [InlineData("zlib")]
    [InlineData("raw")]
    [InlineData("adc")]
    [InlineData("bzip2")]
    public async Task Each_kind_of_chunk_is_read_as_dmg2img_reads_it(string kind)
    {
        byte[] ours = await ReadOfAsync(kind);
        _ = await Programs.RunAsync("dmg2img", "-s", _folder["a.dmg"], _folder["theirs.raw"]);
        DiskFormat.Same(await File.ReadAllBytesAsync(_folder["theirs.raw"]), ours);
    }

    [OracleTheory("7zz")]
    [InlineData("zlib")]
    [InlineData("raw")]
    [InlineData("adc")]
    [InlineData("bzip2")]
    [InlineData("xz")]
    [InlineData("lzfse")]
    public async Task Each_kind_of_chunk_is_read_as_7_Zip_reads_it(string kind)
    {
        byte[] ours = await ReadOfAsync(kind);
        _ = Directory.CreateDirectory(_folder["out"]);
        _ = await Programs.RunAsync("7zz", "x", "-y", "-tdmg", $"-o{_folder["out"]}", _folder["a.dmg"]);
        DiskFormat.Same(await File.ReadAllBytesAsync(Assert.Single(Directory.GetFiles(_folder["out"]))), ours);
    }

    /// <summary>Where the tables and the trailer stand, and what lies in front of the data.</summary>
    [Theory]
    [InlineData(false, false, 0)]
    [InlineData(false, true, 0)]
    [InlineData(true, false, 4096)]
    [InlineData(true, true, 0)]
    public async Task Several_partitions_with_gaps_are_one_disk(bool resourceFork, bool trailerFirst, int front)
    {
        byte[] one = Contents(150), two = Contents(90, 2);
        DmgMaker maker = new DmgMaker { UsesResourceFork = resourceFork, Front = front }.Gap(3);
        byte[] image = Mixed(two, Mixed(one, maker).Gap(64)).Gap(5).Make(trailerFirst);
        byte[] expected = [.. new byte[3 * 512], .. one, .. new byte[64 * 512], .. two, .. new byte[5 * 512]];
        DiskFormat.Same(expected, await s_dmg.ReadAsync(image));
        Assert.Empty((await s_dmg.CheckAsync(image)).Findings);
        await using BlockNode disk = await s_dmg.OpenAsync(new MemoryNode(image, readOnly: true));
        var info = (DmgInfo)disk.As<IDescribed>()!.Describe().FormatSpecific!;
        Assert.Equal(2, info.Partitions.Count);
        Assert.All(info.Partitions, p => Assert.Contains("whole disk (Apple_HFS : 0): ", p, StringComparison.Ordinal));
        Assert.NotNull(info.Checksum);
        Assert.Contains(info.ChunkKinds, k => k.EndsWith(" zlib", StringComparison.Ordinal));
        Assert.True((await disk.GetExtentAsync(0, 1)).IsZero);
        if (!trailerFirst)
        {
            Assert.Equal(
                "dmg", (await Images.Registry.ProbeAsync(new MemoryNode(image, readOnly: true), CancellationToken.None)).Format.Name);
        }
    }

    [Fact]
    public async Task Any_other_signature_counts_for_more()
    {
        byte[] image = Mixed(Contents(10), new DmgMaker { Front = 4096 }).Make();
        Assert.Equal("dmg", await ProbeAsync(image));
        new byte[] { 0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3 }.CopyTo(image, 0);
        Assert.Equal("qcow2", await ProbeAsync(image));

        static async Task<string> ProbeAsync(byte[] bytes)
            => (await Images.Registry.ProbeAsync(new MemoryNode(bytes, readOnly: true), CancellationToken.None)).Format.Name;
    }

    [Fact]
    public async Task Without_tables_the_data_fork_is_the_disk()
    {
        byte[] contents = Contents(40), image = new DmgMaker { UsesResourceFork = true }.Add("x", DmgPart.Of(DmgKind.Raw, contents)).Make();
        image.AsSpan(image.Length - 512 + 40, 16).Clear();
        DiskFormat.Same(contents, await s_dmg.ReadAsync(image));
    }

    [Fact]
    public async Task Segments_are_one_image_when_all_of_them_are_there()
    {
        byte[] contents = Contents(500);
        byte[][] segments = Mixed(contents).MakeSegments(3);
        string[] names = ["a.dmg", "a.002.dmgpart", "a.003.dmgpart"];
        foreach ((string name, byte[] bytes) in names.Zip(segments))
        {
            await File.WriteAllBytesAsync(_folder[name], bytes);
        }
        await Images.ConvertAsync(_folder["a.dmg"], null, _folder["a.raw"], "raw");
        DiskFormat.Same(contents, await File.ReadAllBytesAsync(_folder["a.raw"]));
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.dmg"]))
        {
            Assert.Equal(3, ((DmgInfo)disk.As<IDescribed>()!.Describe().FormatSpecific!).Segments);
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
        Assert.Contains(
            "Open the first one",
            (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.002.dmgpart"], "dmg"))).Message,
            StringComparison.Ordinal);
        segments[2].AsSpan(segments[2].Length - 512 + 64, 1).Fill(1); // another image's
        await File.WriteAllBytesAsync(_folder["a.003.dmgpart"], segments[2]);
        Assert.Equal(
            DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.dmg"]))).Kind);
        File.Delete(_folder["a.003.dmgpart"]);
        Assert.Equal(
            DiskImageErrorKind.NotFound, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.dmg"]))).Kind);
    }

    [Fact]
    public async Task Damage_is_found_by_chunk_table_fork_and_image()
    {
        byte[] contents = Contents(500);
        byte[] image = Mixed(contents).Make();
        Assert.Empty((await s_dmg.CheckAsync(image)).Findings);
        Assert.Empty((await s_dmg.CheckAsync(Mixed(contents, new DmgMaker { SumsIgnored = true }).Make())).Findings);
        image[30] ^= 1; // in the first chunk, which is zlib
        Assert.Equal("BadChunk, DataChecksum", string.Join(", ", (await s_dmg.CheckAsync(image)).Findings.Select(f => f.Kind)));
        image[30] ^= 1;
        int raw = image.AsSpan().IndexOf(contents.AsSpan(2 * 51_200, 64));
        image[raw] ^= 1;
        Assert.Equal("TableChecksum, DataChecksum", string.Join(", ", (await s_dmg.CheckAsync(image)).Findings.Select(f => f.Kind)));
        image[raw] ^= 1;
        image[^(512 - 360)] ^= 1;
        Assert.Equal("ImageChecksum", string.Join(", ", (await s_dmg.CheckAsync(image)).Findings.Select(f => f.Kind)));
    }

    [Fact]
    public async Task It_is_read_only_and_says_what_can_be_done_instead()
    {
        await File.WriteAllBytesAsync(_folder["a.dmg"], Mixed(Contents(10)).Make());
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.dmg"], writable: true));
        Assert.Equal(DiskImageErrorKind.ReadOnly, error.Kind);
        Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Convert);
    }

    /// <summary>Property lists that want to cost something: entities, nesting, values without end, nonsense.</summary>
    [Theory]
    [InlineData("entity")]
    [InlineData("deep")]
    [InlineData("wide")]
    [InlineData("base64")]
    [InlineData("cut")]
    [InlineData("empty")]
    public async Task A_property_list_costs_no_more_than_its_length(string what)
    {
        byte[] contents = Contents(10);
        string good = Mixed(contents).PropertyList();
        string list = what switch
        {
            "entity" => good.Replace("<!DOCTYPE plist", "<!DOCTYPE plist [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b SYSTEM "
                + "\"file:///etc/passwd\">]><!-- ", StringComparison.Ordinal)
                .Replace(
                    ".dtd\">",
                    ".dtd\" -->",
                    StringComparison.Ordinal).Replace("<key>CFName</key><string>",
                    "<key>CFName</key><string>&a;&b;",
                    StringComparison.Ordinal),
            "deep" => good.Replace(
                "<key>resource-fork</key>",
                $"<key>x</key>{string.Concat(Enumerable.Repeat("<array>", 100_000))}",
                StringComparison.Ordinal),
            "wide" => good.Replace(
                "<key>resource-fork</key>",
                $"<key>x</key><array>{string.Concat(Enumerable.Repeat("<true/>", 2_000_000))}</array><key>resource-fork</key>",
                StringComparison.Ordinal),
            "base64" => good.Replace("</data>", "!</data>", StringComparison.Ordinal),
            "cut" => good[..(good.Length / 2)],
            _ => "",
        };
        byte[] image = Mixed(contents).Make(), bytes = Encoding.UTF8.GetBytes(list), trailer = image[^512..];
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(216), image.Length);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(224), bytes.Length);
        if (bytes.Length == 0)
        {
            bytes = [0];
            trailer[231] = 1;
        }
        image = [.. image, .. bytes, .. trailer];
        Assert.Equal(
            DiskImageErrorKind.Corrupt,
            (await Assert.ThrowsAsync<DiskImageException>(async () => await s_dmg.OpenAsync(new MemoryNode(image, readOnly: true)))).Kind);
        _ = await s_dmg.ExerciseAsync(image, what);
    }

    [Theory]
    [InlineData(204 + 40, 3u, DiskImageErrorKind.Unsupported)] // a kind that is not known
    [InlineData(204 + 40 + 12, 1u, DiskImageErrorKind.Corrupt)] // it begins one sector later
    [InlineData(204 + 40 + 20, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(204 + 40 + 24, 0x80000000u, DiskImageErrorKind.Corrupt)]
    [InlineData(204 + 40 + 32, 0x7FFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(204 + 40 + 36, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(204 + 80 + 12, 50u, DiskImageErrorKind.Corrupt)] // over the first
    [InlineData(200, 0x7FFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(16, 1u, DiskImageErrorKind.Corrupt)]
    [InlineData(24, 1u, DiskImageErrorKind.Corrupt)]
    [InlineData(0, 0u, DiskImageErrorKind.Corrupt)]
    public async Task A_table_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
    {
        byte[] contents = Contents(200);
        byte[] image = Mixed(contents, new DmgMaker { UsesResourceFork = true }).Make();
        int table = image.AsSpan().LastIndexOf("mish"u8);
        BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(table + offset), value);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await s_dmg.OpenAsync(new MemoryNode(image, readOnly: true)));
        Assert.Equal(kind, error.Kind);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Damage_of_any_kind_ends_in_an_error_or_none(bool resourceFork)
    {
        byte[] image = Mixed(Contents(300), new DmgMaker { UsesResourceFork = resourceFork }).Make();
        int list = image.AsSpan().LastIndexOf(resourceFork ? "mish"u8 : "<plist"u8);
        await s_dmg.DamageAsync(
            image,
            [(image.Length - 512, 512), (
                image.Length - 512, 64), (list - 300, 300), (list, image.Length - 512 - list), (list + 200, 200), (0, image.Length)],
            first: 1,
            rounds: 200);
    }
}
