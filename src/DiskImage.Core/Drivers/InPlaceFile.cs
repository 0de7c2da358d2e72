using DiskImage.Block;

namespace DiskImage.Drivers;

/// <summary>
/// A file that a new image is written into. It is emptied by the first change, and again if the image does not become complete.
/// </summary>
/// <param name="place">The place.</param>
/// <param name="file">What is there, open for writing.</param>
/// <param name="open">Opens it again, for writing or for reading.</param>
internal sealed class InPlaceFile(
    StoragePlace place, BlockNode file, Func<bool, CancellationToken, ValueTask<BlockNode>> open) : PendingNode(place)
{
    private readonly EmptiedNode _node = new(file);
    private bool _isComplete;

    public override BlockNode Node => _node;

    public override ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
        => open(writable, cancellationToken);

    public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
    {
        _isComplete = true; // it has its name, and its folder is as it was
        return default;
    }

    public override void Withdraw()
    {
    }

    public override async ValueTask DisposeAsync()
    {
        try
        {
            await _node.DisposeAsync().ConfigureAwait(false);
            if (!_isComplete && _node.IsEmptied)
            {
                BlockNode half = await open(true, CancellationToken.None).ConfigureAwait(false);
                await using (half.ConfigureAwait(false))
                {
                    await half.ResizeAsync(0).ConfigureAwait(false);
                }
            }
        }
        catch (DiskImageException)
        {
            // The failure that led here is on its way already.
        }
        _isComplete = true;
    }

    /// <summary>Shows a file as empty, and empties it before its first change.</summary>
    private sealed class EmptiedNode(BlockNode file) : FilterNode(file)
    {
        private readonly SemaphoreSlim _gate = new(1, 1); // held while the file is emptied

        public bool IsEmptied { get; private set; }

        public override long Length => IsEmptied ? Below.Length : 0;

        protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            await EmptyAsync(cancellationToken).ConfigureAwait(false);
            await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }

        protected override async ValueTask WriteZeroesCoreAsync(
            long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        {
            await EmptyAsync(cancellationToken).ConfigureAwait(false);
            await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
        }

        protected override async ValueTask ResizeCoreAsync(
            long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        {
            await EmptyAsync(cancellationToken).ConfigureAwait(false);
            await Below.ResizeAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        }

        protected override async ValueTask CloseCoreAsync()
        {
            await base.CloseCoreAsync().ConfigureAwait(false);
            _gate.Dispose();
        }

        private async ValueTask EmptyAsync(CancellationToken cancellationToken)
        {
            if (IsEmptied)
            {
                return;
            }
            await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                if (!IsEmptied)
                {
                    await Below.ResizeAsync(0, cancellationToken: cancellationToken).ConfigureAwait(false);
                    IsEmptied = true;
                }
            }
            finally
            {
                _ = _gate.Release();
            }
        }
    }
}
