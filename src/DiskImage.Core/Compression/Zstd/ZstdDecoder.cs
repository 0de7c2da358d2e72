using System.Buffers.Binary;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// Zstandard (RFC 8878) in managed code: a block in memory in, a block in memory out.
/// </summary>
/// <remarks>
/// The idea. The whole output is at hand, so it is its own window: copies reach back to the start of their frame, also beyond
/// the window that the frame asks for, and no memory depends on what the input says. A frame is a header, blocks and perhaps a checksum;
/// a compressed block is literals (<see cref="LiteralsSection"/>, Huffman codes) and sequences (<see cref="SequencesSection"/>,
/// FSE codes) that weave literals and copies together. What blocks hand on to each other, and all tables, live in one
/// <see cref="ZstdWorkspace"/> per thread; nothing is allocated after a thread's first call.
///
/// Hostile input. Every length is checked against what is there before it is used; the work for a block is bounded by a constant
/// and the bytes it takes and gives. Nothing throws. The decoder is strict: reserved bits, sizes over the block maximum, an
/// offset of 0 and bits left over are damage.
///
/// Left out: dictionaries (a frame that names one is refused) and the formats from before 0.8.
/// </remarks>
internal sealed unsafe class ZstdDecoder : IBlockDecompressor
{
    private const int BlockHeaderBytes = 3, ChecksumBytes = 4;

    private ZstdDecoder()
    {
    }

    /// <summary>The decoder; it has no state of its own.</summary>
    public static ZstdDecoder Instance { get; } = new();

    /// <summary>
    /// Fills the output from one frame or several, with skippable frames before and between them; at least one frame is read. False
    /// if a frame is damaged, does not end where the output does, or ends before it with no other behind it.
    /// </summary>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        ZstdWorkspace workspace = ZstdWorkspace.Current;
        do
        {
            if (!FrameHeader.TrySkip(ref input) || !TryDecodeFrame(workspace, ref input, output, out int written))
            {
                return false;
            }
            output = output[written..];
        }
        while (!output.IsEmpty);
        return true;
    }

    private static bool TryDecodeFrame(ZstdWorkspace workspace, ref ReadOnlySpan<byte> input, Span<byte> output, out int written)
    {
        written = 0;
        if (!FrameHeader.TryRead(input, out FrameHeader header) || header.DictionaryId != 0 || header.ContentSize > (ulong)output.Length)
        {
            return false;
        }
        input = input[header.Size..];
        workspace.BeginFrame();
        if (!TryDecodeBlocks(workspace, header.MaxBlockSize, ref input, output, out written)
            || (header.ContentSize is ulong size && size != (ulong)written))
        {
            return false;
        }
        if (header.HasChecksum)
        {
            if (input.Length < ChecksumBytes
                || BinaryPrimitives.ReadUInt32LittleEndian(input) != (uint)XxHash64.Hash(output[..written]))
            {
                return false;
            }
            input = input[ChecksumBytes..];
        }
        return true;
    }

    /// <summary>Blocks up to the last of a frame (section 3.1.1.2).</summary>
    private static bool TryDecodeBlocks(ZstdWorkspace workspace, int maxBlockSize, ref ReadOnlySpan<byte> input, Span<byte> output, out int written)
    {
        written = 0;
        for (bool last = false; !last;)
        {
            if (input.Length < BlockHeaderBytes)
            {
                return false;
            }
            int header = input[0] | (input[1] << 8) | (input[2] << 16);
            input = input[BlockHeaderBytes..];
            last = (header & 1) != 0;
            int type = (header >> 1) & 3;
            int size = header >> 3;
            int stored = type == 1 ? 1 : size;
            if (size > maxBlockSize || stored > input.Length)
            {
                return false;
            }
            ReadOnlySpan<byte> content = input[..stored];
            input = input[stored..];
            int count = size;
            switch (type)
            {
                case 0:
                    if (!content.TryCopyTo(output[written..]))
                    {
                        return false;
                    }
                    break;
                case 1:
                    if (size > output.Length - written)
                    {
                        return false;
                    }
                    output.Slice(written, size).Fill(content[0]);
                    break;
                case 2:
                    if (!TryDecodeBlock(workspace, content, maxBlockSize, output, written, out count))
                    {
                        return false;
                    }
                    break;
                default:
                    return false;
            }
            written += count;
        }
        return true;
    }

    /// <summary>A compressed block (section 3.1.1.3) whose content goes behind the first <paramref name="before"/> bytes of the frame.</summary>
    private static bool TryDecodeBlock(ZstdWorkspace workspace, ReadOnlySpan<byte> content, int maxSize, Span<byte> output, int before, out int written)
    {
        written = 0;
        if (!LiteralsSection.TryDecode(workspace, content, maxSize, out int literals, out int used))
        {
            return false;
        }
        fixed (byte* start = output)
        {
            var target = new SequencesSection.Target
            {
                FrameStart = start,
                Start = start + before,
                Limit = start + before + Math.Min(maxSize, output.Length - before),
                End = start + output.Length,
            };
            return SequencesSection.TryDecode(workspace, content[used..], literals, target, out written);
        }
    }
}
