using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>Key slots: what is refused, and what a crash at any write leaves.</summary>
public sealed class KeySlotTests
{
    private static readonly KeyLimits s_limits = KeyLimits.Default;

    /// <summary>
    /// A further secret is added and the first removed. After every write of it, and after the half of every write, one of the two secrets
    /// opens the volume, the key is the same, and no byte of data has changed.
    /// </summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task After_a_crash_one_of_the_secrets_opens_it(int version)
    {
        (byte[] image, byte[] sample) = await MakeAsync(version);
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        using (LuksVolume volume = await OpenAsync(log, "old"))
        {
            int added = await volume.AddAsync(Images.Secret("new"), null, 1, default);
            Assert.Equal(1, added);
            await volume.RemoveAsync(0, allowLast: false, default);
        }
        IReadOnlyList<WriteLogEntry> writes = [.. log.Entries.Where(e => e.Kind != WriteLogKind.Flush)];
        Assert.True(writes.Count >= 5, $"{writes.Count} writes");
        for (int count = 0; count <= writes.Count; count++)
        {
            foreach (bool isTorn in new[] { false, true })
            {
                var crashed = new MemoryNode((byte[])image.Clone());
                foreach (WriteLogEntry entry in writes.Take(count))
                {
                    await WriteLogNode.ReplayAsync(entry, crashed);
                }
                if (isTorn && count < writes.Count && writes[count].Data.Length > 512)
                {
                    await crashed.WriteAsync(writes[count].Offset, writes[count].Data[..(writes[count].Data.Length / 1024 * 512)]);
                }
                await RequireOneOpensAsync(crashed, sample, $"version {version}, {count} writes, torn: {isTorn}");
                Assert.True(
                    image.AsSpan(^4096..).SequenceEqual(crashed.ToArray().AsSpan(^4096..)), "no byte of the data changes");
            }
        }
        var done = new MemoryNode(log.Entries.Count > 0 ? await CopyAsync(log) : image);
        Assert.False(await OpensAsync(done, "old"));
        Assert.True(await OpensAsync(done, "new"));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task The_last_slot_is_kept_unless_told_and_a_removed_one_is_overwritten(int version)
    {
        (byte[] image, _) = await MakeAsync(version);
        var file = new MemoryNode((byte[])image.Clone());
        using (LuksVolume locked = await OpenAsync(file, secret: null))
        {
            Assert.Equal(DiskImageErrorKind.SecretRequired, (await Assert.ThrowsAsync<DiskImageException>(
                () => locked.AddAsync(Images.Secret("x"), null, 1, default).AsTask())).Kind);
            Assert.Equal(0, await locked.FindAsync(Images.Secret("old"), default));
            Assert.Null(await locked.FindAsync(Images.Secret("other"), default));
        }
        using (LuksVolume volume = await OpenAsync(file, "old"))
        {
            Assert.Equal(DiskImageErrorKind.Refused, (await Assert.ThrowsAsync<DiskImageException>(
                () => volume.RemoveAsync(0, allowLast: false, default).AsTask())).Kind);
            Assert.Equal(DiskImageErrorKind.NotFound, (await Assert.ThrowsAsync<DiskImageException>(
                () => volume.RemoveAsync(3, allowLast: true, default).AsTask())).Kind);
            Assert.Equal(DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(
                () => volume.AddAsync(Images.Secret("x"), 0, 1, default).AsTask())).Kind);
            Assert.Equal(DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(
                () => volume.AddAsync(Images.Secret("x"), 40, 1, default).AsTask())).Kind);
            KeySlot slot = volume.Slots[0];
            byte[] before = file.ToArray()[(int)slot.Offset..(int)(slot.Offset + slot.Length)];
            await volume.RemoveAsync(0, allowLast: true, default);
            byte[] after = file.ToArray()[(int)slot.Offset..(int)(slot.Offset + slot.Length)];
            for (int at = 0; at < before.Length; at += 512)
            {
                Assert.False(before.AsSpan(at, 512).SequenceEqual(after.AsSpan(at, 512)), $"what was at {at} is still there");
            }
        }
        Assert.False(await OpensAsync(file, "old"));
        using LuksVolume empty = await OpenAsync(file, secret: null);
        CheckReport report = await empty.CheckAsync(default);
        Assert.Equal(1, report.Corruptions);
        Assert.Equal(version == 1, report.Findings[0].Message.Contains("no second copy", StringComparison.Ordinal));
    }

    /// <summary>Each way in which one copy may be bad, for each copy: the other is used, it is said, and both are whole again.</summary>
    [Theory]
    [InlineData(0, "byte")]
    [InlineData(1, "byte")]
    [InlineData(0, "checksum")]
    [InlineData(1, "checksum")]
    [InlineData(0, "json")]
    [InlineData(1, "json")]
    [InlineData(0, "offset")]
    [InlineData(1, "offset")]
    [InlineData(0, "magic")]
    [InlineData(1, "magic")]
    [InlineData(0, "older")]
    [InlineData(1, "older")]
    public async Task A_damaged_copy_of_the_header_is_found_and_written_anew(int copy, string how)
    {
        (byte[] image, byte[] sample) = await MakeAsync(2);
        byte[] damaged = (byte[])image.Clone();
        Damage(damaged, copy, how);
        var file = new MemoryNode(damaged);
        using (LuksVolume volume = await OpenAsync(file, "old"))
        {
            CheckFinding found = Assert.Single((await volume.CheckAsync(default)).Findings);
            Assert.Equal("HeaderCopy", found.Kind);
            Assert.Contains(
                (copy == 0) ? "first copy" : "second copy", Assert.Single(volume.Warnings), StringComparison.Ordinal);
            await ((Luks2Volume)volume).RepairAsync();
        }
        using LuksVolume again = await OpenAsync(file, "old");
        Assert.Empty((await again.CheckAsync(default)).Findings);
        await RequireOneOpensAsync(file, sample, "repaired");
        byte[] repaired = file.ToArray();
        Assert.Equal(SequenceOf(repaired, 0), SequenceOf(repaired, 1));
        Assert.True(SequenceOf(repaired, 0) > SequenceOf(image, 0), "what was written last is the newer");
    }

    /// <summary>The newer copy counts: a slot that only the older one has opens nothing.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public async Task The_newer_copy_counts(int older)
    {
        (byte[] image, _) = await MakeAsync(2);
        var file = new MemoryNode((byte[])image.Clone());
        using (LuksVolume volume = await OpenAsync(file, "old"))
        {
            _ = await volume.AddAsync(Images.Secret("new"), null, 1, default);
        }
        byte[] mixed = file.ToArray();
        int at = older * Luks2Copy.SmallestSize;
        image.AsSpan(at, Luks2Copy.SmallestSize).CopyTo(mixed.AsSpan(at));
        Assert.True(await OpensAsync(new MemoryNode(mixed), "new"));
    }

    [Fact]
    public async Task Two_damaged_copies_are_refused_with_what_is_wrong_with_each()
    {
        (byte[] image, _) = await MakeAsync(2);
        Damage(image, 0, "byte");
        Damage(image, 1, "json");
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(new MemoryNode(image), secret: null));
        Assert.Equal(DiskImageErrorKind.Corrupt, e.Kind);
        Assert.Contains("checksum", e.Message, StringComparison.Ordinal);
        Assert.True(e.Message.Contains("no JSON", StringComparison.Ordinal), e.Message);
    }

    /// <summary>One overwritten sector is enough for the key to be gone, and shows without a secret.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task An_overwritten_sector_of_a_slot_is_found(int version)
    {
        (byte[] image, _) = await MakeAsync(version);
        KeySlot slot;
        using (LuksVolume volume = await OpenAsync(new MemoryNode(image), secret: null))
        {
            slot = volume.Slots[0];
            Assert.Empty((await volume.CheckAsync(default)).Findings);
        }
        image.AsSpan((int)slot.Offset + (7 * 512), 512).Fill(0xFF);
        using LuksVolume damaged = await OpenAsync(new MemoryNode(image), secret: null);
        CheckFinding found = Assert.Single((await damaged.CheckAsync(default)).Findings);
        Assert.Equal(("KeySlotData", slot.Offset + (7 * 512)), (found.Kind, found.HostOffset));
        Assert.False(await OpensAsync(new MemoryNode(image), "old"));
    }

    /// <summary>JSON text as deep, and headers as large, as they may be and beyond.</summary>
    [Theory]
    [InlineData(29, true)]
    [InlineData(40, false)]
    [InlineData(4000, false)]
    public async Task Deep_text_is_bounded(int depth, bool isTaken)
    {
        (byte[] image, _) = await MakeAsync(2);
        byte[] deep = await EditedAsync(
            image, "\"tokens\":{}", $"\"tokens\":{{\"0\":{new string('[', depth)}{new string(']', depth)}}}");
        if (isTaken)
        {
            Assert.True(await OpensAsync(new MemoryNode(deep), "old"));
            return;
        }
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(new MemoryNode(deep), secret: null));
        Assert.Equal(DiskImageErrorKind.Corrupt, e.Kind);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(8192UL)]
    [InlineData(16385UL)]
    [InlineData(8UL << 20)]
    [InlineData(ulong.MaxValue)]
    public async Task A_header_of_another_size_is_refused(ulong size)
    {
        (byte[] image, _) = await MakeAsync(2);
        foreach (int at in new[] { 0, Luks2Copy.SmallestSize })
        {
            DiskImage.Binary.BigEndian.U64(image, at + 8, size);
            Reseal(image.AsSpan(at, Luks2Copy.SmallestSize));
        }
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(new MemoryNode(image), secret: null));
        Assert.Equal(DiskImageErrorKind.Corrupt, e.Kind);
        Assert.Contains($"{size:#,0} bytes", e.Message, StringComparison.Ordinal);
    }

    /// <summary>What the user allows is done; the figure of what is refused is in the message.</summary>
    [Fact]
    public async Task Iterations_and_memory_past_the_limit_are_refused_with_the_figure_unless_allowed()
    {
        (byte[] first, _) = await MakeAsync(1);
        long iterations = 0;
        using (LuksVolume volume = await OpenAsync(new MemoryNode(first), secret: null))
        {
            iterations = volume.Slots[0].Iterations;
        }
        await RefusedAsync(first, new KeyLimits(iterations - 1, 1), $"{iterations:#,0} iterations of sha256", "minutes", "max-iterations");
        DiskImage.Binary.BigEndian.U32(first, 164, (uint)iterations + 1); // the digest's, one past the limit
        await RefusedAsync(first, new KeyLimits(iterations, 1), $"{iterations + 1:#,0} iterations of sha256", "the digest");
        Assert.False(await OpensAsync(new MemoryNode(first), "old", new KeyLimits(iterations + 1, 1))); // tried, and another digest
        (byte[] second, _) = await MakeAsync(2);
        await RefusedAsync(second, new KeyLimits(long.MaxValue, (32 << 20) - 1), "33,554,432 bytes of memory", "33,554,431", "max-memory");
        Assert.True(await OpensAsync(new MemoryNode(second), "old", new KeyLimits(long.MaxValue, 32 << 20)));

        static async Task RefusedAsync(byte[] image, KeyLimits limits, params string[] says)
        {
            DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(new MemoryNode(image), "old", limits));
            Assert.Equal(DiskImageErrorKind.OutOfRange, e.Kind);
            Assert.All(says, s => Assert.Contains(s, e.Message, StringComparison.Ordinal));
        }
    }

    /// <summary>What a hostile header may ask for, at the bound and past it.</summary>
    [Theory]
    [InlineData(108, 0u, DiskImageErrorKind.Corrupt)] // bytes of the key
    [InlineData(108, 65u, DiskImageErrorKind.Corrupt)]
    [InlineData(108, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(164, 0u, DiskImageErrorKind.Corrupt)] // iterations of the digest
    [InlineData(164, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(164, 2_000_000_000u, DiskImageErrorKind.OutOfRange)]
    [InlineData(208, 1u, DiskImageErrorKind.Corrupt)] // state of slot 0
    [InlineData(212, 0u, DiskImageErrorKind.Corrupt)] // its iterations
    [InlineData(212, 2_000_000_000u, DiskImageErrorKind.OutOfRange)]
    [InlineData(248, 0u, DiskImageErrorKind.Corrupt)] // its offset: on the header
    [InlineData(248, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(248, 520u, DiskImageErrorKind.Corrupt)] // on slot 1
    [InlineData(252, 0u, DiskImageErrorKind.Corrupt)] // its stripes
    [InlineData(252, 70_000u, DiskImageErrorKind.Corrupt)]
    [InlineData(252, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(104, 9u, DiskImageErrorKind.Corrupt)] // the data on the slots
    public async Task A_number_out_of_bounds_is_refused(int at, uint value, DiskImageErrorKind kind)
    {
        (byte[] image, _) = await MakeAsync(1);
        byte[] hostile = (byte[])image.Clone();
        DiskImage.Binary.BigEndian.U32(hostile, at, value);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => (await OpenAsync(new MemoryNode(hostile), "old")).Dispose());
        Assert.Equal(kind, e.Kind);
        if (kind == DiskImageErrorKind.OutOfRange)
        {
            Assert.Contains("minutes", e.Message, StringComparison.Ordinal);
            Assert.Contains("max-iterations", e.Message, StringComparison.Ordinal);
        }
    }

    /// <summary>Random damage of headers: only the library's own exception, and soon.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Damage_ends_in_an_error_or_nothing(int version)
    {
        (byte[] image, _) = await MakeAsync(version);
        var random = new Random(77);
        for (int round = 0; round < 300; round++)
        {
            byte[] damaged = (byte[])image.Clone();
            for (int i = 0; i <= random.Next(4); i++)
            {
                damaged[random.Next(version == 1 ? Luks1Header.Bytes : 2 * Luks2Copy.SmallestSize)] = (byte)random.Next(256);
            }
            if (version == 2)
            {
                damaged = await ResealedAsync(damaged, random);
            }
            try
            {
                (await LuksVolume.OpenAsync(
                    new LuksArea(new MemoryNode(damaged), 0, damaged.Length), new KeyLimits(2000, 64 << 20), default)).Dispose();
            }
            catch (DiskImageException)
            {
            }
        }
    }

    /// <summary>JSON text of LUKS2 with values that are not what they should be, under right checksums.</summary>
    [Theory]
    [InlineData("\"sector_size\":512", "\"sector_size\":513")]
    [InlineData("\"sector_size\":512", "\"sector_size\":8192")]
    [InlineData("\"stripes\":4000", "\"stripes\":999999999")]
    [InlineData("\"stripes\":4000", "\"stripes\":\"x\"")]
    [InlineData("\"key_size\":64,\"af\"", "\"key_size\":-1,\"af\"")]
    [InlineData("\"offset\":\"32768\"", "\"offset\":\"0\"")]
    [InlineData("\"offset\":\"32768\"", "\"offset\":\"99999999999999999999\"")]
    [InlineData("\"memory\":32768", "\"memory\":2147483647")]
    [InlineData("\"time\":4", "\"time\":2147483647")]
    [InlineData("\"type\":\"crypt\"", "\"type\":\"linear\"")]
    [InlineData("\"type\":\"argon2id\"", "\"type\":\"scrypt\"")]
    [InlineData("\"keyslots\":[\"0\"]", "\"keyslots\":[[[[\"0\"]]]]")]
    [InlineData("\"config\":{", "\"config\":{\"requirements\":{\"mandatory\":[\"online-reencrypt\"]},")]
    [InlineData("\"sector_size\":512", "\"sector_size\":512,\"integrity\":{}")]
    public async Task A_hostile_text_is_refused(string from, string to)
    {
        (byte[] image, _) = await MakeAsync(2);
        byte[] hostile = await EditedAsync(image, from, to);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => (await OpenAsync(new MemoryNode(hostile), "old")).Dispose());
        Assert.Contains(
            e.Kind,
            new[] { DiskImageErrorKind.Corrupt, DiskImageErrorKind.Unsupported, DiskImageErrorKind.OutOfRange, DiskImageErrorKind.WrongSecret });
    }

    /// <summary>Segments that are not known here, and several of them, are refused with what they are called.</summary>
    [Theory]
    [InlineData("\"segments\":{", "\"segments\":{\"7\":{\"type\":\"linear\",\"offset\":\"16777216\",\"size\":\"4096\"},", "2 segments (7, 0)")]
    [InlineData("\"type\":\"crypt\"", "\"type\":\"linear\"", "segments.0.type is 'linear'")]
    [InlineData("\"sector_size\":512", "\"sector_size\":512,\"integrity\":{\"type\":\"hmac(sha256)\"}", "integrity")]
    [InlineData("\"config\":{", "\"config\":{\"requirements\":{\"mandatory\":[\"inline-hw-tags\"]},", "inline-hw-tags")]
    public async Task What_is_not_known_is_refused_by_name(string from, string to, string says)
    {
        (byte[] image, _) = await MakeAsync(2);
        byte[] edited = await EditedAsync(image, from, to);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(new MemoryNode(edited), secret: null));
        Assert.Equal(DiskImageErrorKind.Unsupported, e.Kind);
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
    }

    private static async Task<(byte[] Image, byte[] Sample)> MakeAsync(int version)
    {
        var file = new MemoryNode();
        CipherSpec cipher = new(CipherAlgorithm.Aes256, CipherMode.Xts, IvGeneration.Plain64, null);
        using SecretBuffer secret = SecretBuffer.Of("old"u8);
        var area = new LuksArea(file, 0, long.MaxValue / 2);
        using LuksVolume volume = version == 1
            ? await Luks1Volume.CreateAsync(area, cipher, HashAlgorithm.Sha256, false, Guid.Empty, secret, 1, default)
            : await Luks2Volume.CreateAsync(area, cipher, HashAlgorithm.Sha256, Guid.Empty, secret, 1, default);
        await file.ResizeAsync(volume.Payload + 4096);
        byte[] sample = new byte[512];
        using ISectorCipher sectors = volume.MakeCipher(isByPlace: false);
        sectors.Encrypt(sample, 0);
        return (file.ToArray(), sample);
    }

    private static async Task<LuksVolume> OpenAsync(BlockNode file, string? secret, KeyLimits? limits = null)
    {
        LuksVolume volume = await LuksVolume.OpenAsync(new LuksArea(file, 0, file.Length), limits ?? s_limits, default);
        if (secret is not null)
        {
            using SecretBuffer text = SecretBuffer.Of(System.Text.Encoding.UTF8.GetBytes(secret));
            await volume.UnlockAsync(text, default);
        }
        return volume;
    }

    private static async Task<bool> OpensAsync(BlockNode file, string secret, KeyLimits? limits = null)
    {
        try
        {
            (await OpenAsync(file, secret, limits)).Dispose();
            return true;
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.WrongSecret)
        {
            return false;
        }
    }

    private static async Task RequireOneOpensAsync(BlockNode file, byte[] sample, string when)
    {
        string secret = await OpensAsync(file, "old") ? "old" : "new";
        Assert.True(secret == "old" || await OpensAsync(file, "new"), $"{when}: neither secret opens it");
        using LuksVolume volume = await OpenAsync(file, secret);
        byte[] again = new byte[512];
        using ISectorCipher sectors = volume.MakeCipher(isByPlace: false);
        sectors.Encrypt(again, 0);
        Assert.Equal(sample, again);
    }

    private static async Task<byte[]> CopyAsync(BlockNode node)
    {
        byte[] bytes = new byte[node.Length];
        await node.ReadAsync(0, bytes);
        return bytes;
    }

    private static Task<byte[]> EditedAsync(byte[] image, string from, string to)
        => RewrittenAsync(image, text =>
        {
            Assert.Contains(from, text, StringComparison.Ordinal);
            return text.Replace(from, to, StringComparison.Ordinal);
        });

    private static Task<byte[]> ResealedAsync(byte[] image, Random random)
        => RewrittenAsync(image, text =>
        {
            char[] characters = text.ToCharArray();
            characters[random.Next(characters.Length)] = (char)random.Next(32, 127);
            return new string(characters);
        });

    /// <summary>Changes the text of both copies and gives them their checksums.</summary>
    private static Task<byte[]> RewrittenAsync(byte[] image, Func<string, string> change)
    {
        byte[] changed = (byte[])image.Clone();
        string? text = null;
        foreach (int at in new[] { 0, Luks2Copy.SmallestSize })
        {
            Span<byte> json = changed.AsSpan(at + Luks2Copy.FixedBytes, Luks2Copy.SmallestSize - Luks2Copy.FixedBytes);
            text ??= change(System.Text.Encoding.Latin1.GetString(json[..json.IndexOf((byte)0)]));
            json.Clear();
            System.Text.Encoding.Latin1.GetBytes(text, json);
            Reseal(changed.AsSpan(at, Luks2Copy.SmallestSize));
        }
        return Task.FromResult(changed);
    }

    /// <summary>Gives a copy of the header its checksum.</summary>
    private static void Reseal(Span<byte> copy)
    {
        copy.Slice(448, 64).Clear();
        System.Security.Cryptography.SHA256.HashData(copy, copy[448..]);
    }

    private static ulong SequenceOf(byte[] image, int copy)
        => DiskImage.Binary.BigEndian.U64(image, (copy * Luks2Copy.SmallestSize) + 16);

    private static void Damage(byte[] image, int copy, string how)
    {
        Span<byte> bytes = image.AsSpan(copy * Luks2Copy.SmallestSize, Luks2Copy.SmallestSize);
        switch (how)
        {
            case "byte":
                bytes[5000] ^= 1;
                return;
            case "checksum":
                bytes[448] ^= 1;
                return;
            case "magic":
                bytes[0] ^= 1;
                return;
            case "json":
                bytes[Luks2Copy.FixedBytes] = (byte)'[';
                break;
            case "offset":
                DiskImage.Binary.BigEndian.U64(bytes, 256, 4096);
                break;
            default:
                DiskImage.Binary.BigEndian.U64(bytes, 16, 0);
                break;
        }
        Reseal(bytes);
    }
}
