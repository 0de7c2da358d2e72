using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Campaign;

/// <summary>One kind of image that the campaign damages, and how to open it in memory.</summary>
/// <param name="Name">What it is called in messages.</param>
/// <param name="Format">The format's name.</param>
/// <param name="Options">Create options beside the size.</param>
internal sealed record CampaignShape(string Name, string Format, string Options)
{
    public const int DiskBytes = 640 << 10;

    private const int ParentBytes = 512 << 10;

    /// <summary>Written compressed.</summary>
    public bool IsCompressed { get; init; }

    /// <summary>With snapshots.</summary>
    public bool HasSnapshots { get; init; }

    /// <summary>With a dirty bitmap.</summary>
    public bool HasBitmap { get; init; }

    /// <summary>Stands on a backing image.</summary>
    public bool HasBacking { get; init; }

    /// <summary>Its data is in another file.</summary>
    public bool HasDataFile { get; init; }

    /// <summary>Stands on a parent of its own format, whose identity it records.</summary>
    public bool IsDifferencing => HasBacking && !Format.Equals("qcow2", StringComparison.Ordinal);

    public static IReadOnlyList<CampaignShape> All { get; } =
    [
        new("qcow2", "qcow2", "cluster_size=4k"),
        new("qcow2-512", "qcow2", "cluster_size=512,refcount_bits=1"),
        new("qcow2-v2-snapshots", "qcow2", "cluster_size=4k,compat=0.10") { HasSnapshots = true },
        new("qcow2-v2-overlay", "qcow2", "cluster_size=4k,compat=0.10,backing_file=base.raw,backing_fmt=raw") { HasBacking = true },
        new("qcow2-snapshots", "qcow2", "cluster_size=2k") { HasSnapshots = true },
        new("qcow2-subclusters", "qcow2", "cluster_size=16k,extended_l2=on,backing_file=base.raw,backing_fmt=raw") { HasBacking = true },
        new("qcow2-compressed", "qcow2", "cluster_size=4k") { IsCompressed = true, HasSnapshots = true },
        new("qcow2-zstd", "qcow2", "cluster_size=16k,compression_type=zstd,refcount_bits=64") { IsCompressed = true },
        new("qcow2-bitmap", "qcow2", "cluster_size=1k") { HasBitmap = true },
        new("qcow2-data-file", "qcow2", "cluster_size=4k,data_file=data.raw") { HasDataFile = true },
        new(
            "qcow2-data-file-subclusters",
            "qcow2",
            "cluster_size=16k,extended_l2=on,data_file=data.raw,data_file_raw=on") { HasDataFile = true },
        new("vpc", "vpc", "subformat=dynamic"),
        new("vpc-fixed", "vpc", "subformat=fixed"),
        new("vhdx", "vhdx", "subformat=dynamic,block_size=1M,log_size=1M"),
        new("vdi", "vdi", ""),
        new("qed", "qed", "cluster_size=4k,table_size=2"),
        new("vmdk", "vmdk", ""),
        new("vmdk-zeroed", "vmdk", "zeroed_grain=on"),
        new("parallels", "parallels", "cluster_size=4k"),
        new("parallels-odd", "parallels", "cluster_size=32256"),
        new("vhdx-fixed", "vhdx", "subformat=fixed,block_size=1M,log_size=1M"),
        new("vpc-differencing", "vpc", "block_size=64k,backing_file=base.vpc") { HasBacking = true },
        new("vmdk-child", "vmdk", "backing_file=base.vmdk") { HasBacking = true },
        new("vdi-differencing", "vdi", "block_size=4k,backing_file=base.vdi") { HasBacking = true },
        new("vhdx-differencing", "vhdx", "block_size=1M,log_size=1M,backing_file=base.vhdx") { HasBacking = true },
    ];

    private FormatDriver Driver => Images.Registry.Format(Format);

    /// <summary>An image of this kind with every structure in use.</summary>
    public async Task<CampaignImage> MakeAsync()
    {
        byte[] contents = new byte[DiskBytes], parent = HasBacking ? new byte[ParentBytes] : [];
        var random = new Random(7);
        random.NextBytes(parent);
        BlockNode? backing = null;
        if (IsDifferencing)
        {
            parent = await MakeParentAsync(parent);
            backing = await OpenParentAsync(parent);
        }
        for (int at = 0; at + 6000 < contents.Length; at += 30_000)
        {
            random.NextBytes(contents.AsSpan(at, 3000));
            contents.AsSpan(at + 3000, 3000).Fill((byte)at);
        }
        var file = new MemoryNode();
        MemoryNode? data = HasDataFile ? new MemoryNode() : null;
        object record = ((ICreatable)Driver).CreateOptions.Bind(
            OptionSchema.Split(IsDifferencing ? Options : $"size={DiskBytes},{Options}"));
        await ((ICreatable)Driver).CreateAsync(
            new FormatCreateContext(file, record, backing, (_, _, _) => new(new BorrowedNode(data!, isReadOnly: false))),
            CancellationToken.None);
        var image = new CampaignImage(this, file.ToArray(), parent, data?.ToArray() ?? []);
        file = new MemoryNode(image.File);
        data = HasDataFile ? new MemoryNode(image.Data) : null;
        await using (BlockNode disk = await image.OpenAsync(file, data: data))
        {
            if (IsCompressed)
            {
                _ = await new ConvertJob(
                    new MemoryNode(contents, readOnly: true),
                    disk,
                    new ConvertOptions { Compress = true, Workers = 1 }).RunAsync(null, CancellationToken.None);
            }
            else
            {
                await Images.FillAsync(disk, contents);
            }
            await disk.WriteZeroesAsync(100_000, 70_000, ZeroWriteMode.KeepAllocated);
            await disk.WriteZeroesAsync(200_000, 40_000);
            foreach (string name in HasSnapshots ? ["one", "two"] : Array.Empty<string>())
            {
                _ = await ((ISnapshots)disk).CreateSnapshotAsync(name, DateTimeOffset.UnixEpoch, CancellationToken.None);
                await disk.WriteAsync(name.Length * 60_000, contents.AsMemory(0, 9000));
            }
            if (HasBitmap)
            {
                foreach (string name in new[] { "a", "b" })
                {
                    _ = await ((IBitmaps)disk).AddBitmapAsync(name, 512, enabled: name == "b", CancellationToken.None);
                }
                await disk.WriteAsync(300_000, contents.AsMemory(0, 5000));
            }
        }
        if (backing is not null)
        {
            await backing.DisposeAsync();
        }
        return image with { File = file.ToArray(), Data = data?.ToArray() ?? [] };
    }

    /// <summary>Opens the backing image.</summary>
    public async Task<BlockNode> OpenParentAsync(byte[] parent)
    {
        var file = new MemoryNode(parent, readOnly: true);
        return IsDifferencing
            ? await Driver.OpenAsync(
                new FormatOpenContext(
                    file,
                    Driver.OpenOptions.Defaults(),
                    null,
                    (name, _, _) => throw new DiskImageException(DiskImageErrorKind.Refused, name)),
                CancellationToken.None)
            : file;
    }

    private async Task<byte[]> MakeParentAsync(byte[] contents)
    {
        var file = new MemoryNode();
        object record = ((ICreatable)Driver).CreateOptions.Bind(
            OptionSchema.Split($"size={DiskBytes}{(Format is "vdi" or "vmdk" ? "" : ",subformat=dynamic")}"));
        await ((ICreatable)Driver).CreateAsync(new FormatCreateContext(file, record), CancellationToken.None);
        BlockNode disk = await Driver.OpenAsync(
            new FormatOpenContext(
                new BorrowedNode(file, isReadOnly: false),
                Driver.OpenOptions.Defaults(),
                null,
                (name, _, _) => throw new DiskImageException(DiskImageErrorKind.Refused, name)),
            CancellationToken.None);
        await using (disk)
        {
            await disk.WriteAsync(0, contents);
        }
        return file.ToArray();
    }
}

/// <summary>An image's files, as bytes.</summary>
internal sealed record CampaignImage(CampaignShape Shape, byte[] File, byte[] Parent, byte[] Data)
{
    /// <summary>Opens it on any node.</summary>
    /// <param name="file">The node that holds the image, which the disk owns.</param>
    /// <param name="withBacking">False for this layer alone.</param>
    /// <param name="forRepair">To be repaired.</param>
    /// <param name="data">The data file; null for a copy that is thrown away.</param>
    public async Task<BlockNode> OpenAsync(BlockNode file, bool withBacking = true, bool forRepair = false, MemoryNode? data = null)
    {
        FormatDriver driver = Images.Registry.Format(Shape.Format);
        return await driver.OpenAsync(
            new FormatOpenContext(
                file,
                driver.OpenOptions.Defaults(),
                withBacking ? (_, _, _) => new(Shape.OpenParentAsync(Parent)) : null,
                (name, _, _) => Shape.HasDataFile
                    ? new(new BorrowedNode(data ?? new MemoryNode((byte[])Data.Clone(), file.IsReadOnly), isReadOnly: false))
                    : throw new DiskImageException(DiskImageErrorKind.Refused, name),
                forRepair)
            {
                Nearby = Shape.IsDifferencing ? new ParentNearby(Parent) : null, // for a format that looks for its parent
                OpenDataToRead = (_, _, _) => new(new MemoryNode(Parent, readOnly: true)),
            },
            CancellationToken.None);
    }

    /// <summary>Writes the files where another program finds them; returns how qemu-img is told to open the image.</summary>
    public async Task<string> SaveAsync(TestFolder folder)
    {
        string path = folder[$"image.{Shape.Format}"];
        await System.IO.File.WriteAllBytesAsync(path, File);
        await System.IO.File.WriteAllBytesAsync(folder["base.raw"], Parent);
        await System.IO.File.WriteAllBytesAsync(folder["data.raw"], Data);
        bool namesData = Shape.HasDataFile && (File[79] & 4) != 0; // else the damage hit the bit that says so, and QEMU takes no data file
        string data = namesData ? $",\"data-file\":{{\"driver\":\"file\",\"filename\":\"{folder["data.raw"]}\"}}" : "";
        return $"json:{{\"driver\":\"{Shape.Format}\",\"file\":{{\"driver\":\"file\",\"filename\":\"{path}\"}}{data}}}";
    }
}

/// <summary>A parent that lies beside its child.</summary>
file sealed class ParentNearby(byte[] parent) : INearbyFiles
{
    public IReadOnlyList<string> Find(IReadOnlyList<string> endings) => ["base"];

    public ValueTask<ReadOnlyMemory<byte>> StartAsync(string name, CancellationToken cancellationToken)
    {
        byte[] start = new byte[INearbyFiles.StartBytes];
        parent.AsSpan(0, Math.Min(start.Length, parent.Length)).CopyTo(start);
        return new(start);
    }
}
