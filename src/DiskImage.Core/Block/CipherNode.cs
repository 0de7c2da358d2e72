namespace DiskImage.Block;

/// <summary>
/// A run of a file's bytes under a sector cipher. What nobody has written yet reads as noise, zeroes are stored like any data, and nothing
/// of it has a plain host offset.
/// </summary>
/// <param name="file">The node that holds the bytes; this one's own.</param>
/// <param name="start">Where in it the run begins, in bytes.</param>
/// <param name="cipher">The cipher; this node's own.</param>
internal abstract class CipherNode(BlockNode file, long start, ISectorCipher cipher) : BlockNode, INoiseWhenNew
{
    /// <summary>The node that holds the bytes.</summary>
    protected BlockNode File { get; } = file;

    /// <summary>Where in it the run begins.</summary>
    protected long Start { get; } = start;

    /// <inheritdoc/>
    public override string Name => File.Name;

    /// <inheritdoc/>
    public override bool IsReadOnly => File.IsReadOnly;

    /// <inheritdoc/>
    public override long? AllocatedLength => File.AllocatedLength;

    /// <inheritdoc/>
    public override DateTimeOffset? LastWriteTime => File.LastWriteTime;

    /// <inheritdoc/>
    public override BlockLimits Limits => new(cipher.SectorSize);

    /// <inheritdoc/>
    public bool IsNoiseWhenNew => true;

    /// <inheritdoc/>
    protected override BlockBinding Binding => new(RequestAlignment: cipher.SectorSize);

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, BlockNode> Children { get; }
        = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = file };

    /// <summary>Clears the keys of a node that nobody got, whose file stays the caller's.</summary>
    public void Forget() => cipher.Dispose();

    /// <inheritdoc/>
    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => cipher.ReadAsync(File, Start + offset, offset, buffer, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => cipher.WriteAsync(File, Start + offset, offset, buffer, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => new(new BlockExtent(offset, Length - offset, BlockStatus.Allocated | BlockStatus.Data));

    /// <inheritdoc/>
    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken) => File.FlushAsync(cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask CloseCoreAsync()
    {
        cipher.Dispose();
        return default;
    }
}
