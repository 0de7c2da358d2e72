using System.Globalization;
using DiskImage.Block;
using DiskImage.Formats.Luks;
using DiskImage.Formats.Qcow2;
using DiskImage.Formats.Vmdk;
using DiskImage.Graph;

namespace DiskImage.CommandLine;

/// <summary>What is said of an open image: gathered once, told as JSON or for people.</summary>
/// <param name="image">The image.</param>
/// <param name="name">What it is called.</param>
/// <param name="backing">The full name of its backing image; null if it has none.</param>
internal sealed class InfoFacts(OpenedImage image, string name, string? backing)
{
    private readonly ImageDescription _said = image.Node.As<IDescribed>()?.Describe() ?? new() { Format = image.Format.Name };
    private IReadOnlyList<DiskSnapshot> _snapshots = [];
    private IReadOnlyList<DiskBitmap> _bitmaps = [];

    private BlockNode Node => image.Node;

    /// <summary>Reads what takes I/O.</summary>
    public async Task<InfoFacts> LoadAsync(CancellationToken cancellationToken)
    {
        _snapshots = Node.As<ISnapshots>() is { } kept ? await kept.GetSnapshotsAsync(cancellationToken).ConfigureAwait(false) : [];
        _bitmaps = Node.As<IBitmapList>() is { } list ? await list.GetBitmapsAsync(cancellationToken).ConfigureAwait(false) : [];
        return this;
    }

    /// <summary>As QEMU's ImageInfo.</summary>
    public Facts Members() => new Facts()
        .Add("children", Files().Select(f => (object)new Facts().Add("name", f.Role).Add("info", FileMembers(f.Node))).ToList())
        .Add("backing-filename-format", _said.BackingFormat)
        .Add("snapshots", _snapshots.Count == 0 ? null : _snapshots.Select(object (s) => SnapshotMembers(s)).ToList())
        .Add("virtual-size", Node.Length)
        .Add("filename", name)
        .Add("cluster-size", _said.ClusterSize)
        .Add("format", image.Format.Name)
        .Add("actual-size", AllocatedLength)
        .Add("format-specific", Specific() is { } facts ? new Facts().Add("type", image.Format.Name).Add("data", facts) : null)
        .Add("full-backing-filename", backing)
        .Add("backing-filename", _said.BackingFile)
        .Add("encrypted", _said.Encrypted ? true : null)
        .Add("compressed", _said.Compressed ? true : null)
        .Add("dirty-flag", _said.Dirty);

    /// <summary>The lines for people.</summary>
    public string Text()
    {
        var text = new StringWriter { NewLine = "\n" };
        text.WriteLine($"image: {Printable.Of(name)}");
        text.WriteLine($"file format: {image.Format.Name}");
        text.WriteLine($"virtual size: {QemuSize.Text(Node.Length)} ({Node.Length.ToString(CultureInfo.InvariantCulture)} bytes)");
        text.WriteLine($"disk size: {(AllocatedLength is long size ? QemuSize.Text(size) : "unavailable")}");
        if (_said.Encrypted)
        {
            text.WriteLine("encrypted: yes");
        }
        if (_said.ClusterSize is long cluster)
        {
            text.WriteLine($"cluster_size: {cluster.ToString(CultureInfo.InvariantCulture)}");
        }
        if (_said.Dirty)
        {
            text.WriteLine("cleanly shut down: no");
        }
        if (_said.BackingFile is { } recorded)
        {
            string actual = backing is null || backing.Equals(recorded, StringComparison.Ordinal) ? ""
                : $" (actual path: {Printable.Of(backing)})";
            text.WriteLine($"backing file: {Printable.Of(recorded)}{actual}");
        }
        if (_said is { BackingFile: not null, BackingFormat: { } format })
        {
            text.WriteLine($"backing file format: {Printable.Of(format)}");
        }
        text.Write(SnapshotTable.Of(_snapshots));
        if (Specific() is { } facts)
        {
            text.WriteLine("Format specific information:");
            text.Write(Printable.Of(facts.Lines(4)).Replace("\\u000a", "\n", StringComparison.Ordinal));
        }
        foreach ((string role, BlockNode file) in Files())
        {
            text.WriteLine($"Child node '/{role}':");
            text.WriteLine($"    filename: {Printable.Of(NameOf(file))}");
            text.WriteLine($"    protocol type: {Protocol(file)}");
            text.WriteLine($"    file length: {QemuSize.Text(file.Length)} ({file.Length.ToString(CultureInfo.InvariantCulture)} bytes)");
            text.WriteLine($"    disk size: {(file.AllocatedLength is long bytes ? QemuSize.Text(bytes) : "unavailable")}");
        }
        return text.ToString();
    }

    private static Facts SnapshotMembers(DiskSnapshot snapshot) => new Facts()
        .Add("icount", snapshot.ICount ?? 0)
        .Add("vm-clock-nsec", snapshot.VmClock.Ticks % TimeSpan.TicksPerSecond * TimeSpan.NanosecondsPerTick)
        .Add("name", snapshot.Name)
        .Add("date-sec", snapshot.Date.ToUnixTimeSeconds())
        .Add("date-nsec", snapshot.Date.Ticks % TimeSpan.TicksPerSecond * TimeSpan.NanosecondsPerTick)
        .Add("vm-clock-sec", snapshot.VmClock.Ticks / TimeSpan.TicksPerSecond)
        .Add("id", snapshot.Id)
        .Add("vm-state-size", snapshot.VmStateSize);

    /// <summary>What QEMU counts: all files but a qcow2 image's data file.</summary>
    private long? AllocatedLength => Files().Where(f => f.Role is not "data-file").Select(f => f.Node.AllocatedLength).Aggregate(
        (long?)null, (sum, length) => length is null ? sum : (sum ?? 0) + length);

    private IEnumerable<(string Role, BlockNode Node)> Files() => Node.Unfiltered().Children
        .Where(c => !c.Key.Equals("backing", StringComparison.Ordinal) && c.Value is not UnopenedNode)
        .Select(c => (c.Key, c.Value));

    private Facts FileMembers(BlockNode file) => new Facts()
        .Add("children", new List<object>())
        .Add("virtual-size", file.Length)
        .Add("filename", NameOf(file))
        .Add("format", Protocol(file))
        .Add("actual-size", file.AllocatedLength)
        .Add("format-specific", new Facts().Add("type", Protocol(file)).Add("data", new Facts()))
        .Add("dirty-flag", false);

    /// <summary>The image's own file is called as the image is; others as they lie beside it.</summary>
    private string NameOf(BlockNode file) => ShownName.Of(file.Name, image.Path, name);

    private static string Protocol(BlockNode file)
        => ImageLocator.Parse(file.Name) is { IsFile: false, Scheme.Length: > 0 } locator ? locator.Scheme : "file";

    private Facts? Specific() => _said.FormatSpecific switch
    {
        Qcow2Info info => Qcow2(info),
        VmdkInfo info => Vmdk(info),
        LuksInfo info => Slots(new Facts()
            .Add("version", info.Version)
            .Add("uuid", info.Uuid)
            .Add("cipher", info.Cipher)
            .Add("key-bits", info.KeyBits)
            .Add("hash-alg", info.Hash)
            .Add("payload-offset", info.PayloadOffset)
            .Add("detached-header", info.DetachedHeader)),
        _ => null,
    };

    private Facts Qcow2(Qcow2Info info)
    {
        bool isThree = info.Compat is "1.1";
        Facts? encrypt = info.Encryption is null ? null
            : info.Encryption is "aes" ? new Facts().Add("format", "aes")
            : Slots(new Facts().Add("format", "luks").Add("cipher", info.Encryption["luks ".Length..]));
        return new Facts()
            .Add("compat", info.Compat)
            .Add("compression-type", info.CompressionType.ToLowerInvariant())
            .Add("lazy-refcounts", isThree ? info.LazyRefcounts : null)
            .Add("bitmaps", _bitmaps.Count == 0 ? null : _bitmaps.Select(object (b) => Bitmap(b)).ToList())
            .Add("refcount-bits", info.RefcountBits)
            .Add("encrypt", encrypt)
            .Add("data-file", info.DataFile)
            .Add("data-file-raw", info.DataFile is null ? null : info.DataFileRaw)
            .Add("corrupt", isThree ? info.Corrupt : null)
            .Add("extended-l2", isThree ? info.ExtendedL2 : null);
    }

    private static Facts Bitmap(DiskBitmap bitmap)
    {
        var flags = new List<object>();
        if (bitmap.IsInUse)
        {
            flags.Add("in-use");
        }
        if (bitmap.IsEnabled)
        {
            flags.Add("auto");
        }
        return new Facts().Add("flags", flags).Add("name", bitmap.Name).Add("granularity", bitmap.Granularity);
    }

    private Facts Slots(Facts facts) => facts.Add("slots", Node.As<IKeySlots>()?.GetKeySlots().Select(object (s) => new Facts()
        .Add("active", s.IsActive)
        .Add("iters", s.IsActive ? s.Iterations : null)
        .Add("key-offset", s.Offset)
        .Add("stripes", s.IsActive ? s.Stripes : null)).ToList());

    private Facts Vmdk(VmdkInfo info) => new Facts()
        .Add("cid", Hex(info.Cid))
        .Add("parent-cid", Hex(info.ParentCid ?? "ffffffff"))
        .Add("create-type", info.CreateType)
        .Add("extents", info.Extents.Select(object (e) => Extent(e, info)).ToList());

    /// <summary>From the line of a descriptor: access, sectors, type, file.</summary>
    private Facts Extent(string line, VmdkInfo info)
    {
        string[] parts = line.Split(' ', 4, StringSplitOptions.RemoveEmptyEntries);
        string type = parts.ElementAtOrDefault(2) ?? "";
        string file = parts.ElementAtOrDefault(3)?.Split('"').ElementAtOrDefault(1) ?? "";
        _ = long.TryParse(parts.ElementAtOrDefault(1), CultureInfo.InvariantCulture, out long sectors);
        bool isFlat = type is "FLAT" or "VMFS" or "ZERO";
        bool isOneFile = info.CreateType is "monolithicSparse" or "streamOptimized";
        return new Facts()
            .Add("compressed", _said.Compressed ? true : null)
            .Add("virtual-size", sectors * 512)
            .Add("filename", isOneFile ? name : ShownName.Beside(name, file))
            .Add("cluster-size", isFlat ? null : _said.ClusterSize)
            .Add("format", isOneFile ? "" : type);
    }

    private static long Hex(string text)
        => long.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out long value) ? value : 0;
}
