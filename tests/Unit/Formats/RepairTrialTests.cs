using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Formats.Parallels;
using DiskImage.Tests.Formats.Vdi;
using DiskImage.Tests.Formats.Vhdx;
using DiskImage.Tests.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>
/// Images of blocks two of which overlap, with and without a parent: a repair, in either mode, leaves an image that opens and reads in
/// every sector as before, and in which a write to one block changes no other; wherever the machine dies meanwhile, that can still be had.
/// </summary>
public sealed class RepairTrialTests
{
    private const int Sector = 512, MiB = 1 << 20;

    public static TheoryData<string, int> Overlaps() => new()
    {
        // how far the second block's place is from the first's, in bytes
        { "vpc", 0 }, { "vpc", 512 }, { "vpc", 2048 },
        { "vpc-child", 0 }, { "vpc-child", 512 }, { "vpc-child", 2048 }, { "vpc-child", -512 },
        { "vhdx", 0 }, { "vhdx", MiB }, { "vhdx-child", 0 }, { "vhdx-child", MiB }, { "vhdx-child", -MiB },
        { "vdi", 0 }, { "parallels", 0 }, { "qed", 0 }, { "qed-child", 0 }, { "qed-table", 0 }, { "bochs", 0 },
    };

    [Theory]
    [MemberData(nameof(Overlaps))]
    public async Task Blocks_that_overlap_open_and_read_the_same_after_a_repair_in_either_mode(string kind, int shift)
    {
        foreach (RepairMode mode in Enum.GetValues<RepairMode>())
        {
            Subject subject = await Subject.MakeAsync(kind, shift);
            byte[]?[] before = (await subject.SectorsAsync(subject.Image))!;
            Assert.DoesNotContain(before, s => s is null);
            var file = new MemoryNode((byte[])subject.Image.Clone());
            CheckReport left = await subject.RepairAsync(file, mode);
            byte[] after = file.ToArray();
            RequireSame(before, await subject.SectorsAsync(after), $"{mode}");
            if (mode == RepairMode.Leaks)
            {
                Assert.True(left.Corruptions > 0, "the overlap is not said any more");
                Assert.True(subject.Image.AsSpan().SequenceEqual(after), "what the mode does not allow was done");
                await subject.RequireNoWriteAsync(after);
            }
            else
            {
                Assert.True(left is { Corruptions: 0, CheckErrors: 0 } && left.CorruptionsFixed > 0, string.Join('\n', left.Findings));
                await subject.RequireOwnPlacesAsync(after, before);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Overlaps))]
    public async Task A_repair_that_is_cut_off_at_any_request_can_be_finished(string kind, int shift)
    {
        Subject subject = await Subject.MakeAsync(kind, shift);
        byte[]?[] before = (await subject.SectorsAsync(subject.Image))!;
        var log = new WriteLogNode(new MemoryNode((byte[])subject.Image.Clone()));
        _ = await subject.RepairAsync(log, RepairMode.All);
        var file = new MemoryNode((byte[])subject.Image.Clone());
        int done = 0;
        Assert.True(log.Entries.Count > 3, "nothing was repaired");
        foreach (WriteLogEntry entry in log.Entries)
        {
            await WriteLogNode.ReplayAsync(entry, file);
            string what = $"{++done} of {log.Entries.Count}";
            byte[] cut = file.ToArray();
            if (await subject.SectorsAsync(cut) is { } read)
            {
                RequireSame(before, read, what);
            }
            var again = new MemoryNode((byte[])cut.Clone());
            CheckReport left = await subject.RepairAsync(again, RepairMode.All);
            Assert.True(left is { Corruptions: 0, CheckErrors: 0 }, $"{what}: {string.Join('\n', left.Findings)}");
            RequireSame(before, await subject.SectorsAsync(again.ToArray()), $"{what}, repaired again");
        }
    }

    /// <summary>A small file may name one place a hundred thousand times: copies of it all are not made.</summary>
    [Theory]
    [InlineData("vpc")]
    [InlineData("vhdx")]
    [InlineData("vdi")]
    [InlineData("parallels")]
    public async Task More_copies_than_the_file_has_bytes_are_not_made(string kind)
    {
        byte[] image;
        Func<BlockNode, bool, Task<BlockNode>> open;
        switch (kind)
        {
            case "vpc":
                MemoryNode vhd = new();
                await VpcDisks.CreateAsync(vhd, "size=400M,block_size=2M,force_size");
                await using (BlockNode disk = await VpcDisks.OpenAsync(vhd))
                {
                    await disk.WriteAsync(0, new byte[] { 1 });
                }
                image = vhd.ToArray();
                int table = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(512 + 16));
                for (int i = 1; i < 200; i++)
                {
                    image.AsSpan(table, 4).CopyTo(image.AsSpan(table + (i * 4)));
                }
                open = (file, forRepair) => VpcDisks.OpenAsync(file, forRepair: forRepair);
                break;
            case "vhdx":
                image = await VhdxDisks.ChangeAsync(
                    await VhdxDisks.CreateAsync("size=200M,block_size=1M"), async n => await n.WriteAsync(0, new byte[] { 1 }));
                for (int i = 1; i < 200; i++)
                {
                    image.AsSpan(3 * MiB, 8).CopyTo(image.AsSpan((3 * MiB) + (i * 8)));
                }
                open = async (file, forRepair) => await VhdxDisks.OpenAsync(file, forRepair: forRepair);
                break;
            case "parallels":
                MemoryNode hdd = await ParallelsDisks.CreateAsync(200 * MiB, MiB);
                await hdd.ResizeAsync(hdd.Length + MiB);
                image = hdd.ToArray();
                for (int i = 0; i < 200; i++)
                {
                    BinaryPrimitives.WriteInt32LittleEndian(image.AsSpan(64 + (i * 4)), 1);
                }
                open = ParallelsDisks.OpenAsync;
                break;
            default:
                MemoryNode vdi = await VdiDisks.CreateAsync(200 * MiB, MiB);
                await vdi.ResizeAsync(vdi.Length + MiB);
                image = vdi.ToArray();
                image.AsSpan(512, 200 * 4).Clear(); // all of them are block 0
                open = VdiDisks.OpenAsync;
                break;
        }
        var file = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await open(file, true))
        {
            CheckReport left = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal("RepairWithdrawn", left.Findings[0].Kind);
            Assert.Contains("more than the", left.Findings[0].Message, StringComparison.Ordinal);
            Assert.True(left is { CorruptionsFixed: 0, LeaksFixed: 0, CheckErrors: > 0, Corruptions: > 0 });
        }
        Assert.True(image.AsSpan().SequenceEqual(file.ToArray()), "the file was changed");
    }

    private static void RequireSame(byte[]?[] before, byte[]?[]? after, string what)
    {
        Assert.True(after is not null, $"{what}: it does not open any more");
        for (int i = 0; i < before.Length; i++)
        {
            Assert.True(before[i] is null || before[i].AsSpan().SequenceEqual(after[i]), $"{what}: sector {i} reads otherwise");
        }
    }

    /// <summary>An image of one kind with blocks 1 and 3 in overlapping places, and how to open it.</summary>
    private sealed record Subject(byte[] Image, int BlockBytes, int Step, Func<BlockNode, bool, Task<BlockNode>> OpenAsync)
    {
        public static Task<Subject> MakeAsync(string kind, int shift) => kind switch
        {
            "vpc" or "vpc-child" => VpcAsync(kind.Length > 3, shift),
            "vdi" => VdiAsync(),
            "qed" or "qed-child" => QedAsync(hasParent: kind.Length > 3),
            "qed-table" => QedTableAsync(),
            "bochs" => BochsAsync(),
            "parallels" => ParallelsAsync(),
            _ => VhdxAsync(kind.Length > 4, shift),
        };

        public async Task<CheckReport> RepairAsync(BlockNode file, RepairMode mode)
        {
            await using BlockNode disk = await OpenAsync(file, true);
            return await disk.As<IRepairable>()!.RepairAsync(mode, null, CancellationToken.None);
        }

        /// <summary>What each sector reads as, null where it cannot be read; null if the image does not open.</summary>
        public async Task<byte[]?[]?> SectorsAsync(byte[] image)
        {
            BlockNode disk;
            try
            {
                disk = await OpenAsync(new MemoryNode((byte[])image.Clone(), readOnly: true), false);
            }
            catch (DiskImageException)
            {
                return null;
            }
            await using (disk)
            {
                var sectors = new byte[]?[disk.Length / Sector];
                for (int i = 0; i < sectors.Length; i += Step)
                {
                    byte[] bytes = new byte[Sector];
                    try
                    {
                        await disk.ReadAsync((long)i * Sector, bytes);
                        Array.Fill(sectors, bytes, i, Step);
                    }
                    catch (DiskImageException)
                    {
                        // stays null
                    }
                }
                return sectors;
            }
        }

        /// <summary>While blocks overlap, a write would destroy another block's data: it is refused.</summary>
        public async Task RequireNoWriteAsync(byte[] image)
        {
            var file = new MemoryNode((byte[])image.Clone());
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () =>
            {
                await using BlockNode disk = await OpenAsync(file, false);
                await disk.WriteAsync(BlockBytes, new byte[BlockBytes]);
            });
            Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
            Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Repair);
        }

        /// <summary>A write to each of the two blocks changes nothing else.</summary>
        public async Task RequireOwnPlacesAsync(byte[] image, byte[]?[] before)
        {
            byte[]?[] expected = [.. before];
            var file = new MemoryNode((byte[])image.Clone());
            await using (BlockNode disk = await OpenAsync(file, false))
            {
                foreach (int block in new[] { 1, 3 })
                {
                    byte[] bytes = new byte[BlockBytes];
                    Array.Fill(bytes, (byte)(0x70 + block));
                    await disk.WriteAsync(block * BlockBytes, bytes);
                    Array.Fill<byte[]?>(expected, bytes[..Sector], block * BlockBytes / Sector, BlockBytes / Sector);
                }
            }
            RequireSame(expected, await SectorsAsync(file.ToArray()), "written to");
        }

        private static async Task<Subject> VpcAsync(bool hasParent, int shift)
        {
            const int Block = 4096, Size = 64 << 10;
            byte[] parent = await VpcImageAsync(
                $"size={Size},block_size=4k,force_size", null, async d => await d.WriteAsync(0, Noise(Size, 1)));
            BlockNode OpenParent() => VpcDisks.OpenAsync(new MemoryNode(parent, readOnly: true)).GetAwaiter().GetResult();
            Func<BlockNode>? below = hasParent ? OpenParent : null;
            byte[] image = await VpcImageAsync(hasParent
                ? "block_size=4k,backing_file=p.vhd"
                : $"size={Size},block_size=4k,force_size", below, async d =>
            {
                await d.WriteAsync(Block, Noise(Block, 2));
                await d.WriteAsync(3 * Block, Noise(2048, 3));
                await d.WriteAsync((6 * Block) + 1024, Noise(Block, 4));
            });
            int table = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(512 + 16));
            uint first = BinaryPrimitives.ReadUInt32BigEndian(image.AsSpan(table + 4));
            BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(table + 12), (uint)(first + (shift / Sector)));
            return new(image, Block, 1, (file, forRepair) => VpcDisks.OpenAsync(file, below, forRepair: forRepair));
        }

        private static async Task<byte[]> VpcImageAsync(string options, Func<BlockNode>? parent, Func<BlockNode, Task> fill)
        {
            var file = new MemoryNode();
            await VpcDisks.CreateAsync(file, options, parent?.Invoke());
            await using (BlockNode disk = await VpcDisks.OpenAsync(file, parent))
            {
                await fill(disk);
            }
            return file.ToArray();
        }

        private static async Task<Subject> VhdxAsync(bool hasParent, int shift)
        {
            const int Block = 2 * MiB, Size = 8 * MiB, Bat = 3 * MiB;
            byte[] parent = await VhdxDisks.ChangeAsync(
                await VhdxDisks.CreateAsync($"size={Size},block_size=2M"), async n => await n.WriteAsync(0, Noise(Size, 1)));
            byte[] image;
            await using (VhdxNode open = await VhdxDisks.OpenAsync(parent))
            {
                image = await VhdxDisks.CreateAsync(hasParent
                    ? "backing_file=p.vhdx,block_size=2M"
                    : $"size={Size},block_size=2M", hasParent ? open : null);
            }
            image = await VhdxDisks.ChangeAsync(
                image,
                async n =>
                {
                    await n.WriteAsync(0, Noise(70_000, 5));
                    await n.WriteAsync(Block, Noise(Block, 2));
                    await n.WriteAsync(3 * Block, Noise(Block / 2, 3));
                },
                hasParent ? parent : null);
            ulong first = BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(Bat + 8));
            ulong third = BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(Bat + 24));
            ulong place = (first & ~0xFFFFFUL) + (ulong)shift;
            BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(Bat + 24), place | (third & 7));
            return new(
                image,
                Block,
                16,
                async (file, forRepair)
                    => await VhdxDisks.OpenAsync(file, hasParent ? await VhdxDisks.OpenAsync(parent) : null, forRepair: forRepair));
        }

        private static async Task<Subject> VdiAsync()
        {
            const int Block = 4096;
            MemoryNode file = await VdiDisks.CreateAsync(64 << 10, Block);
            await using (BlockNode disk = await VdiDisks.OpenAsync(file))
            {
                await disk.WriteAsync(Block, Noise(3 * Block, 2));
                await disk.WriteAsync(8 * Block, Noise(Block, 3));
            }
            byte[] image = file.ToArray();
            image.AsSpan(512 + 4, 4).CopyTo(image.AsSpan(512 + 12));
            return new(image, Block, 1, VdiDisks.OpenAsync);
        }

        /// <summary>Clusters 1 and 3 in one place.</summary>
        private static async Task<Subject> QedAsync(bool hasParent)
        {
            byte[]? parent = hasParent ? Noise(QedSize, 1) : null;
            byte[] image = await QedImageAsync(parent);
            int table = Place(image, QedCluster);
            image.AsSpan(table + 8, 8).CopyTo(image.AsSpan(table + 24));
            return Qed(image, parent);
        }

        /// <summary>Cluster 3 on the table of the last clusters, which lies where cluster 1 lay before.</summary>
        private static async Task<Subject> QedTableAsync()
        {
            byte[] image = await QedImageAsync(null);
            int first = Place(image, QedCluster);
            image.AsSpan(QedCluster + 8, 8).CopyTo(image.AsSpan(first + 24)); // the second table's place
            return Qed(image, null);
        }

        private static Subject Qed(byte[] image, byte[]? parent)
        {
            var qed = new DiskFormat("qed");
            return new(image, QedCluster, 8, async (file, forRepair) => await qed.OpenAsync(file, parent, forRepair));
        }

        private const int QedCluster = 4096, QedSize = (512 + 16) * QedCluster; // a table has 512 entries

        private static async Task<byte[]> QedImageAsync(byte[]? parent)
        {
            var qed = new DiskFormat("qed");
            MemoryNode file = await qed.CreateAsync(
                $"size={QedSize},cluster_size=4k,table_size=1{(parent is null ? "" : ",backing_file=p,backing_fmt=raw")}");
            await using (BlockNode disk = await qed.OpenAsync(file, parent))
            {
                await disk.WriteAsync(QedCluster, Noise(3 * QedCluster, 2));
                await disk.WriteAsync(8 * QedCluster, Noise(QedCluster, 3));
                await disk.WriteAsync(515 * QedCluster, Noise(QedCluster, 4));
            }
            return file.ToArray();
        }

        private static int Place(byte[] image, int at) => (int)BinaryPrimitives.ReadInt64LittleEndian(image.AsSpan(at));

        private static async Task<Subject> BochsAsync()
        {
            var bochs = new DiskFormat("bochs");
            MemoryNode file = await bochs.CreateAsync("size=1M");
            int extent = BinaryPrimitives.ReadInt32LittleEndian(file.ToArray().AsSpan(80));
            await using (BlockNode disk = await bochs.OpenAsync(file))
            {
                await disk.WriteAsync(extent + 512, Noise(2 * extent, 2));
                await disk.WriteAsync(8L * extent, Noise(512, 3));
            }
            byte[] image = file.ToArray();
            image.AsSpan(512 + 4, 4).CopyTo(image.AsSpan(512 + 12));
            return new(image, extent, 1, async (node, forRepair) => await bochs.OpenAsync(node, forRepair: forRepair));
        }

        private static async Task<Subject> ParallelsAsync()
        {
            const int Block = 4096;
            MemoryNode file = await ParallelsDisks.CreateAsync(64 << 10, Block);
            await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
            {
                await disk.WriteAsync(Block, Noise(3 * Block, 2));
                await disk.WriteAsync(8 * Block, Noise(Block, 3));
            }
            byte[] image = file.ToArray();
            image.AsSpan(64 + 4, 4).CopyTo(image.AsSpan(64 + 12));
            return new(image, Block, 1, ParallelsDisks.OpenAsync);
        }

        private static byte[] Noise(int length, int seed)
        {
            byte[] bytes = new byte[length];
            new Random(seed).NextBytes(bytes);
            return bytes;
        }
    }
}
