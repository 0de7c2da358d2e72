using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Drivers;

public sealed class ProbeTests
{
    private static readonly byte[] Footer = VhdMaker.Footer("win ", 8192, (1, 4, 4), 2);

    [Fact]
    public async Task A_fixed_vhd_is_known_by_its_end()
    {
        Assert.Equal("vpc", await ProbeAsync([.. new byte[8192], .. Footer]));
        Assert.Equal("vpc", await ProbeAsync([.. new byte[8192], .. Footer[..511]]));
    }

    [Fact]
    public async Task The_end_decides_only_if_everything_fits()
    {
        Assert.Equal("raw", await ProbeAsync([.. new byte[8704], .. Footer])); // another size
        Assert.Equal("raw", await ProbeAsync([.. new byte[8192], .. Footer[..100], 1, .. Footer[101..]])); // the checksum is wrong
        Assert.Equal("raw", await ProbeAsync([.. new byte[8192], .. VhdMaker.Footer("win ", 8192, (1, 4, 4), 3)])); // not fixed
        Assert.Equal("raw", await ProbeAsync(Footer[8..100]));
        Assert.Equal("raw", await ProbeAsync([]));
    }

    [Fact]
    public async Task What_is_recognised_by_its_beginning_comes_first()
    {
        byte[] beginning = [0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3];
        Assert.Equal("qcow2", await ProbeAsync([.. beginning, .. new byte[8192 - 8], .. Footer]));
        Assert.Equal("vpc", await ProbeAsync([.. "conectix"u8, .. new byte[8192]]));
    }

    [Fact]
    public async Task A_file_tells_when_it_was_changed_and_so_does_what_stands_on_it()
    {
        using var folder = new TestFolder();
        var time = new DateTime(2020, 2, 3, 4, 5, 6, DateTimeKind.Utc);
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", "size=1M");
        File.SetLastWriteTimeUtc(folder["a.qcow2"], time);
        await using BlockNode disk = await Images.OpenAsync(folder["a.qcow2"]);
        Assert.Equal(new DateTimeOffset(time), disk.LastWriteTime);
        Assert.Null(new MemoryNode().LastWriteTime);
    }

    [Fact]
    public async Task A_format_says_whether_its_file_may_be_sparse_and_whether_it_wants_its_backing_image_open()
    {
        using var folder = new TestFolder();
        var storage = new Recorder();
        var format = new Format();
        var registry = new DriverRegistry([Images.Registry.Format("raw"), format], [storage]);
        await File.WriteAllBytesAsync(folder["base.raw"], new byte[512]);
        await Assert.ThrowsAsync<NotSupportedException>(async () =>
            _ = await new ImageCreator(new ImageOpener(registry, OpenPolicy.Default)).CreateAsync(
                folder["new"], format, new Options(), replace: false, null, CancellationToken.None));
        Assert.False(storage.AllowedSparse);
        Assert.Equal(512, format.BackingLength);
    }

    private static async Task<string> ProbeAsync(byte[] contents)
        => (await Images.Registry.ProbeAsync(new MemoryNode(contents, readOnly: true), CancellationToken.None)).Format.Name;

    private sealed record Options : ICreateOptions
    {
        public long? Size => 512;

        public string? BackingFile => "base.raw";

        public string? BackingFormat => "raw";
    }

    private sealed class Format : FormatDriver, ICreatable
    {
        public long? BackingLength { get; private set; }

        public override string Name => "test";

        public override string Description => "";

        public override IReadOnlyList<string> Extensions => [];

        public DiskImage.Options.OptionSchema CreateOptions => DiskImage.Options.OptionSchema.Empty;

        public bool RecordsBackingIdentity => true;

        public bool AllowsSparseFile => false;

        public override int Probe(in ProbeInput input) => 0;

        public override ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
            => throw new NotSupportedException();

        public ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
        {
            BackingLength = context.Backing?.Length;
            throw new NotSupportedException();
        }
    }

    /// <summary>Opens files as the file protocol does, and makes new ones in memory.</summary>
    private sealed class Recorder : ProtocolDriver, IStorage
    {
        public bool? AllowedSparse { get; private set; }

        public override string Name => "file";

        public override string Description => "";

        public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
            => new MemoryNode(await File.ReadAllBytesAsync(NameOf(context.Options), cancellationToken), readOnly: true);

        public override DiskImage.Options.OptionSchema OpenOptions => Images.Registry.Protocol("file").OpenOptions;

        public override bool TakesPaths => true;

        public override string NameOf(object options) => Images.Registry.Protocol("file").NameOf(options);

        public ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
            => new(new StoragePlace(locator, locator, mode, Present: null, OtherNames: 0));

        public ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
        {
            AllowedSparse = traits.AllowsHoles;
            return new(new Pending(place));
        }

        private sealed class Pending(StoragePlace place) : PendingNode(place)
        {
            public override BlockNode Node { get; } = new MemoryNode();

            public override ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken) => new(Node);

            public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken) => default;

            public override void Withdraw()
            {
            }

            public override ValueTask DisposeAsync() => Node.DisposeAsync();
        }
    }
}
