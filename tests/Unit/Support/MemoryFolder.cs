using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Tests.Formats;

namespace DiskImage.Tests.Support;

/// <summary>
/// Files in memory that come, change and go, with all that was done in one order: what a crash leaves of all of them can be had at every
/// point, and the N-th thing done can be made to fail.
/// </summary>
internal sealed class MemoryFolder : ISiblingFiles
{
    private readonly Dictionary<string, int> _names = new(StringComparer.Ordinal);
    private readonly List<MemoryNode> _files = [];
    private readonly Dictionary<int, int> _open = []; // how often each file is
    private readonly List<(int File, WriteLogEntry? Request, string? Name)> _steps = []; // without a request a name is given or taken
    private readonly List<(string Name, byte[] Bytes)> _before;
    private int _failing = int.MaxValue;

    public MemoryFolder(IEnumerable<(string Name, byte[] Bytes)> files)
    {
        _before = [.. files];
        foreach ((string name, byte[] bytes) in _before)
        {
            _names.Add(name, _files.Count);
            _files.Add(new MemoryNode((byte[])bytes.Clone()));
        }
    }

    /// <summary>Things done so far.</summary>
    public int Count => _steps.Count;

    /// <summary>The files by name.</summary>
    public Dictionary<string, byte[]> Files => _names.ToDictionary(n => n.Key, n => _files[n.Value].ToArray(), StringComparer.Ordinal);

    /// <summary>The N-th thing from now on fails, and nothing is done of it; 0 for none.</summary>
    public void Fail(int number) => _failing = number == 0 ? int.MaxValue : _steps.Count + number;

    /// <summary>True if it came to that.</summary>
    public bool HasFailed { get; private set; }

    /// <summary>Opens a file.</summary>
    public BlockNode Open(string name) => _names.TryGetValue(Path.GetFileName(name), out int file)
        ? new Watched(this, file, name)
        : throw new DiskImageException(DiskImageErrorKind.NotFound, $"{name}: no such file", name);

    /// <summary>Opens a disk of these files, this layer alone unless it is wanted with what it stands on.</summary>
    public ValueTask<BlockNode> OpenDiskAsync(DiskFormat format, string name, bool withBacking = false) => format.Driver.OpenAsync(
        new FormatOpenContext(
            Open(name),
            format.Driver.OpenOptions.Bind([]),
            withBacking ? (reference, _, _) => new(Open(reference)) : null,
            (reference, _, _) => new(Open(reference)))
        {
            Siblings = this,
        },
        CancellationToken.None);

    /// <summary>The files after every number of things done that left something new, from none to all.</summary>
    /// <param name="onlyFlushed">What was written to a file after its last flush is lost: the worst that a host may leave.</param>
    /// <param name="torn">A file of which each write is also cut in its middle.</param>
    public async IAsyncEnumerable<(int Done, Dictionary<string, byte[]> Files)> StatesAsync(bool onlyFlushed, string? torn = null)
    {
        var names = new Dictionary<string, int>(StringComparer.Ordinal);
        List<MemoryNode> files = [.. _before.Select(b => new MemoryNode((byte[])b.Bytes.Clone()))];
        List<byte[]> flushed = [.. _before.Select(b => b.Bytes)];
        for (int i = 0; i < _before.Count; i++)
        {
            names.Add(_before[i].Name, i);
        }
        bool isNew = true; // since the last that was given
        for (int done = 0; ; done++)
        {
            if (isNew)
            {
                yield return (done, names.ToDictionary(n => n.Key, n => onlyFlushed ? flushed[n.Value] : files[n.Value].ToArray(),
                    StringComparer.Ordinal));
            }
            if (done == _steps.Count)
            {
                yield break;
            }
            (int file, WriteLogEntry? request, string? name) = _steps[done];
            isNew = request is null || (request.Kind == WriteLogKind.Flush) == onlyFlushed;
            while (files.Count <= file)
            {
                files.Add(new MemoryNode());
                flushed.Add([]);
            }
            if (request is null)
            {
                if (!names.TryGetValue(name!, out int present) || present != file)
                {
                    names[name!] = file; // new there, or instead of the one before
                }
                else
                {
                    _ = names.Remove(name!);
                }
                continue;
            }
            if (torn is not null && request.Kind == WriteLogKind.Write && names.TryGetValue(torn, out int whole) && whole == file)
            {
                var half = new MemoryNode(files[file].ToArray());
                await WriteLogNode.ReplayAsync(
                    request with { Length = request.Length / 2, Data = request.Data[..(int)(request.Length / 2)] }, half);
                yield return (done, names.ToDictionary(n => n.Key, n => (n.Value == file ? half : files[n.Value]).ToArray(),
                    StringComparer.Ordinal));
            }
            await WriteLogNode.ReplayAsync(request, files[file]);
            if (request.Kind == WriteLogKind.Flush)
            {
                flushed[file] = files[file].ToArray();
            }
        }
    }

    public ValueTask<PendingNode?> TryBeginAsync(string name, CancellationToken cancellationToken)
    {
        name = Path.GetFileName(name);
        if (_names.ContainsKey(name))
        {
            return new((PendingNode?)null);
        }
        _files.Add(new MemoryNode());
        return new(new Pending(this, name, _files.Count - 1));
    }

    public async ValueTask ReplaceAsync(string name, NodeIdentity? identity, ReadOnlyMemory<byte> contents)
    {
        name = Path.GetFileName(name);
        Assert.Equal(Watched.IdentityOf(_names[name]), identity);
        Assert.True(_open[_names[name]] == 0, $"{name} is to be replaced while it is open");
        int file = _files.Count;
        _files.Add(new MemoryNode());
        await using (var beside = new Watched(this, file, name))
        {
            await beside.WriteAsync(0, contents);
            await beside.FlushAsync();
        }
        Step(file, null, name);
        _names[name] = file;
    }

    public ValueTask RemoveAsync(string name, NodeIdentity identity)
    {
        name = Path.GetFileName(name);
        int file = _names[name];
        Assert.Equal(Watched.IdentityOf(file), identity);
        Step(file, null, name);
        _ = _names.Remove(name);
        return default;
    }

    private void Step(int file, WriteLogEntry? request, string? name)
    {
        if (_steps.Count + 1 == _failing)
        {
            HasFailed = true;
            _failing = int.MaxValue;
            throw new DiskImageException(DiskImageErrorKind.Io, $"{name ?? request!.Kind.ToString()}: fails as it was told to");
        }
        _steps.Add((file, request, name));
    }

    private sealed class Watched : FilterNode
    {
        private readonly MemoryFolder _folder;
        private readonly int _file;

        public Watched(MemoryFolder folder, int file, string name)
            : base(new BorrowedNode(folder._files[file], isReadOnly: false))
        {
            (_folder, _file, Name) = (folder, file, name);
            folder._open[file] = folder._open.GetValueOrDefault(file) + 1;
        }

        public override string Name { get; }

        public override NodeIdentity? Identity => IdentityOf(_file);

        public static NodeIdentity IdentityOf(int file) => new($"memory {file}");

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            _folder.Step(_file, new(WriteLogKind.Write, offset, buffer.Length, buffer.ToArray()), null);
            return base.WriteCoreAsync(offset, buffer, cancellationToken);
        }

        protected override ValueTask WriteZeroesCoreAsync(
            long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        {
            _folder.Step(_file, new(WriteLogKind.WriteZeroes, offset, length, default), null);
            return base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
        }

        protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        {
            _folder.Step(_file, new(WriteLogKind.Discard, offset, length, default), null);
            return base.DiscardCoreAsync(offset, length, cancellationToken);
        }

        protected override ValueTask ResizeCoreAsync(
            long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        {
            _folder.Step(_file, new(WriteLogKind.Resize, 0, length, default), null);
            return base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken);
        }

        protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        {
            _folder.Step(_file, new(WriteLogKind.Flush, 0, 0, default), null);
            return base.FlushCoreAsync(cancellationToken);
        }

        protected override ValueTask CloseCoreAsync()
        {
            _folder._open[_file]--;
            return base.CloseCoreAsync();
        }
    }

    private sealed class Pending(MemoryFolder folder, string name, int file)
        : PendingNode(new StoragePlace(name, name, TargetMode.New, Present: null, OtherNames: 0))
    {
        private bool _isPublished;

        public override BlockNode Node { get; } = new Watched(folder, file, name);

        public override ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
            => new(new Watched(folder, file, name));

        public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
        {
            Assert.True(durable);
            folder.Step(file, null, name);
            folder._names.Add(name, file);
            _isPublished = true;
            return default;
        }

        public override void Withdraw()
        {
            if (_isPublished)
            {
                folder._steps.Add((file, null, name));
                _ = folder._names.Remove(name);
                _isPublished = false;
            }
        }

        public override ValueTask DisposeAsync() => Node.DisposeAsync();
    }
}
