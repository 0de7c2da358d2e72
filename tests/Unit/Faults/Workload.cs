using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults;

/// <summary>An image before, and what is then asked of it.</summary>
internal sealed record Workload(byte[] Image, byte[]? Backing, int[] Tags, List<GuestOperation> Operations, string OpenOptions)
{
    private const int Sectors = 2048;

    public static readonly string[] Names =
    [
        "allocation", "refcounts of 1 bit", "backing", "backing, version 2", "compressed", "zero", "zero, "
            + "version 2", "discard", "discard over backing",
        "large clusters", "refcount table",
    ];

    public SectorModel NewModel() => new(Tags);

    public ValueTask<BlockNode> OpenAsync(BlockNode file) => MemoryDisk.OpenAsync(file, Backing, OpenOptions);

    /// <summary>The workload of a name. Small caches make metadata go back and forth between memory and file.</summary>
    public static async Task<Workload> MakeAsync(string name)
    {
        const string SmallCaches = "l2-cache-size=0,refcount-cache-size=0";
        const GuestAction Write = GuestAction.Write, Zero = GuestAction.WriteZeroes, Discard = GuestAction.Discard;
        const GuestAction Flush = GuestAction.Flush;
        const string OverBacking = ",backing_file=base.raw,backing_fmt=raw";
        string size = $"size={Sectors * SectorModel.Bytes}";
        int[] empty = new int[Sectors];
        int[] tags = [.. Enumerable.Range(0, Sectors).Select(sector => sector < Sectors - 300 ? 1_000_000 + sector : 0)];
        byte[] backing = [.. tags.SelectMany((tag, sector) => SectorModel.Data(sector, 1, tag))];
        byte[] shortBacking = backing[..((Sectors - 300) * SectorModel.Bytes)];
        return name switch
        {
            "allocation" => new(
                await NewAsync(",cluster_size=512"), null, empty, Sequence(1, 120, 12, Write, Write, Write, Flush), SmallCaches),
            "refcounts of 1 bit" => new(
                await NewAsync(",cluster_size=512,refcount_bits=1"),
                null,
                empty,
                Sequence(2, 120, 12, Write, Write, Zero, Discard, Flush),
                ""),
            "backing" => new(
                await NewAsync(OverBacking + ",cluster_size=4k"),
                shortBacking,
                tags,
                Sequence(3, 100, 20, Write, Write, Write, Zero, Flush),
                SmallCaches),
            "backing, version 2" => new(
                await NewAsync(OverBacking + ",cluster_size=4k,compat=0.10"),
                shortBacking,
                tags,
                Sequence(4, 80, 20, Write, Write, Write, Zero, Discard, Flush),
                ""),
            "compressed" => new(
                await MemoryDisk.CompressedAsync(backing, ",cluster_size=4k"),
                null,
                tags,
                Sequence(5, 100, 20, Write, Write, Write, Zero, Discard, Flush),
                SmallCaches),
            "zero" => new(await FullAsync(",cluster_size=1k"), null, tags, Sequence(6, 100, 30, Write, Zero, Zero, Flush), ""),
            "zero, version 2" => new(
                await FullAsync(",cluster_size=1k,compat=0.10"), null, tags, Sequence(7, 100, 30, Write, Zero, Zero, Flush), SmallCaches),
            "discard" => new(
                await FullAsync(",cluster_size=512,refcount_bits=4"),
                null,
                tags,
                Sequence(8, 100, 40, Write, Write, Discard, Flush),
                SmallCaches),
            "discard over backing" => new(
                await NewAsync(OverBacking + ",cluster_size=2k"),
                shortBacking,
                tags,
                Sequence(9, 100, 40, Write, Write, Discard, Zero, Flush),
                ""),
            "large clusters" => new(
                await NewAsync(",cluster_size=64k"), null, empty, Sequence(10, 120, 60, Write, Write, Zero, Discard, Flush), ""),
            "refcount table" => await RefcountTableAsync(),
            _ => throw new ArgumentOutOfRangeException(nameof(name), name, null),
        };

        Task<byte[]> NewAsync(string more) => MemoryDisk.NewAsync(size + more);

        List<GuestOperation> Sequence(int seed, int operations, int longest, params GuestAction[] actions)
            => GuestOperation.Sequence(seed, Sectors, operations, longest, actions);

        async Task<byte[]> FullAsync(string more)
        {
            var file = new MemoryNode(await NewAsync(more));
            await using BlockNode disk = await MemoryDisk.OpenAsync(file);
            await disk.WriteAsync(0, shortBacking);
            await disk.FlushAsync();
            return file.ToArray();
        }
    }

    /// <summary>
    /// Refcounts of 64 bits in clusters of 512 bytes: the table of one cluster is full after 2 MiB, and the image is nearly there.
    /// </summary>
    private static async Task<Workload> RefcountTableAsync()
    {
        const int Many = 5120, Full = 3800;
        int[] tags = [.. Enumerable.Range(0, Many).Select(sector => sector < Full ? 1_000_000 + sector : 0)];
        var file = new MemoryNode();
        await MemoryDisk.CreateAsync(file, $"size={Many * SectorModel.Bytes},cluster_size=512,refcount_bits=64");
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, tags[..Full].SelectMany((tag, sector) => SectorModel.Data(sector, 1, tag)).ToArray());
        }
        var operations = new List<GuestOperation>();
        for (int i = 0; i < 60; i++)
        {
            operations.Add(new(GuestAction.Write, Full + (i * 20), 20, i + 1));
            if (i % 7 == 3)
            {
                operations.Add(new(GuestAction.Discard, i * 15, 9));
                operations.Add(new(GuestAction.Flush));
            }
        }
        operations.Add(new(GuestAction.Flush));
        return new(file.ToArray(), null, tags, operations, "");
    }
}
