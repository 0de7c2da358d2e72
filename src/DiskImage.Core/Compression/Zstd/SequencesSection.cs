using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// The second part of a compressed block: how literals and copies of earlier bytes follow each other (RFC 8878, sections
/// 3.1.1.3.2 to 3.1.1.5).
/// </summary>
/// <remarks>
/// Each sequence is decoded and carried out at once. Three checks per sequence make it safe: the literals are there, the block
/// and the output have room, the copy does not start before the frame. Where the output has room to spare, bytes are moved in
/// steps of 16 that may run over their end into what the next sequence writes; near the end of the output, exactly. The bits
/// are judged only after the last sequence: until then rubbish does no harm.
/// </remarks>
internal static unsafe class SequencesSection
{
    private const int Slack = 32; // how far a move in steps may run over its end

    /// <summary>For each offset below 16, which byte of the pattern stands at which place of a vector: place modulo offset.</summary>
    private static readonly byte[] _patternIndexes =
        [.. Enumerable.Range(0, 16).SelectMany(offset => Enumerable.Range(0, 16).Select(place => (byte)(offset == 0 ? 0 : place % offset)))];

    /// <summary>Where a block's bytes go, and how far copies may reach back.</summary>
    internal readonly struct Target
    {
        /// <summary>The first byte of the frame's content.</summary>
        public byte* FrameStart { get; init; }

        /// <summary>Where the block's content begins.</summary>
        public byte* Start { get; init; }

        /// <summary>Where the block's content must end at the latest.</summary>
        public byte* Limit { get; init; }

        /// <summary>The end of the memory that may be written to.</summary>
        public byte* End { get; init; }
    }

    /// <summary>Decodes the section and builds the block's content from it; how many bytes that are. False if it is damaged.</summary>
    public static bool TryDecode(ZstdWorkspace workspace, ReadOnlySpan<byte> input, int literals, in Target target, out int written)
    {
        written = 0;
        if (!TryReadCount(ref input, out int count))
        {
            return false;
        }
        if (count == 0)
        {
            return input.IsEmpty && TryAppend(workspace.Literals, literals, target.Start, target, out written);
        }
        if (input.IsEmpty || (input[0] & 3) != 0)
        {
            return false;
        }
        int modes = input[0];
        input = input[1..];
        if (!TryReadTable(workspace, workspace.LiteralLengths, SymbolMeaning.LiteralLength, modes >> 6, ref input)
            || !TryReadTable(workspace, workspace.Offsets, SymbolMeaning.Offset, (modes >> 4) & 3, ref input)
            || !TryReadTable(workspace, workspace.MatchLengths, SymbolMeaning.MatchLength, (modes >> 2) & 3, ref input))
        {
            return false;
        }
        fixed (byte* stream = input)
        {
            return BackwardBitReader.TryOpen(stream, input.Length, out BackwardBitReader bits)
                && TryExecute(workspace, bits, count, literals, target, out written);
        }
    }

    private static bool TryReadCount(ref ReadOnlySpan<byte> input, out int count)
    {
        count = 0;
        if (input.IsEmpty)
        {
            return false;
        }
        int first = input[0];
        int used = first switch
        {
            < 128 => 1,
            < 255 => 2,
            _ => 3,
        };
        if (input.Length < used)
        {
            return false;
        }
        count = used switch
        {
            1 => first,
            2 => ((first - 128) << 8) | input[1],
            _ => (input[1] | (input[2] << 8)) + 0x7F00,
        };
        input = input[used..];
        return true;
    }

    private static bool TryReadTable(ZstdWorkspace workspace, FseTable table, SymbolMeaning meaning, int mode, ref ReadOnlySpan<byte> input)
    {
        switch (mode)
        {
            case 0:
                table.Share(meaning.Predefined);
                return true;
            case 1:
                if (input.IsEmpty || input[0] >= meaning.Symbols)
                {
                    return false;
                }
                table.BuildSingle(input[0], meaning);
                input = input[1..];
                return true;
            case 2:
                Span<short> counts = workspace.Counts.AsSpan(0, meaning.Symbols);
                if (!FseDistribution.TryRead(input, counts, meaning.MaxAccuracy, out int accuracy, out int symbols, out int used))
                {
                    return false;
                }
                table.Build(counts[..symbols], accuracy, meaning);
                input = input[used..];
                return true;
            default:
                return table.Cells != null; // the one before, if there was one
        }
    }

    private static bool TryExecute(ZstdWorkspace workspace, BackwardBitReader bits, int count, int literals, in Target target, out int written)
    {
        written = 0;
        FseCell* literalLengths = workspace.LiteralLengths.Cells;
        FseCell* matchLengths = workspace.MatchLengths.Cells;
        FseCell* offsets = workspace.Offsets.Cells;
        FseCell* literalCell = literalLengths + bits.Read(workspace.LiteralLengths.Accuracy);
        FseCell* offsetCell = offsets + bits.Read(workspace.Offsets.Accuracy);
        FseCell* matchCell = matchLengths + bits.Read(workspace.MatchLengths.Accuracy);
        RecentOffsets recent = workspace.Recent;
        byte* literal = workspace.Literals;
        byte* literalsEnd = literal + literals;
        byte* output = target.Start;
        byte* frameStart = target.FrameStart;
        byte* limit = target.Limit;
        byte* end = target.End;
        while (true)
        {
            // At most 31 + 16 + 16 extra bits and 9 + 9 + 8 for the next states: the second refill is for those that pass 57.
            bits.Refill();
            int extraBits = offsetCell->ExtraBits + matchCell->ExtraBits + literalCell->ExtraBits;
            uint offset = recent.Use(offsetCell->Base + bits.Read(offsetCell->ExtraBits), literalCell->Base == 0);
            uint matchLength = matchCell->Base + bits.Read(matchCell->ExtraBits);
            if (extraBits > BackwardBitReader.ReadyBits - 26)
            {
                bits.Refill();
            }
            uint literalLength = literalCell->Base + bits.Read(literalCell->ExtraBits);
            count--;
            if (count > 0)
            {
                literalCell = literalLengths + literalCell->NextBase + bits.Read(literalCell->NextBits);
                matchCell = matchLengths + matchCell->NextBase + bits.Read(matchCell->NextBits);
                offsetCell = offsets + offsetCell->NextBase + bits.Read(offsetCell->NextBits);
            }
            long total = (long)literalLength + matchLength;
            if (literalLength > literalsEnd - literal
                || total > limit - output
                || offset > output - frameStart + literalLength
                || offset == 0)
            {
                return false;
            }
            if (total + Slack <= end - output)
            {
                CopyLiterals(literal, output, literalLength);
                output += literalLength;
                CopyMatch(output, offset, matchLength);
                output += matchLength;
            }
            else
            {
                Buffer.MemoryCopy(literal, output, literalLength, literalLength);
                output += literalLength;
                CopyMatchExactly(output, offset, matchLength);
                output += matchLength;
            }
            literal += literalLength;
            if (count == 0)
            {
                break;
            }
        }
        bits.Refill();
        if (!bits.IsExhausted)
        {
            return false;
        }
        workspace.Recent = recent;
        return TryAppend(literal, (int)(literalsEnd - literal), output, target, out written);
    }

    /// <summary>Puts the literals behind the last sequence at the end of the block.</summary>
    private static bool TryAppend(byte* literals, int count, byte* output, in Target target, out int written)
    {
        written = 0;
        if (count > target.Limit - output)
        {
            return false;
        }
        Buffer.MemoryCopy(literals, output, count, count);
        written = (int)(output + count - target.Start);
        return true;
    }

    /// <summary>Copies in steps of 16; may read and write 15 bytes too many.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void CopyLiterals(byte* source, byte* target, uint count)
    {
        Vector128.Store(Vector128.Load(source), target);
        for (uint i = 16; i < count; i += 16)
        {
            Vector128.Store(Vector128.Load(source + i), target + i);
        }
    }

    /// <summary>Copies from an offset back, which may be less than the count: then what was just written repeats. May write 31 bytes too many.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void CopyMatch(byte* target, uint offset, uint count)
    {
        byte* source = target - offset;
        if (offset < 16)
        {
            CopyPattern(source, target, offset, count);
            return;
        }
        Vector128.Store(Vector128.Load(source), target);
        for (uint i = 16; i < count; i += 32)
        {
            Vector128.Store(Vector128.Load(source + i), target + i);
            Vector128.Store(Vector128.Load(source + i + 16), target + i + 16);
        }
    }

    /// <summary>
    /// Repeats a pattern of less than 16 bytes: laid out once in a vector, which is then only stored, as many whole patterns
    /// further each time as fit into it. May write 15 bytes too many.
    /// </summary>
    private static void CopyPattern(byte* source, byte* target, uint offset, uint count)
    {
        Vector128<byte> pattern;
        if (Ssse3.IsSupported)
        {
            pattern = Ssse3.Shuffle(Vector128.Load(source), Vector128.Create(_patternIndexes, (int)offset * 16));
        }
        else if (AdvSimd.Arm64.IsSupported)
        {
            pattern = AdvSimd.Arm64.VectorTableLookup(Vector128.Load(source), Vector128.Create(_patternIndexes, (int)offset * 16));
        }
        else
        {
            byte* bytes = stackalloc byte[16];
            for (int i = 0; i < 16; i++)
            {
                bytes[i] = i < offset ? source[i] : bytes[i - offset];
            }
            pattern = Vector128.Load(bytes);
        }
        uint step = 16 - (16 % offset);
        for (uint i = 0; i < count; i += step)
        {
            Vector128.Store(pattern, target + i);
        }
    }

    /// <summary>Copies byte by byte where they overlap, at once where they do not; writes nothing else.</summary>
    private static void CopyMatchExactly(byte* target, uint offset, uint count)
    {
        byte* source = target - offset;
        if (offset >= count)
        {
            Buffer.MemoryCopy(source, target, count, count);
            return;
        }
        for (uint i = 0; i < count; i++)
        {
            target[i] = source[i];
        }
    }
}
