using DiskImage.Block;
using DiskImage.Metadata;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Metadata;

/// <summary>A comparison reads what may differ, and says where it does.</summary>
public sealed class LayerComparisonTests
{
    private const long Huge = 1L << 50;

    [Theory]
    [InlineData(BlockStatus.None)]
    [InlineData(BlockStatus.Allocated | BlockStatus.Zero)]
    public async Task What_neither_layer_stores_is_not_read_however_long_it_is(BlockStatus status)
    {
        await using var staged = new StagedNode(new MemoryNode());
        var comparison = new LayerComparison(new Layer(status), new Layer(status), staged, 4096);
        Assert.Null(await comparison.FirstLossAsync(0, Huge, CancellationToken.None));
    }

    /// <summary>A range that is left to the backing image must go on being so, whatever it reads as in this layer.</summary>
    [Theory]
    [InlineData(BlockStatus.None, BlockStatus.Allocated | BlockStatus.Zero)]
    [InlineData(BlockStatus.Allocated | BlockStatus.Zero, BlockStatus.None)]
    public async Task What_is_left_to_the_backing_image_stays_so(BlockStatus before, BlockStatus after)
    {
        await using var staged = new StagedNode(new MemoryNode());
        var comparison = new LayerComparison(new Layer(before) { MayRead = true }, new Layer(after), staged, 4096);
        Assert.Equal(12_288, await comparison.FirstLossAsync(12_288, Huge, CancellationToken.None));
    }

    [Fact]
    public async Task The_first_byte_that_differs_is_named()
    {
        var file = new MemoryNode(new byte[1 << 20]);
        await using var staged = new StagedNode(file);
        await staged.WriteAsync(700_001, new byte[] { 1 });
        var comparison = new LayerComparison(
            new BorrowedNode(file, isReadOnly: true), new BorrowedNode(staged, isReadOnly: true), staged, 4096);
        Assert.Equal(700_001, await comparison.FirstLossAsync(0, 1 << 20, CancellationToken.None));
    }

    private sealed class Layer(BlockStatus status) : BlockNode
    {
        public bool MayRead { get; init; }

        public override string Name => "layer";

        public override long Length => Huge;

        public override bool IsReadOnly => true;

        protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
            => new(new BlockExtent(offset, length, status));

        protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        {
            Assert.True(MayRead, "it is read");
            buffer.Span.Clear();
            return default;
        }

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
            => throw new NotSupportedException();
    }
}
