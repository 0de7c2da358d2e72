using System.Buffers.Binary;
using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Tests.Support;

#pragma warning disable CA5351 // the format's checksum is MD5

namespace DiskImage.Tests.Formats.Parallels;

/// <summary>The format extension, written by its published layout: it is listed, left alone by readers, and gone before the first
/// change.</summary>
public sealed class ParallelsExtensionTests
{
    private const int Cluster = 4096, Count = 16, Size = Count * Cluster;
    private const uint Closed = 0x312E3276;
    private const ulong Bitmap = 0x20385FAE252CB34A, Unknown = 0x1122334455667788;

    private const string NameStart = "{0f0e0d0c-0b0a-0908-0706-0504030201";

    private static byte s_next; // the last byte of the next bitmap's identifier

    [Fact]
    public async Task Bitmaps_are_listed_and_kept_by_who_does_not_write()
    {
        byte[] image = await MakeAsync(
            Section(Bitmap, 0, BitmapData([0])), Section(Bitmap, 0, BitmapData([ulong.MaxValue])), Section(Bitmap, 0, BitmapData([1])));
        var file = new MemoryNode([.. image]);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
        {
            IReadOnlyList<DiskBitmap> bitmaps = await ListAsync(disk);
            Assert.Equal([0L, 3 * Cluster, Size], bitmaps.Select(b => b.DirtyBytes!.Value));
            Assert.All(bitmaps, b => Assert.Equal((NameStart, (long)Cluster, false), (b.Name[..^3], b.Granularity, b.IsInUse)));
            IBitmapList list = disk.As<IBitmapList>()!;
            Assert.Empty(await list.GetDirtyRangesAsync(bitmaps[0].Name, CancellationToken.None));
            Assert.Equal(
                [(0, Cluster), (7 * Cluster, Cluster), (10 * Cluster, Cluster)],
                await list.GetDirtyRangesAsync(bitmaps[1].Name, CancellationToken.None));
            Assert.Equal([(0, Size)], await list.GetDirtyRangesAsync(bitmaps[2].Name, CancellationToken.None));
            _ = await Assert.ThrowsAsync<DiskImageException>(async () => await list.GetDirtyRangesAsync("none", CancellationToken.None));
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
            await disk.FlushAsync();
        }
        Assert.Equal(image, file.ToArray());
    }

    [Fact]
    public async Task The_first_change_drops_them_in_the_step_that_marks_the_image()
    {
        byte[] image = await MakeAsync(Section(Bitmap, 0, BitmapData([ulong.MaxValue])));
        var log = new WriteLogNode(new MemoryNode([.. image]));
        byte[] data = new byte[Cluster];
        Array.Fill<byte>(data, 7);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(log))
        {
            await disk.WriteAsync(0, data);
            Assert.Empty(await ListAsync(disk));
        }
        for (int count = 0; count <= log.Entries.Count; count++)
        {
            var copy = new MemoryNode([.. image]);
            foreach (WriteLogEntry entry in log.Entries.Take(count))
            {
                await WriteLogNode.ReplayAsync(entry, copy);
            }
            byte[] now = copy.ToArray();
            bool isKept = BinaryPrimitives.ReadUInt64LittleEndian(now.AsSpan(56)) != 0;
            Assert.True(!isKept
                || now.AsSpan().SequenceEqual(image), $"{count} requests: the extension is there, and something else is not as it was");
            Assert.All(
                (await ParallelsDisks.CheckAsync(now)).Findings, f => Assert.True(f.Kind is "Leak" or "Dirty", $"{count} requests: {f}"));
            if (count == log.Entries.Count)
            {
                Assert.Empty((await ParallelsDisks.CheckAsync(now)).Findings); // the clusters of the extension are not left behind
                Assert.False(isKept);
            }
        }
    }

    [Fact]
    public async Task Bitmaps_that_a_program_without_knowledge_of_them_may_have_made_wrong_are_said_to_be()
    {
        byte[] image = await MakeAsync(Section(Bitmap, 0, BitmapData([1])));
        image.AsSpan(44, 4).Clear();
        await using BlockNode disk = await ParallelsDisks.OpenAsync(new MemoryNode(image, readOnly: true));
        DiskBitmap stale = Assert.Single(await ListAsync(disk));
        Assert.Equal((true, null), (stale.IsInUse, stale.DirtyBytes));
        CheckFinding only = Assert.Single((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        Assert.Equal(("StaleBitmaps", CheckSeverity.Warning), (only.Kind, only.Severity));
    }

    [Theory]
    [InlineData(0, true)]
    [InlineData(1, false)]
    [InlineData(2, false)]
    public async Task A_section_that_must_be_kept_and_is_not_known_makes_the_image_read_only(int flags, bool isWritten)
    {
        byte[] image = await MakeAsync(Section(Unknown, (ulong)flags, new byte[5]), Section(Bitmap, 0, BitmapData([1])));
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(new MemoryNode(image, readOnly: true)))
        {
            _ = Assert.Single(await ListAsync(disk));
        }
        if (isWritten)
        {
            await using BlockNode disk = await ParallelsDisks.OpenAsync(new MemoryNode(image));
            await disk.WriteAsync(0, new byte[] { 1 });
        }
        else
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => ParallelsDisks.OpenAsync(new MemoryNode(image)));
            Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
        }
    }

    public static TheoryData<int> Damage() => [0, 9, 41, 44, 48, 60, 72, 76, 80];

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task One_that_cannot_be_read_is_found_keeps_writers_out_and_is_dropped_by_a_repair(int at)
    {
        byte[] image = await MakeAsync(Section(Bitmap, 0, BitmapData([ulong.MaxValue])));
        int extension = (int)BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(56)) * 512;
        image[extension + at] ^= 0x40;
        if (at > 24)
        {
            MD5.HashData(image.AsSpan(extension + 24, Cluster - 24)).CopyTo(image, extension + 8); // so that the damage itself is looked at
        }
        var file = new MemoryNode(image);
        CheckReport found = await ParallelsDisks.CheckAsync([.. image]);
        if (at is 44 or 60) // nothing, and the identifier: any will do
        {
            Assert.Empty(found.Findings);
            return;
        }
        Assert.Contains(found.Findings, f => f.Kind == "Extension");
        await Assert.ThrowsAsync<DiskImageException>(() => ParallelsDisks.OpenAsync(new MemoryNode([.. image])));
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(file, forRepair: true))
        {
            CheckReport report = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0, 0), (report.Corruptions, report.CheckErrors));
        }
        Assert.DoesNotContain((await ParallelsDisks.CheckAsync(file.ToArray())).Findings, f => f.Severity == CheckSeverity.Corruption);
        await using BlockNode repaired = await ParallelsDisks.OpenAsync(file);
        byte[] read = new byte[Size];
        await repaired.ReadAsync(0, read);
        Assert.All(read, b => Assert.Equal(3, b));
    }

    [Fact]
    public async Task Places_that_cannot_be_are_refused()
    {
        byte[] image = await MakeAsync(Section(Bitmap, 0, BitmapData([ulong.MaxValue])));
        foreach (ulong sector in new[] { 1UL, 9UL, ulong.MaxValue, (ulong)image.Length / 512 })
        {
            byte[] damaged = [.. image];
            BinaryPrimitives.WriteUInt64LittleEndian(damaged.AsSpan(56), sector);
            Assert.Contains((await ParallelsDisks.CheckAsync(damaged)).Findings, f => f.Kind == "Extension");
        }
    }

    private static async Task<IReadOnlyList<DiskBitmap>> ListAsync(BlockNode disk)
        => await disk.As<IBitmapList>()!.GetBitmapsAsync(CancellationToken.None);

    private static byte[] Section(ulong magic, ulong flags, byte[] data)
    {
        byte[] section = new byte[24 + ((data.Length + 7) / 8 * 8)];
        BinaryPrimitives.WriteUInt64LittleEndian(section, magic);
        BinaryPrimitives.WriteUInt64LittleEndian(section.AsSpan(8), flags);
        BinaryPrimitives.WriteInt32LittleEndian(section.AsSpan(16), data.Length);
        data.CopyTo(section, 24);
        return section;
    }

    /// <summary>A bitmap with a bit for each cluster; an entry that is all ones leads to a cluster of its own, in which three bits are
    /// set.</summary>
    private static byte[] BitmapData(ulong[] entries)
    {
        byte[] data = new byte[32 + (entries.Length * 8)];
        BinaryPrimitives.WriteInt64LittleEndian(data, Size / 512);
        _ = Guid.Parse($"{NameStart}{s_next++:x2}}}").TryWriteBytes(data.AsSpan(8));
        BinaryPrimitives.WriteInt32LittleEndian(data.AsSpan(24), Cluster / 512);
        BinaryPrimitives.WriteInt32LittleEndian(data.AsSpan(28), entries.Length);
        for (int i = 0; i < entries.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(32 + (i * 8)), entries[i]);
        }
        return data;
    }

    /// <summary>A full disk with an extension behind it, and the clusters of bitmaps behind that.</summary>
    private static async Task<byte[]> MakeAsync(params byte[][] sections)
    {
        MemoryNode file = await ParallelsDisks.CreateAsync(Size, Cluster);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
        {
            await disk.WriteAsync(0, Enumerable.Repeat((byte)3, Size).ToArray());
        }
        byte[] image = file.ToArray(), extension = new byte[Cluster];
        int place = image.Length, next = place + Cluster, at = 24;
        BinaryPrimitives.WriteUInt64LittleEndian(extension, 0xAB234CEF23DCEA87);
        foreach (byte[] section in sections)
        {
            if (section.Length == 64 && BinaryPrimitives.ReadUInt64LittleEndian(section.AsSpan(56)) == ulong.MaxValue)
            {
                BinaryPrimitives.WriteInt64LittleEndian(section.AsSpan(56), next / 512);
                next += Cluster;
            }
            section.CopyTo(extension, at);
            at += section.Length;
        }
        MD5.HashData(extension.AsSpan(24)).CopyTo(extension, 8);
        byte[] bits = new byte[Cluster];
        (bits[0], bits[1]) = (0b1000_0001, 0b0000_0100);
        byte[] whole = [.. image, .. extension, .. Enumerable.Repeat(bits, (next - place - Cluster) / Cluster).SelectMany(b => b)];
        BinaryPrimitives.WriteInt64LittleEndian(whole.AsSpan(56), place / 512);
        BinaryPrimitives.WriteUInt32LittleEndian(whole.AsSpan(44), Closed);
        return whole;
    }
}
