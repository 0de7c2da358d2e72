namespace DiskImage.Compression;

/// <summary>One way to compress, over whole blocks in memory. Safe to call in parallel.</summary>
internal interface IBlockDecompressor
{
    /// <summary>
    /// Fills <paramref name="output"/> from compressed bytes that may have rubbish behind them. False if they are damaged or
    /// hold less than that.
    /// </summary>
    bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output);
}

/// <summary>The other direction of a codec.</summary>
internal interface IBlockCompressor
{
    /// <summary>
    /// Compresses a block; the bytes written to <paramref name="output"/>, or null if they do not fit or would hardly be fewer.
    /// </summary>
    int? Compress(ReadOnlySpan<byte> input, Span<byte> output);
}
