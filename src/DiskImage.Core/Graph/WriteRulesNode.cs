using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>What is done with writes of zeroes (<c>detect-zeroes</c>).</summary>
internal enum ZeroWriteDetection
{
    /// <summary>They are written like any other.</summary>
    Off,

    /// <summary>They become requests to zero that keep the space.</summary>
    On,

    /// <summary>They become requests to zero that may give the space back, where discards are let through.</summary>
    Unmap,
}

/// <summary>What is done with discards, by QEMU's words (<c>discard</c>). Here they are let through where nothing is said.</summary>
internal enum DiscardRule
{
    /// <summary>They reach the node.</summary>
    Unmap,

    /// <summary>The same.</summary>
    On,

    /// <summary>They do nothing.</summary>
    Ignore,

    /// <summary>The same.</summary>
    Off,
}

/// <summary>
/// A node whose writes of nothing but zeroes are seen as such, and whose discards do not reach it: <c>detect-zeroes</c> and
/// <c>discard=ignore</c>, which a description can say of every node. Spec: QEMU's BlockdevOptions.
/// </summary>
/// <param name="child">The node.</param>
/// <param name="zeroes">What is done with writes of zeroes.</param>
/// <param name="ignoresDiscards">Discards do nothing, and zeroing keeps the space.</param>
internal sealed class WriteRulesNode(BlockNode child, ZeroWriteDetection zeroes, bool ignoresDiscards) : FilterNode(child)
{
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => zeroes != ZeroWriteDetection.Off && !buffer.Span.ContainsAnyExcept((byte)0)
            ? WriteZeroesCoreAsync(
                offset,
                buffer.Length,
                zeroes == ZeroWriteDetection.Unmap ? ZeroWriteMode.MayUnmap : ZeroWriteMode.KeepAllocated,
                cancellationToken)
            : base.WriteCoreAsync(offset, buffer, cancellationToken);

    protected override ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => base.WriteZeroesCoreAsync(offset, length, ignoresDiscards ? ZeroWriteMode.KeepAllocated : mode, cancellationToken);

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => ignoresDiscards ? default : base.DiscardCoreAsync(offset, length, cancellationToken);
}
