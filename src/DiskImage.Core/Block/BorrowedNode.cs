namespace DiskImage.Block;

/// <summary>A node that somebody else owns: closing this one leaves it open.</summary>
/// <param name="node">The node.</param>
/// <param name="isReadOnly">True to refuse writes through this one.</param>
internal sealed class BorrowedNode(BlockNode node, bool isReadOnly) : FilterNode(node)
{
    public override bool IsReadOnly => isReadOnly || base.IsReadOnly;

    protected override bool OwnsChildren => false;
}
