using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Campaign;
using DiskImage.Tests.Formats;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Hostile;

/// <summary>
/// VMDK, VDI and Parallels files that claim what nobody has: tables that lead in circles, everything in one place, grains that grow as they
/// are decoded, text without end. What is asked of a file follows the bytes it has; sizes are taken up to their bounds and not beyond.
/// </summary>
public sealed class DiskClaimTests
{
    private const int Sector = 512, Grain = 65536, TableBytes = 2048;

    /// <summary>Everything is done with each, in bounded work and memory; only <see cref="DiskImageException"/> comes of it.</summary>
    [Theory]
    [InlineData("vmdk", "every directory entry names one table")]
    [InlineData("vmdk", "every directory entry names the directory")]
    [InlineData("vmdk", "every table entry names one grain")]
    [InlineData("vmdk", "every table entry names the tables")]
    [InlineData("vmdk", "the directories name each other")]
    [InlineData("vdi", "every map entry names one block")]
    [InlineData("vdi", "every map entry names another block that is not there")]
    [InlineData("parallels", "every entry names one cluster")]
    [InlineData("parallels", "every entry names the table")]
    public async Task Tables_in_circles_cost_no_more_than_the_file(string name, string what)
    {
        var format = new DiskFormat(name);
        byte[] image = await MakeAsync(format, name, what);
        _ = await format.ExerciseAsync(image, what);
        foreach (bool forRepair in new[] { false, true })
        {
            // a repair may always copy 64 MiB, and compares what it copied
            long most = (40L * image.Length) + (16 << 20) + (forRepair ? 4L * (64 << 20) : 0);
            var file = new CountingNode(new MemoryNode((byte[])image.Clone(), readOnly: !forRepair));
            try
            {
                await using BlockNode disk = await format.OpenAsync(file, forRepair: forRepair);
                _ = forRepair ? await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None)
                    : await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
            }
            catch (DiskImageException)
            {
                // It may be refused.
            }
            Assert.True(file.Bytes < most, $"{what}: {file.Bytes:#,0} bytes of {image.Length:#,0}");
            Assert.True(file.Requests < 20_000 + (image.Length / Sector), $"{what}: {file.Requests:#,0} requests");
        }
    }

    /// <summary>A hundred megabytes in the room of one grain: no more than a grain is decoded, and the grain is refused.</summary>
    [Fact]
    public async Task A_compressed_grain_that_does_not_end_is_decoded_as_far_as_a_grain_goes()
    {
        var format = new DiskFormat("vmdk");
        byte[] image = await Formats.Vmdk.VmdkStructureTests.StreamAsync();
        using var bomb = new MemoryStream();
        using (var zlib = new ZLibStream(bomb, CompressionLevel.SmallestSize, leaveOpen: true))
        {
            zlib.Write(new byte[100 << 20]);
        }
        int at = Enumerable.Range(1, (image.Length / Sector) - 1).Select(s => s * Sector).First(a => IsGrain(image, a));
        byte[] damaged = new byte[Math.Max(image.Length, at + (int)bomb.Length + Grain)];
        image.CopyTo(damaged, 0);
        bomb.ToArray().CopyTo(damaged, at + 12);
        BinaryPrimitives.WriteInt32LittleEndian(damaged.AsSpan(at + 8), (int)bomb.Length);
        long before = GC.GetAllocatedBytesForCurrentThread();
        var file = new CountingNode(new MemoryNode(damaged, readOnly: true));
        byte[] buffer = new byte[Grain];
        try
        {
            await using BlockNode disk = await format.OpenAsync(file);
            await disk.ReadAsync(0, buffer);
            Assert.Fail("a grain of 100 MiB was read");
        }
        catch (DiskImageException e)
        {
            Assert.Equal(DiskImageErrorKind.Corrupt, e.Kind);
        }
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < 24 << 20);
        Assert.True(file.Bytes < damaged.Length);
    }

    /// <summary>A file of a gibibyte that begins like a descriptor: what is read of it is what a descriptor may have.</summary>
    [Theory]
    [InlineData("vmdk", "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n")]
    [InlineData("parallels", "<?xml version='1.0'?>\n<Parallels_disk_image Version=\"1.0\">")]
    public async Task Of_text_without_end_no_more_is_read_than_a_descriptor_may_have(string name, string start)
    {
        var format = new DiskFormat(name);
        foreach (byte filler in "\0\n x"u8.ToArray())
        {
            var file = new CountingNode(new EndlessNode(Encoding.ASCII.GetBytes(start), filler, 1L << 30));
            _ = await Assert.ThrowsAsync<DiskImageException>(async () => await format.OpenAsync(file));
            Assert.True(file.Bytes <= 5 << 20, $"{file.Bytes:#,0} bytes were read");
        }
    }

    /// <summary>At its bound a number is taken, over it refused.</summary>
    [Theory]
    [InlineData("vmdk", 20, 8, 131_072, true)] // sectors of a grain
    [InlineData("vmdk", 20, 8, 262_144, false)]
    [InlineData("vmdk", 44, 4, 4096, true)] // entries of a table
    [InlineData("vmdk", 44, 4, 8192, false)]
    [InlineData("vmdk", 12, 8, 1L << 46, false)] // the directory would have more entries than are taken
    [InlineData("vmdk", 12, 8, long.MaxValue, false)]
    [InlineData("vmdk", 12, 8, -1, false)]
    [InlineData("vdi", 0x180, 4, 8, true)] // blocks
    [InlineData("vdi", 0x180, 4, 0x1FFF_FFF0, false)] // as many as can be, but the file is too short for their map
    [InlineData("vdi", 0x180, 4, 0x1FFF_FFF1, false)]
    [InlineData("vdi", 0x170, 8, 8 << 20, true)] // bytes of the disk
    [InlineData("vdi", 0x170, 8, (8 << 20) + 512, false)] // more than the blocks hold
    [InlineData("vdi", 0x170, 8, -512, false)]
    [InlineData("parallels", 28, 4, 4_186_127, true)] // sectors of a cluster
    [InlineData("parallels", 28, 4, 4_186_128, false)]
    [InlineData("parallels", 32, 4, 0x1FFF_FFF0, false)]
    [InlineData("parallels", 36, 8, 8 * 2048, true)] // sectors of the disk
    [InlineData("parallels", 36, 8, (8 * 2048) + 1, false)]
    [InlineData("parallels", 36, 8, -1, false)]
    public async Task Sizes_are_taken_at_their_bound_and_refused_over_it(string name, int offset, int width, long value, bool isTaken)
    {
        var format = new DiskFormat(name);
        byte[] image = (await format.CreateAsync("size=8M")).ToArray();
        if (name.Equals("vmdk", StringComparison.Ordinal) && isTaken)
        {
            BinaryPrimitives.WriteInt64LittleEndian(image.AsSpan(12), 128); // one grain, one table
        }
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, value);
        bytes.AsSpan(0, width).CopyTo(image.AsSpan(offset));
        var file = new CountingNode(new MemoryNode(image, readOnly: true));
        long before = GC.GetAllocatedBytesForCurrentThread();
        DiskImageException? error = null;
        try
        {
            await using BlockNode disk = await format.OpenAsync(file);
            _ = await disk.GetExtentAsync(0, disk.Length);
        }
        catch (DiskImageException e)
        {
            error = e;
        }
        Assert.True(isTaken == error is null, error?.Message ?? "it was taken");
        Assert.True(file.Bytes < 4 << 20, $"{file.Bytes:#,0} bytes were read");
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < 64 << 20);
    }

    /// <summary>Lines, extents and bytes of a VMDK descriptor; bytes, levels and snapshots of a Parallels one.</summary>
    [Fact]
    public async Task Descriptors_are_taken_at_their_bounds_and_refused_over_them()
    {
        const string Start = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n";
        var vmdk = new DiskFormat("vmdk");
        string full = Start + string.Concat(Enumerable.Repeat("RW 1 ZERO\n", 8192));
        await OpensAsync(vmdk, full, true);
        await OpensAsync(vmdk, full + "RW 1 ZERO\n", false);
        string one = Start + "RW 1 ZERO\n#";
        await OpensAsync(vmdk, one.PadRight(2 << 20, 'x'), true);
        await OpensAsync(vmdk, one.PadRight((2 << 20) + 1, 'x'), false);

        const string Top = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
        var parallels = new DiskFormat("parallels");
        foreach ((int more, int levels, bool isRead) in new[] { (0, 1, true), (1, 1, false), (0, 31, true), (0, 33, false) })
        {
            string deep = string.Concat(Enumerable.Repeat("<a>", levels)) + string.Concat(Enumerable.Repeat("</a>", levels));
            string text = $"<Parallels_disk_image Version=\"1.0\"><Disk_Parameters><Disk_size>8</Disk_size></Disk_Parameters>{deep}"
                + $"<StorageData><Storage><Start>0</Start><End>8</End><Image><GUID>{Top}</GUID><Type>Plain</Type><File>a</File></Image>"
                + $"</Storage></StorageData><Snapshots><Shot><GUID>{Top}</GUID><ParentGUID>{Guid.Empty:B}</ParentGUID></Shot></Snapshots>"
                + "</Parallels_disk_image>";
            await OpensAsync(parallels, text.PadRight((4 << 20) + more, '\n'), isRead);
        }

        // what is asked for a file behind the descriptor shows that the descriptor was read
        static async Task OpensAsync(DiskFormat format, string text, bool isRead)
        {
            DiskImageException? error = null;
            try
            {
                await using BlockNode disk = await format.OpenAsync(new MemoryNode(Encoding.ASCII.GetBytes(text), readOnly: true));
            }
            catch (DiskImageException e)
            {
                error = e;
            }
            Assert.True(error is null or { Kind: DiskImageErrorKind.Refused } == isRead, $"{text.Length:#,0} bytes: {error?.Message}");
        }
    }

    private static async Task<byte[]> MakeAsync(DiskFormat format, string name, string what)
    {
        switch (name)
        {
            case "vmdk":
                const int Tables = 192;
                var file = await format.CreateAsync($"size={(long)Tables * 512 * Grain}");
                await using (BlockNode disk = await format.OpenAsync(file))
                {
                    await disk.WriteAsync(0, Enumerable.Repeat((byte)1, Grain).ToArray());
                }
                byte[] image = file.ToArray();
                int directory = (int)BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(56)) * Sector;
                int redundant = (int)BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(48)) * Sector;
                int table = BinaryPrimitives.ReadInt32LittleEndian(image.AsSpan(directory)) * Sector;
                uint grain = BinaryPrimitives.ReadUInt32LittleEndian(image.AsSpan(table));
                for (int i = 0; i < Tables; i++)
                {
                    int value = what switch
                    {
                        "every directory entry names one table" => table / Sector,
                        "every directory entry names the directory" => directory / Sector,
                        "the directories name each other" => redundant / Sector,
                        _ => -1,
                    };
                    if (value >= 0)
                    {
                        BinaryPrimitives.WriteInt32LittleEndian(image.AsSpan(directory + (i * 4)), value);
                        BinaryPrimitives.WriteInt32LittleEndian(
                            image.AsSpan(redundant + (i * 4)), value == redundant / Sector ? directory / Sector : value);
                    }
                    for (int entry = 0; entry < TableBytes / 4 && value < 0; entry++)
                    {
                        uint place = what.EndsWith("one grain", StringComparison.Ordinal) ? grain : (uint)(table / Sector);
                        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(table + (i * TableBytes) + (entry * 4)), place);
                    }
                }
                return image;
            default:
                bool isVdi = name.Equals("vdi", StringComparison.Ordinal);
                MemoryNode made = await format.CreateAsync("size=64G");
                await using (BlockNode disk = await format.OpenAsync(made))
                {
                    await disk.WriteAsync(0, new byte[] { 1 });
                }
                byte[] bytes = made.ToArray();
                int map = isVdi ? BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(0x154)) : 64;
                for (int i = 1; i < 65_536; i++)
                {
                    uint value = what switch
                    {
                        "every map entry names another block that is not there" => (uint)i,
                        "every entry names the table" => 0x0000_0001,
                        _ => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(map)),
                    };
                    BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(map + (i * 4)), value);
                }
                return bytes;
        }
    }

    /// <summary>True where a marker of the disk's first grain is: what lies there is a zlib stream of a plausible length.</summary>
    private static bool IsGrain(byte[] image, int at)
        => BinaryPrimitives.ReadInt64LittleEndian(image.AsSpan(at)) == 0 && image[at + 12] == 0x78
            && BinaryPrimitives.ReadInt32LittleEndian(image.AsSpan(at + 8)) is > 0 and < Grain * 2;

    /// <summary>A file that begins with some bytes and goes on with one, of any length.</summary>
    private sealed class EndlessNode(byte[] start, byte filler, long length) : BlockNode
    {
        public override string Name => "endless";

        public override long Length => length;

        public override bool IsReadOnly => true;

        protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        {
            buffer.Span.Fill(filler);
            if (offset < start.Length)
            {
                start.AsSpan((int)offset, (int)Math.Min(start.Length - offset, buffer.Length)).CopyTo(buffer.Span);
            }
            return default;
        }

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
            => throw new NotSupportedException();
    }
}
