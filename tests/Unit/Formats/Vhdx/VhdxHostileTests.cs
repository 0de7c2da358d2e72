using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>
/// Whatever bytes a file has: it opens or is refused with a <see cref="DiskImageException"/>, in bounded time and memory.
/// </summary>
public sealed class VhdxHostileTests
{
    private const int MiB = 1 << 20, Header1 = 64 << 10, Header2 = 128 << 10, Region1 = 192 << 10, Region2 = 256 << 10, Metadata = 2 * MiB;
    private const int Items = Metadata + (64 << 10), Bat = 3 * MiB;

    [Fact]
    public async Task Truncations_are_refused_or_read()
    {
        byte[] image = await VhdxCheckTests.ImageAsync();
        foreach (int length in new[]
        {
            0, 1, 7, 8, 511, Header1, Header1 + 100, Header2, Header2 + 4096, Region1, Region1 + 16, Region2, Region2 + 65535, MiB, MiB + 1,
            Metadata, Metadata + 32, Items,
            Items + 3, Bat, Bat + 8, Bat + 65536, 4 * MiB, (4 * MiB) + 1, (6 * MiB) + 12345, image.Length - 1,
        })
        {
            await UseAsync(image[..length], $"cut at {length}");
        }
    }

    [Fact]
    public async Task Random_mutations_of_every_structure_are_refused_or_read()
    {
        byte[] image = await VhdxCheckTests.ImageAsync();
        byte[] withLog = await WithLogAsync();
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int i = 0; i < 600; i++)
        {
            byte[] file = (byte[])(i % 3 == 0 ? withLog : image).Clone();
            (int at, int length) = (i % 7) switch
            {
                0 => (Header1, 96),
                1 => (Header2, 96),
                2 => (Region1, 96),
                3 => (Metadata, 256),
                4 => (Items, 64),
                5 => (Bat, 80),
                _ => (MiB, 4096 * 4),
            };
            for (int k = random.Next(1, 4); k > 0; k--)
            {
                int place = at + random.Next(length);
                file[place] = random.Next(3) switch { 0 => 0, 1 => 0xFF, _ => (byte)random.Next(256) };
            }
            if (random.Next(5) > 0)
            {
                VhdxCheckTests.Fix(file, Header1, 4096);
                VhdxCheckTests.Fix(file, Header2, 4096);
                VhdxCheckTests.Fix(file, Region1, 65536);
                FixLog(file);
            }
            if (i % 7 == 2)
            {
                file.AsSpan(Region2, 4).Clear();
            }
            await UseAsync(file, $"seed {seed}, round {i}");
        }
    }

    public static TheoryData<string, int, long, int, string> Bounds() => new()
    {
        { "LogLength too long", Header1 + 68, 0xFFF00000, 4, "log" },
        { "LogLength odd", Header1 + 68, MiB + 1, 4, "log" },
        { "LogLength zero", Header1 + 68, 0, 4, "log" },
        { "LogOffset far", Header1 + 72, long.MaxValue & ~0xFFFFFL, 8, "log" },
        { "LogOffset negative", Header1 + 72, -MiB, 8, "log" },
        { "LogOffset in the header", Header1 + 72, 0, 8, "log" },
        { "LogOffset on the BAT", Header1 + 72, Bat, 8, "overlap" },
        { "Version", Header1 + 66, 2, 2, "Version" },
        { "EntryCount of regions", Region1 + 8, 2048, 4, "2047" },
        { "EntryCount of regions, huge", Region1 + 8, -1, 4, "2047" },
        { "region offset far", Region1 + 16 + 16, long.MaxValue & ~0xFFFFFL, 8, "region" },
        { "region offset odd", Region1 + 16 + 16, Bat + 512, 8, "MiB" },
        { "region length zero", Region1 + 16 + 24, 0, 4, "MiB" },
        { "region length huge", Region1 + 16 + 24, 0xFFF00000, 4, "" },
        { "metadata region unknown", Region1 + 48, 1, 4, "region" },
        { "EntryCount of metadata", Metadata + 10, 2048, 2, "2047" },
        { "item offset low", Metadata + 32 + 16, 4096, 4, "item" },
        { "item offset far", Metadata + 32 + 16, 0xFFFFFFFF, 4, "item" },
        { "item length huge", Metadata + 32 + 20, 0xFFFFFFFF, 4, "item" },
        { "item length odd", Metadata + 32 + 20, 7, 4, "File Parameters" },
        { "items overlap", Metadata + 64 + 16, 64 << 10, 4, "overlaps" },
        { "BlockSize small", Items, 4096, 4, "BlockSize" },
        { "BlockSize large", Items, 512 * MiB, 4, "BlockSize" },
        { "BlockSize no power", Items, 3 * MiB, 4, "BlockSize" },
        { "size huge", Items + 8, long.MaxValue & ~511L, 8, "VirtualDiskSize" },
        { "size above 64T", Items + 8, (64L << 40) + 512, 8, "VirtualDiskSize" },
        { "size odd", Items + 8, 1000, 8, "VirtualDiskSize" },
        { "size beyond the BAT", Items + 8, 1L << 40, 8, "BAT" },
        { "sector size", Items + 32, 1024, 4, "sector" },
        { "physical sector size", Items + 40, 0, 4, "sector" },
        { "parent without locator", Items + 4, 2, 4, "Parent Locator" },
    };

    [Theory]
    [MemberData(nameof(Bounds))]
    public async Task A_value_out_of_bounds_is_refused_by_name(string what, int at, long value, int width, string word)
    {
        byte[] file = await VhdxCheckTests.ImageAsync();
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, value);
        bytes.AsSpan(0, width).CopyTo(file.AsSpan(at));
        file.AsSpan(Header2, 4).Clear();
        file.AsSpan(Region2, 4).Clear();
        VhdxCheckTests.Fix(file, Header1, 4096);
        VhdxCheckTests.Fix(file, Region1, 65536);
        if (word.Length == 0)
        {
            await UseAsync(file, what);
            return;
        }
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => VhdxDisks.OpenAsync(file));
        Assert.Contains(word, refused.Message, StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task Unknown_structures_are_refused_by_their_GUID_if_they_are_required_and_kept_if_not()
    {
        byte[] image = await VhdxCheckTests.ImageAsync();
        var unknown = Guid.NewGuid();
        foreach (bool isRequired in new[] { false, true })
        {
            byte[] region = (byte[])image.Clone();
            foreach (int table in new[] { Region1, Region2 })
            {
                region[table + 8] = 3;
                unknown.TryWriteBytes(region.AsSpan(table + 80));
                BinaryPrimitives.WriteInt64LittleEndian(region.AsSpan(table + 96), 40 * MiB);
                BinaryPrimitives.WriteInt32LittleEndian(region.AsSpan(table + 104), MiB);
                region[table + 108] = isRequired ? (byte)1 : (byte)0;
                VhdxCheckTests.Fix(region, table, 65536);
            }
            byte[] item = (byte[])image.Clone();
            item[Metadata + 10]++;
            int entry = Metadata + 32 + (5 * 32);
            unknown.TryWriteBytes(item.AsSpan(entry));
            BinaryPrimitives.WriteInt32LittleEndian(item.AsSpan(entry + 16), 65536 + 512);
            BinaryPrimitives.WriteInt32LittleEndian(item.AsSpan(entry + 20), 5);
            item[entry + 24] = isRequired ? (byte)6 : (byte)2;
            "hello"u8.CopyTo(item.AsSpan(Items + 512));
            foreach (byte[] file in new[] { region, item })
            {
                if (isRequired)
                {
                    DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => VhdxDisks.OpenAsync(file));
                    Assert.Equal(DiskImageErrorKind.Unsupported, refused.Kind);
                    Assert.Contains(unknown.ToString(), refused.Message, StringComparison.Ordinal);
                }
                else
                {
                    byte[] written = await VhdxDisks.ChangeAsync(file, async node => await node.WriteAsync(6 * MiB, new byte[] { 5 }));
                    Assert.True(written.AsSpan().IndexOf(unknown.ToByteArray()) > 0);
                }
            }
            if (!isRequired)
            {
                await using VhdxNode parent = await VhdxDisks.OpenAsync(item);
                byte[] child = await VhdxDisks.CreateAsync("backing_file=p.vhdx", parent);
                Assert.True(child.AsSpan().IndexOf("hello"u8) > 0); // spec 2.6.1.2: what belongs to the disk goes along
            }
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public async Task Either_header_is_enough(int damaged)
    {
        byte[] file = await VhdxCheckTests.ImageAsync();
        byte[] expected = new VhdxSpecReader(file).Contents();
        file.AsSpan(damaged == 0 ? Header1 : Header2, 4096).Fill(0xAB);
        await using VhdxNode node = await VhdxDisks.OpenAsync(file);
        Assert.Equal(expected, await VhdxDisks.ReadAllAsync(node));
        byte[] written = await VhdxDisks.ChangeAsync(file, async n => await n.WriteAsync(0, new byte[] { 1 }));
        written.AsSpan(damaged == 0 ? Header2 : Header1, 4096).Clear(); // writing has made both good again
        await using VhdxNode again = await VhdxDisks.OpenAsync(written);
        Assert.Equal(1, (await VhdxDisks.ReadAllAsync(again))[0]);
    }

    [Fact]
    public async Task A_log_of_overlapping_entries_does_not_keep_us_busy_for_long()
    {
        byte[] file = await VhdxDisks.CreateAsync("size=1M,log_size=64M");
        var guid = Guid.NewGuid();
        foreach (int header in new[] { Header1, Header2 })
        {
            guid.TryWriteBytes(file.AsSpan(header + 48));
            VhdxCheckTests.Fix(file, header, 4096);
        }
        for (int at = MiB; at < 65 * MiB; at += 4096)
        {
            Span<byte> entry = file.AsSpan(at);
            "loge"u8.CopyTo(entry);
            BinaryPrimitives.WriteInt32LittleEndian(entry[8..], 64 * MiB);
            BinaryPrimitives.WriteInt64LittleEndian(entry[16..], 1);
            guid.TryWriteBytes(entry[32..]);
        }
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => VhdxDisks.OpenAsync(file));
        Assert.Equal(DiskImageErrorKind.Corrupt, refused.Kind);
    }

    /// <summary>An image with a log to replay.</summary>
    private static async Task<byte[]> WithLogAsync()
    {
        var file = new MemoryNode(await VhdxDisks.CreateAsync("size=8M,block_size=1M"));
        VhdxNode node = await VhdxDisks.OpenAsync(file);
        await node.WriteAsync(0, new byte[] { 1 });
        await node.FlushAsync();
        return file.ToArray(); // never closed
    }

    private static void FixLog(byte[] file)
    {
        for (int at = MiB; at < MiB + (4096 * 4); at += 4096)
        {
            int length = BinaryPrimitives.ReadInt32LittleEndian(file.AsSpan(at + 8));
            if (file.AsSpan(at).StartsWith("loge"u8) && length > 0 && length <= 65536)
            {
                VhdxCheckTests.Fix(file, at, length);
            }
        }
    }

    /// <summary>Opens, describes, maps, reads, checks, writes, and repairs: nothing but a DiskImageException may come out.</summary>
    private static async Task UseAsync(byte[] file, string what)
    {
        foreach (bool writable in new[] { false, true })
        {
            try
            {
                await using VhdxNode node = await VhdxDisks.OpenAsync(new MemoryNode((byte[])file.Clone(), !writable), forRepair: writable);
                _ = node.Describe();
                _ = await node.CheckAsync(null, CancellationToken.None);
                await TryAsync(async () => _ = node.Length == 0 ? default : await node.GetExtentAsync(0, node.Length));
                for (long at = 0; at < Math.Min(node.Length, 9 * MiB); at += MiB)
                {
                    await TryAsync(async () => await node.ReadAsync(at, new byte[Math.Min(4096, node.Length - at)]));
                }
                if (writable && node.Length is > 0 and < 1 << 30)
                {
                    await TryAsync(async () => await node.WriteAsync(node.Length / 2, new byte[1]));
                    await TryAsync(async () => await node.WriteZeroesAsync(0, node.Length));
                    await TryAsync(async () => _ = await node.RepairAsync(RepairMode.All, null, CancellationToken.None));
                    await TryAsync(async () => _ = await node.CompactAsync(null, CancellationToken.None));
                }
            }
            catch (DiskImageException)
            {
                // refused
            }
            catch (Exception e)
            {
                throw new InvalidOperationException(what, e);
            }
        }

        static async Task TryAsync(Func<Task> use)
        {
            try
            {
                await use();
            }
            catch (DiskImageException)
            {
                // this part is refused
            }
        }
    }
}
