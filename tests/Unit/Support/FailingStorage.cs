using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Tests.Support;

/// <summary>
/// Files of the host whose renames, writes and flushes fail when they are told to, and which know whether they are all closed.
/// </summary>
internal sealed class FailingStorage : ProtocolDriver, IStorage
{
    private readonly ProtocolDriver _files = Images.Registry.Protocol("file");
    private readonly List<WatchedNode> _nodes = [];
    private readonly List<string> _published = [], _opened = [];
    private readonly HashSet<string> _dirty = new(StringComparer.Ordinal); // files, each written by way of one node after another

    public override string Name => "file";

    public override string Description => "";

    /// <summary>The name, without its folder, that is not given.</summary>
    public string? FailingRename { get; set; }

    /// <summary>Called before a name is given.</summary>
    public Func<string, Task>? BeforeRename { get; set; }

    /// <summary>Every write fails from now on.</summary>
    public bool FailsWrites { get; set; }

    /// <summary>The requests that change something and pass before all others fail; none fails if null.</summary>
    public int? GoodWrites { get; set; }

    /// <summary>The files that were opened, as often as they were.</summary>
    public IReadOnlyList<string> Opened => _opened;

    /// <summary>The names that were given, in this order.</summary>
    public IReadOnlyList<string> Published => _published;

    public int Flushes { get; private set; }

    /// <summary>Nothing was written to a file between its last flush and its renaming.</summary>
    public bool FlushedBeforePublished { get; private set; } = true;

    public bool AllClosed => _nodes.TrueForAll(n => n.IsClosed);

    public override DiskImage.Options.OptionSchema OpenOptions => _files.OpenOptions;

    public override bool TakesPaths => true;

    public override string NameOf(object options) => _files.NameOf(options);

    public override NodeIdentity? IdentityOf(object options) => _files.IdentityOf(options);

    public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        _opened.Add(_files.NameOf(context.Options));
        return Watch(await _files.OpenAsync(context, cancellationToken));
    }

    public override IReadOnlyList<string> FilesIn(string folder, IReadOnlyList<string> endings, int most)
        => _files.FilesIn(folder, endings, most);

    public ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
        => ((IStorage)_files).LookAsync(locator, mode, cancellationToken);

    public async ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
        => new Pending(this, await ((IStorage)_files).BeginAsync(place, traits, cancellationToken));

    private WatchedNode Watch(BlockNode node)
    {
        var watched = new WatchedNode(this, node);
        _nodes.Add(watched);
        return watched;
    }

    private void RequireWritable(string name)
    {
        if (FailsWrites || GoodWrites-- <= 0)
        {
            throw new DiskImageException(DiskImageErrorKind.Io, $"{name}: told to fail", name);
        }
    }

    private sealed class Pending(FailingStorage storage, PendingNode below) : PendingNode(below.Place)
    {
        public override BlockNode Node { get; } = storage.Watch(below.Node);

        public override async ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
            => storage.Watch(await below.OpenAsync(writable, cancellationToken));

        public override async ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
        {
            string name = Path.GetFileName(Place.Address);
            await (storage.BeforeRename?.Invoke(name) ?? Task.CompletedTask);
            storage.FlushedBeforePublished &= storage._dirty.Count == 0;
            if (name.Equals(storage.FailingRename, StringComparison.Ordinal))
            {
                throw new DiskImageException(DiskImageErrorKind.Io, $"{Place.Locator}: told to fail", Place.Locator);
            }
            await below.PublishAsync(durable, revocable, cancellationToken);
            storage._published.Add(name);
        }

        public override void SetAside() => below.SetAside();

        public override void Withdraw() => below.Withdraw();

        public override async ValueTask DisposeAsync()
        {
            await Node.DisposeAsync();
            await below.DisposeAsync();
        }
    }

    private sealed class WatchedNode(FailingStorage storage, BlockNode node) : FilterNode(node)
    {
        public bool IsClosed { get; private set; }

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            Change();
            return base.WriteCoreAsync(offset, buffer, cancellationToken);
        }

        protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        {
            Change();
            return base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
        }

        protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        {
            Change();
            return base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken);
        }

        protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        {
            storage.Flushes++;
            _ = storage._dirty.Remove(Name);
            return base.FlushCoreAsync(cancellationToken);
        }

        protected override ValueTask CloseCoreAsync()
        {
            IsClosed = true;
            return base.CloseCoreAsync();
        }

        private void Change()
        {
            storage.RequireWritable(Name);
            _ = storage._dirty.Add(Name);
        }
    }
}
