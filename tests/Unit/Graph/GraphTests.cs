using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Filters.BlkDebug;
using DiskImage.Filters.Throttle;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Protocols.File;
using DiskImage.Protocols.Null;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

/// <summary>From descriptions to open nodes.</summary>
public sealed class GraphTests : IDisposable
{
    private const int Size = 1 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private string Path(string name) => _folder[name].Replace("\\", "\\\\", StringComparison.Ordinal);

    private static async Task<OpenedImage> OpenAsync(
        NodeSpec spec, bool writable = false, string? format = null, DriverRegistry? registry = null)
        => await new ImageOpener(registry ?? Images.Registry, OpenPolicy.Default).OpenAsync(
            new OpenRequest(spec.ToString()) { Writable = writable, Format = format }, CancellationToken.None);

    private static NodeSpec Text(string text) => NodeSpec.From(OptionSchema.Split(text));

    private async Task<byte[]> MakeAsync(string name, string options = "")
    {
        byte[] contents = new byte[Size];
        new Random(name.Length).NextBytes(contents);
        await Images.CreateAsync(_folder[name], "qcow2", $"size={Size}{options}");
        await using BlockNode disk = await Images.OpenAsync(_folder[name], writable: true);
        await disk.WriteAsync(0, contents);
        return contents;
    }

    private static async Task<byte[]> ReadAsync(BlockNode disk)
    {
        byte[] read = new byte[disk.Length];
        await disk.ReadAsync(0, read);
        return read;
    }

    [Fact]
    public async Task A_protocol_where_a_disk_is_wanted_is_raw_and_a_file_below_nothing_is_probed()
    {
        byte[] contents = await MakeAsync("a.qcow2");
        await using OpenedImage bytes = await OpenAsync(Text($"driver=file,filename={_folder["a.qcow2"]}"));
        Assert.Equal(("raw", new FileInfo(_folder["a.qcow2"]).Length, false), (bytes.Format.Name, bytes.Node.Length, bytes.WasProbed));
        await using OpenedImage disk = await OpenAsync(Text($"file.driver=file,file.filename={_folder["a.qcow2"]}"));
        Assert.Equal(("qcow2", true), (disk.Format.Name, disk.WasProbed));
        Assert.Equal(contents, await ReadAsync(disk.Node));
        await using OpenedImage named = await OpenAsync(Text($"driver=file,filename={_folder["a.qcow2"]}"), format: "qcow2");
        Assert.Equal(contents, await ReadAsync(named.Node));
    }

    [Fact]
    public async Task Options_reach_every_layer()
    {
        await MakeAsync("base.qcow2");
        await Images.CreateAsync(_folder["top.qcow2"], "qcow2", "size=1M,backing_file=base.qcow2,backing_fmt=qcow2");
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            async () => await OpenAsync(Text($"file.filename={_folder["top.qcow2"]},backing.l2-cache-size=wrong")));
        Assert.Contains("l2-cache-size", e.Message, StringComparison.Ordinal);
        e = await Assert.ThrowsAsync<DiskImageException>(
            async () => await OpenAsync(Text($"file.filename={_folder["top.qcow2"]},backing.file.locking=wrong")));
        Assert.Contains("Option 'locking' cannot be 'wrong'", e.Message, StringComparison.Ordinal);
        await using OpenedImage raw = await OpenAsync(
            Text($"file.filename={_folder["top.qcow2"]},backing.driver=raw,backing.offset=512,backing.size=1k,backing.file.locking=off"));
        Assert.Equal((1024, "raw"), (raw.Node.BackingNode()!.Length, raw.Node.BackingNode()!.As<IDescribed>()!.Describe().Format));
    }

    [OracleTheory("qemu-io")]
    [InlineData(ImageLocking.Auto, false)]
    [InlineData(ImageLocking.Off, true)]
    public async Task Locks_are_left_out_where_they_are_switched_off(ImageLocking locking, bool qemuMayWrite)
    {
        await MakeAsync("a.qcow2");
        await using BlockNode file = await Images.Registry.Protocol("file").OpenAsync(
            new ProtocolOpenContext(new FileOpenOptions { FileName = _folder["a.qcow2"], Locking = locking }), CancellationToken.None);
        (int exit, _, _) = await Programs.TryAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", _folder["a.qcow2"]);
        Assert.Equal(qemuMayWrite, exit == 0);
    }

    [Fact]
    public async Task A_described_backing_comes_before_the_recorded_one_also_where_none_is_recorded()
    {
        byte[] other = await MakeAsync("other-one.qcow2");
        await MakeAsync("base.qcow2");
        await Images.CreateAsync(_folder["top.qcow2"], "qcow2", "size=1M,backing_file=base.qcow2,backing_fmt=qcow2");
        await Images.CreateAsync(_folder["alone.qcow2"], "qcow2", "size=1M");
        foreach (string top in new[] { "top.qcow2", "alone.qcow2" })
        {
            await using OpenedImage image = await OpenAsync(
                Text($"file.filename={_folder[top]},backing.file.filename={_folder["other-one.qcow2"]}"));
            Assert.Equal(other, await ReadAsync(image.Node));
        }
        foreach (string format in new[] { "qed", "qcow" })
        {
            await Images.CreateAsync(_folder[$"alone.{format}"], format, "size=1M");
            await using OpenedImage image = await OpenAsync(
                Text($"file.filename={_folder[$"alone.{format}"]},backing.file.filename={_folder["other-one.qcow2"]}"));
            Assert.Equal(other, await ReadAsync(image.Node));
        }
        await using OpenedImage none = await OpenAsync(NodeSpecJson.Read($$"""json:{"file":{"filename":"{{Path("top.qcow2")}}"},"backing":null}"""));
        Assert.Equal(new byte[Size], await ReadAsync(none.Node));
    }

    [Fact]
    public async Task What_only_the_image_names_passes_the_gate_and_what_the_user_names_does_not_need_to()
    {
        using var elsewhere = new TestFolder();
        File.WriteAllBytes(elsewhere["secret.raw"], new byte[Size]);
        await Images.CreateAsync(
            _folder["top.qcow2"],
            "qcow2",
            $"size=1M,backing_file={elsewhere["secret.raw"]},backing_fmt=raw",
            new OpenPolicy { References = ReferenceScope.Anywhere });
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            async () => await OpenAsync(Text($"file.filename={_folder["top.qcow2"]},backing.file.locking=off")));
        Assert.Equal(DiskImageErrorKind.Refused, e.Kind);
        await using OpenedImage image = await OpenAsync(
            Text($"file.filename={_folder["top.qcow2"]},backing.file.filename={elsewhere["secret.raw"]},backing.driver=raw"));
        Assert.Equal(elsewhere["secret.raw"], image.Node.BackingNode()!.Name);
    }

    [Fact]
    public async Task A_filter_keeps_what_is_below_able()
    {
        await MakeAsync("a.qcow2");
        await using OpenedImage image = await OpenAsync(
            Text($"driver=throttle,iops-total=1000000,file.file.filename={_folder["a.qcow2"]}"), writable: true);
        Assert.IsType<ThrottleNode>(image.Node);
        Assert.Equal("qcow2", image.Format.Name);
        await image.Node.As<ISnapshots>()!.CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
        Assert.Single(await image.Node.As<ISnapshots>()!.GetSnapshotsAsync(CancellationToken.None));
        Assert.Empty((await image.Node.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
    }

    [Fact]
    public async Task Filters_stand_above_and_below_a_format()
    {
        byte[] contents = await MakeAsync("a.qcow2");
        string path = _folder["a.qcow2"];
        await using OpenedImage below = await OpenAsync(
            Text($"driver=qcow2,file.driver=blkdebug,file.align=4k,file.max-transfer=16k,file.image.filename={path}"), writable: true);
        Assert.Equal(contents, await ReadAsync(below.Node));
        await below.Node.WriteAsync(12345, contents.AsMemory(0, 777));
        await below.Node.FlushAsync();
        contents.AsSpan(0, 777).CopyTo(contents.AsSpan(12345));
        Assert.Equal(contents, await ReadAsync(below.Node));
        await below.DisposeAsync();
        await using OpenedImage above = await OpenAsync(Text(
            $"driver=blkdebug,inject-error.0.iotype=read,inject-error.0.sector=100,inject-error.0.once=on,image.file.filename={path}"));
        Assert.Equal(("qcow2", Size), (above.Format.Name, (int)above.Node.Length));
        await above.Node.ReadAsync(0, new byte[512]);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await above.Node.ReadAsync(50_000, new byte[5000]));
        Assert.Equal(DiskImageErrorKind.Io, e.Kind);
        Assert.Equal(contents, await ReadAsync(above.Node)); // once
        Assert.Null(above.Node.As<ICheckable>()); // which would read past the filter
    }

    [Fact]
    public async Task Tests_can_have_others_stand_around_an_image()
    {
        await MakeAsync("a.qcow2");
        Images.Around.Value = Surroundings.Filter;
        await using (BlockNode over = await Images.OpenAsync(_folder["a.qcow2"]))
        {
            Assert.IsType<ThrottleNode>(over);
        }
        Images.Around.Value = Surroundings.AlignedChild;
        await using BlockNode below = await Images.OpenAsync(_folder["a.qcow2"]);
        Assert.IsType<BlkDebugNode>(below.Child("file"));
    }

    [Fact]
    public async Task Nodes_are_shared_by_name_and_closed_with_the_graph()
    {
        byte[] contents = await MakeAsync("a.qcow2");
        NodeSpec spec = Text($"driver=quorum,children.0.driver=qcow2,children.0.file=f,children.1.driver=qcow2,children.1.file.driver=file,children.1.file.node-name=f,children.1.file.filename={_folder["a.qcow2"]}");
        var pair = new Pair();
        var registry = new DriverRegistry(Images.Registry.Formats, Images.Registry.Protocols, [pair]);
        await using (OpenedImage image = await OpenAsync(spec, registry: registry))
        {
            Assert.Equal(contents, await ReadAsync(image.Node));
            Assert.Equal("f", Assert.Single(image.Graph.Named).Key);
            Assert.Equal(2, pair.Opened.Count);
        }
        await using BlockNode writer = await Images.OpenAsync(_folder["a.qcow2"], writable: true); // nobody has it open any more
    }

    [Fact]
    public async Task A_shared_node_is_a_disk_or_bytes_and_not_both()
    {
        await MakeAsync("a.qcow2");
        var registry = new DriverRegistry(Images.Registry.Formats, Images.Registry.Protocols, [new Pair()]);
        NodeSpec spec = Text($"driver=quorum,children.0=f,children.1.driver=qcow2,children.1.file.driver=file,children.1.file.node-name=f,children.1.file.filename={_folder["a.qcow2"]}");
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await OpenAsync(spec, registry: registry));
        Assert.Contains("'f' is used as a disk and as the bytes of a file", e.Message, StringComparison.Ordinal);
        await using BlockNode writer = await Images.OpenAsync(_folder["a.qcow2"], writable: true); // nothing is left open
    }

    [Theory]
    [InlineData("driver=qcow2", "says neither file nor file.filename")]
    [InlineData("node-name=x", "says neither file nor file.filename")]
    [InlineData("driver=qcow2,file=nowhere", "there is no node 'nowhere'")]
    [InlineData("driver=vhdy,file.filename=a", "Unknown driver 'vhdy'. Did you mean 'vhdx'")]
    [InlineData("driver=throttle", "needs 'file'")]
    [InlineData("driver=throttle,file.driver=null-co,iops=3", "Unknown option 'iops'")]
    [InlineData("driver=null-co,size=-1", "Option 'size' cannot be '-1'")]
    [InlineData("driver=null-co,size=9223372036854775807", "Option 'size' cannot be '9223372036854775807'")]
    [InlineData("driver=null-co,latency-ns=9000000000000000000", "Option 'latency-ns' cannot be '9000000000000000000'")]
    [InlineData("driver=blklogwrites,file.driver=null-co", "needs 'log'; given: file")]
    [InlineData("driver=raw,file.driver=throttle,file.node-name=t,file.file=t", "would stand on itself")]
    [InlineData(
        "driver=raw,file.driver=null-co,file.node-name=t,file.size=1,x.node-name=t", "two nodes of its description have the name 't'")]
    [InlineData("driver=raw,file.filename=a,filename=b", "says both file and filename ('b')")]
    [InlineData("driver=raw,read-only=perhaps,file.driver=null-co", "'read-only' is 'perhaps'; allowed: on, off")]
    [InlineData("driver=raw,file.driver=null-co,discards=unmap", "Unknown option 'discards'")]
    [InlineData("driver=null-co,filename=null-co://x", "nothing comes after")]
    [InlineData("driver=blkdebug,image.driver=null-co,inject-error.0.event=l3_load", "blkdebug knows no event 'l3_load'")]
    public async Task What_cannot_be_opened_is_said(string text, string message)
    {
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await OpenAsync(Text(text)));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_null_node_is_as_long_as_it_is_told_to_be_and_forgets()
    {
        await using OpenedImage image = await OpenAsync(Text("driver=null-co,size=3M,read-zeroes=on"), writable: true);
        Assert.Equal(3 << 20, image.Node.Length);
        await image.Node.WriteAsync(5, new byte[] { 1, 2, 3 });
        byte[] read = [9, 9, 9];
        await image.Node.ReadAsync(5, read);
        Assert.Equal([0, 0, 0], read);
        Assert.Equal(BlockStatus.Zero, (await image.Node.GetExtentAsync(0, 100)).Status);
        await using BlockNode uri = await Images.OpenAsync("null-co://");
        Assert.Equal(1 << 30, uri.Length);
        Assert.IsType<NullNode>(uri.Child("file"));
    }

    [Fact]
    public async Task Read_only_holds_for_a_part()
    {
        await MakeAsync("a.qcow2");
        await using OpenedImage image = await OpenAsync(
            Text($"driver=qcow2,read-only=on,file.filename={_folder["a.qcow2"]}"), writable: true);
        Assert.True(image.Node.IsReadOnly);
    }

    [Fact]
    public async Task Secrets_reach_a_backing_image()
    {
        await MakeAsync("base.qcow2");
        await Images.CreateAsync(_folder["top.qcow2"], "qcow2", "size=1M,backing_file=base.qcow2,backing_fmt=qcow2");
        var asking = new Asking();
        var opener = new ImageOpener(
            new DriverRegistry([.. Images.Registry.Formats, asking], Images.Registry.Protocols), OpenPolicy.Default);
        using var secret = new System.Security.SecureString();
        var request = new OpenRequest(Text($"file.filename={_folder["top.qcow2"]},backing.driver=test").ToString()) { Secrets = new Dictionary<string, System.Security.SecureString>(StringComparer.Ordinal) { ["disk"] = secret } };
        await using OpenedImage image = await opener.OpenAsync(request, CancellationToken.None);
        Assert.Same(secret, asking.Secret);
    }

    [Theory]
    [InlineData("""json:{"driver":"file",,"filename":"d.img"}""")]
    [InlineData("""json:{"driver":"raw",,"file":{"driver":"file",,"filename":"d.img"}}""")]
    [InlineData("""json:{"driver":"throttle",,"file":{"driver":"file",,"filename":"d.img"}}""")]
    public async Task A_data_file_may_be_recorded_as_any_description(string recorded)
    {
        var policy = new OpenPolicy { References = ReferenceScope.Anywhere };
        await Images.CreateAsync(_folder["a.qcow2"], "qcow2", $"size=1M,data_file={_folder["d.img"]}", policy);
        RecordDataFile(_folder["a.qcow2"], recorded.Replace(",,", ",", StringComparison.Ordinal));
        await using OpenedImage image = await new ImageOpener(
            Images.Registry, policy).OpenAsync(new OpenRequest(_folder["a.qcow2"]) { Writable = true }, CancellationToken.None);
        await image.Node.WriteAsync(70_000, new byte[] { 1, 2, 3 });
        byte[] read = new byte[3];
        await image.Node.ReadAsync(70_000, read);
        Assert.Equal([1, 2, 3], read);
    }

    [Fact]
    public async Task A_data_file_that_is_described_as_a_node_nobody_knows_is_refused_as_such()
    {
        var policy = new OpenPolicy { References = ReferenceScope.Anywhere };
        await Images.CreateAsync(_folder["a.qcow2"], "qcow2", $"size=1M,data_file={_folder["d.img"]}", policy);
        RecordDataFile(_folder["a.qcow2"], """json:{"driver":"raw","file":"x"}""");
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            async () => await Images.OpenAsync(_folder["a.qcow2"], policy: policy));
        Assert.Contains("there is no node 'x'", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_filter_may_be_put_over_a_recorded_data_file()
    {
        await Images.CreateAsync(_folder["a.qcow2"], "qcow2", "size=1M,data_file=d.img");
        await using OpenedImage image = await OpenAsync(
            Text($"file.filename={_folder["a.qcow2"]},data-file.driver=throttle,data-file.iops-total=1000000"));
        Assert.IsType<ThrottleNode>(image.Node.Child("data-file"));
    }

    [Fact]
    public async Task What_an_image_describes_does_not_reach_the_nodes_of_the_users_description()
    {
        await MakeAsync("mine.qcow2");
        await MakeAsync("top.qcow2");
        await using (BlockNode top = await Images.OpenAsync(_folder["top.qcow2"], writable: true))
        {
            await top.As<IRebasable>()!.SetBackingAsync("""json:{"driver":"raw","file":"mine"}""", "raw", null, CancellationToken.None);
        }
        NodeSpec spec = Text(
            $"driver=quorum,children.0.driver=raw,children.0.file=mine,children.1.driver=qcow2,children.1.file.filename={_folder["top.qcow2"]},"
            + $"children.2.driver=raw,children.2.file.node-name=mine,children.2.file.filename={_folder["mine.qcow2"]}");
        var registry = new DriverRegistry(Images.Registry.Formats, Images.Registry.Protocols, [new Pair()]);
        var opener = new ImageOpener(registry, new OpenPolicy { References = ReferenceScope.Anywhere });
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            async () => await opener.OpenAsync(new OpenRequest(spec.ToString()), CancellationToken.None));
        Assert.Contains("there is no node 'mine'", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_fails_to_close_after_a_failed_opening_keeps_nothing_open_and_hides_nothing()
    {
        await MakeAsync("a.qcow2");
        await MakeAsync("b.qcow2");
        NodeSpec spec = Text(
            $"driver=quorum,children.0.driver=sticky,children.0.file.file.filename={_folder["a.qcow2"]},children.1.file.filename={_folder["b.qcow2"]},children.2.driver=null-co,children.2.size=x");
        var registry = new DriverRegistry(Images.Registry.Formats, Images.Registry.Protocols, [new Pair(), new Sticky()]);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await OpenAsync(spec, registry: registry));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        foreach (string name in new[] { "a.qcow2", "b.qcow2" })
        {
            await using BlockNode writer = await Images.OpenAsync(_folder[name], writable: true);
        }
    }

    [Theory]
    [InlineData("qcow2")]
    [InlineData("vhdx")]
    [InlineData("vpc")]
    public async Task Options_are_not_changed_past_a_filter_that_lets_nothing_through(string format)
    {
        await Images.CreateAsync(_folder["a.img"], format, "size=8M");
        await using OpenedImage image = await OpenAsync(
            Text($"driver=blkdebug,image.driver={format},image.file.filename={_folder["a.img"]}"), writable: true);
        var amendable = (IAmendable)image.Format;
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            async () => await amendable.AmendAsync(image.Node, amendable.AmendOptions.Defaults(), null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Unsupported, e.Kind);
    }

    [Fact]
    public async Task Options_of_a_fixed_vhd_are_changed_below_a_filter_that_lets_it_show()
    {
        await Images.CreateAsync(_folder["a.vhd"], "vpc", "size=8M,subformat=fixed");
        await using OpenedImage image = await OpenAsync(
            Text($"driver=throttle,file.driver=vpc,file.file.filename={_folder["a.vhd"]}"), writable: true);
        var amendable = (IAmendable)image.Format;
        await amendable.AmendAsync(image.Node, amendable.AmendOptions.Defaults(), null, CancellationToken.None);
    }

    /// <summary>
    /// Makes the header extension that names the data file (0x44415441) say something longer; nothing stands behind
    /// it in the first cluster.
    /// </summary>
    private static void RecordDataFile(string path, string name)
    {
        byte[] bytes = File.ReadAllBytes(path), text = System.Text.Encoding.UTF8.GetBytes(name);
        int at = (int)BigEndian.U32(bytes, 100);
        while (BigEndian.U32(bytes, at) != 0x44415441)
        {
            at += 8 + (((int)BigEndian.U32(bytes, at + 4) + 7) & ~7);
        }
        int next = at + 8 + (((int)BigEndian.U32(bytes, at + 4) + 7) & ~7);
        byte[] rest = bytes[next..4096];
        int padded = (text.Length + 7) & ~7;
        System.Buffers.Binary.BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(at + 4), text.Length);
        bytes.AsSpan(at + 8, padded).Clear();
        text.CopyTo(bytes.AsSpan(at + 8));
        rest.CopyTo(bytes.AsSpan(at + 8 + padded));
        File.WriteAllBytes(path, bytes);
    }

    /// <summary>A filter that fails to close.</summary>
    private sealed class Sticky : FilterDriver
    {
        public override string Name => "sticky";

        public override string Description => "";

        public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
            => new Node(await context.OpenChild(FileRole, cancellationToken));

        private sealed class Node(BlockNode child) : FilterNode(child)
        {
            protected override ValueTask CloseCoreAsync() => throw new DiskImageException(DiskImageErrorKind.Io, "sticky");
        }
    }

    /// <summary>A filter over two disks that shows the first.</summary>
    private sealed class Pair : FilterDriver
    {
        public List<BlockNode> Opened { get; } = [];

        public override string Name => "quorum";

        public override string Description => "";

        public override IReadOnlyList<string> Roles => ["children"];

        public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
        {
            foreach (string role in context.Roles)
            {
                Opened.Add(await context.OpenChild(role, cancellationToken));
            }
            return new Both(Opened);
        }

        private sealed class Both(List<BlockNode> nodes) : FilterNode(nodes[0])
        {
            public override IReadOnlyDictionary<string, BlockNode> Children { get; }
                = nodes.Select((n, i) => (Name: $"children.{i}", Node: n)).ToDictionary(c => c.Name, c => c.Node, StringComparer.Ordinal);
        }
    }

    /// <summary>A format that opens as qcow2 and takes the secret "disk".</summary>
    private sealed class Asking : FormatDriver
    {
        public System.Security.SecureString? Secret { get; private set; }

        public override string Name => "test";

        public override string Description => "";

        public override IReadOnlyList<string> Extensions => [];

        public override OptionSchema OpenOptions => Images.Registry.Format("qcow2").OpenOptions;

        public override int Probe(in ProbeInput input) => 0;

        public override ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
        {
            Secret = context.Secrets["disk"];
            return Images.Registry.Format("qcow2").OpenAsync(context, cancellationToken);
        }
    }
}
