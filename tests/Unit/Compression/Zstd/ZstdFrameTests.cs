using System.Text;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>
/// Frames written by hand after RFC 8878: what is accepted, and what is damage. Where the zstd library reads what is
/// forbidden, and so does QEMU, nothing is asked but that it be read alike.
/// </summary>
public sealed class ZstdFrameTests
{
    private static readonly byte[] _hello = Encoding.ASCII.GetBytes("hello");

    /// <summary>
    /// The tree of section 4.2.1: literals 0 … 5 with weights 4 3 2 0 1 and, not written, 1; and "0145" in the code of section
    /// 4.2.1.3, where 4 is 0000 and 5 is 0001 (the stream printed in section 4.2.2 has these two the other way round).
    /// </summary>
    private static readonly byte[] _tree = [127 + 5, 0x43, 0x20, 0x10], _coded = [0b0000_0001, 0b0000_1101];

    private delegate void Judgement(ReadOnlySpan<byte> input, int length, string what);

    [Fact]
    public void Stored_and_repeated_blocks()
    {
        ZstdJudge.Decodes(ZstdFrameBuilder.Sized(5).RawBlock(_hello).Done(), _hello, "stored");
        ZstdJudge.Decodes(ZstdFrameBuilder.Sized(5).RleBlock((byte)'x', 5).Done(), "xxxxx"u8, "repeated");
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().RawBlock(_hello).RleBlock((byte)'!', 3).RawBlock().Done(), "hello!!!"u8, "both, and an empty one");
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().RleBlock(7, 128 << 10).RleBlock(7, 128 << 10).Done(),
            Enumerable.Repeat((byte)7, 256 << 10).ToArray(),
            "large");
    }

    [Fact]
    public void An_empty_output_needs_a_frame_too()
    {
        ZstdJudge.Decodes(ZstdFrameBuilder.Sized(0).RawBlock().Done(), [], "empty");
        ZstdJudge.Decodes(ZstdFrameBuilder.Windowed().RawBlock().Done(), [], "empty, of unknown size");
        ZstdJudge.Refuses([], 0, "nothing");
        ZstdJudge.Refuses(ZstdFrameBuilder.Skippable(0), 1, "a skippable frame alone");
    }

    [Theory]
    [InlineData("28B52FFD 60 0000 0108 00", 0x100)] // two bytes of size: 256 more
    [InlineData("28B52FFD A0 02000000 13000041", 0)]
    [InlineData("28B52FFD E0 0200000000000000 13000041", 0)]
    public void Sizes_have_one_to_eight_bytes(string hex, int more)
    {
        byte[] input = Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal));
        if (more == 0)
        {
            ZstdJudge.Decodes(input, "AA"u8, hex);
        }
        else
        {
            input[7] = 0x03;
            ZstdJudge.Decodes([.. input, 0], new byte[more], hex);
        }
    }

    [Fact]
    public void Rubbish_may_follow_and_frames_may_follow_each_other()
    {
        byte[] frame = ZstdFrameBuilder.Sized(5).RawBlock(_hello).Done();
        byte[] unsized = ZstdFrameBuilder.Windowed().RleBlock((byte)'.', 3).Done();
        ZstdJudge.Decodes([.. frame, 1, 2, 3, 4, 5, 6, 7, 8, 9], _hello, "rubbish");
        ZstdJudge.Decodes([.. frame, .. new byte[500]], _hello, "zeroes");
        ZstdJudge.Decodes([.. frame, .. unsized], "hello..."u8, "two frames");
        ZstdJudge.Decodes(
            [.. ZstdFrameBuilder.Skippable(15, 9, 9), .. frame, .. ZstdFrameBuilder.Skippable(0), .. unsized, 0xFF],
            "hello..."u8,
            "skippable ones");
        ZstdJudge.Refuses([.. frame, 0, .. unsized], 8, "rubbish between");
        ZstdJudge.Refuses([0x50, 0x2A, 0x4D, 0x18, 200, 0, 0, 0, .. frame], 5, "skippable frame cut off");
        ZstdJudge.Refuses([0x50, 0x2A, 0x4D, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, .. frame], 5, "skippable frame of 4 GiB");
    }

    [Fact]
    public void Checksums_are_verified()
    {
        byte[] frame = ZstdFrameBuilder.Sized(5, flags: 4).RawBlock(_hello).Done(_hello);
        ZstdJudge.Decodes(frame, _hello, "right");
        ZstdJudge.Refuses(frame.AsSpan(0, frame.Length - 1), 5, "cut off");
        frame[^1] ^= 1;
        ZstdJudge.Refuses(frame, 5, "wrong");
    }

    [Fact]
    public void Damaged_headers_are_refused()
    {
        byte[] frame = ZstdFrameBuilder.Sized(5).RawBlock(_hello).Done();
        for (int length = 0; length < frame.Length; length++)
        {
            ZstdJudge.Refuses(frame.AsSpan(0, length), 5, $"cut off at {length}");
        }
        ZstdJudge.Refuses(ZstdFrameBuilder.Sized(5, flags: 8).RawBlock(_hello).Done(), 5, "reserved bit");
        ZstdJudge.Decodes(ZstdFrameBuilder.Sized(5, flags: 16).RawBlock(_hello).Done(), _hello, "the unused bit");
        ZstdJudge.Refuses(ZstdFrameBuilder.Raw([0x28, 0xB5, 0x2F, 0xFD, 0x21, 77, 5]).RawBlock(_hello).Done(), 5, "dictionary");
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Raw([0x28, 0xB5, 0x2F, 0xFD, 0x23, 0, 0, 0, 0, 5]).RawBlock(_hello).Done(), _hello, "dictionary 0 is none");
        ZstdJudge.Refuses(ZstdFrameBuilder.Sized(6).RawBlock(_hello).Done(), 5, "a size too large");
        ZstdJudge.Refuses(ZstdFrameBuilder.Sized(6).RawBlock(_hello).Done(), 6, "a size too large");
        ZstdJudge.Agrees(ZstdFrameBuilder.Sized(4).RawBlock(_hello).Done(), 5, "a size too small");
        ZstdJudge.Refuses(ZstdFrameBuilder.Sized(5).Block(3, 5, _hello).Done(), 5, "reserved block type");
        ZstdJudge.Refuses(ZstdFrameBuilder.Sized(5).Block(0, 6, _hello).Done(), 5, "a block larger than the input");
        ZstdJudge.Agrees(ZstdFrameBuilder.Windowed(window: 0).RleBlock(1, 1025).Done(), 1025, "a block larger than the window");
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed(window: 0).RleBlock(1, 1024).Done(),
            Enumerable.Repeat((byte)1, 1024).ToArray(),
            "a block as large as the window");
        ZstdJudge.Agrees(ZstdFrameBuilder.Windowed().RleBlock(1, (128 << 10) + 1).Done(), (128 << 10) + 1, "a block over 128 KiB");
        ZstdJudge.Agrees(ZstdFrameBuilder.Sized(0).CompressedBlock([0x01, 7], [0]).Done(), 0, "a block that takes more than its window");
        ZstdJudge.Decodes(ZstdFrameBuilder.Windowed(window: 0xA8).RawBlock(_hello).Done(), _hello, "a window of 2 GiB");
        ZstdJudge.Refuses(ZstdFrameBuilder.Windowed(window: 0xB0).RawBlock(_hello).Done(), 5, "a window of 4 GiB");
    }

    [Fact]
    public void The_huffman_example_of_the_rfc()
    {
        byte[] block = ZstdFrameBuilder.HuffmanLiterals(2, 4, [.. _tree, .. _coded]);
        ZstdJudge.Decodes(ZstdFrameBuilder.Windowed().CompressedBlock(block, [0]).Done(), [0, 1, 4, 5], "with the tree");
        byte[] again = ZstdFrameBuilder.HuffmanLiterals(3, 4, _coded);
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock(block, [0]).RawBlock(9).CompressedBlock(again, [0]).Done(),
            [0, 1, 4, 5, 9, 0, 1, 4, 5],
            "with the tree of the block before");
        ZstdJudge.Refuses(ZstdFrameBuilder.Windowed().CompressedBlock(again, [0]).Done(), 4, "without any tree");
        byte[] first = ZstdFrameBuilder.Windowed().CompressedBlock(block, [0]).Done();
        byte[] second = ZstdFrameBuilder.Windowed().CompressedBlock(again, [0]).Done();
        ZstdJudge.Refuses([.. first, .. second], 8, "with the tree of another frame");
        byte[] printed = ZstdFrameBuilder.HuffmanLiterals(2, 4, [.. _tree, 0b0001_0000, 0b0000_1101]);
        ZstdJudge.Decodes(ZstdFrameBuilder.Windowed().CompressedBlock(printed, [0]).Done(), [0, 1, 5, 4], "the stream as printed");
    }

    [Fact]
    public void Damaged_trees_and_streams_are_refused()
    {
        Refuses("more symbols than the stream has", 5, [.. _tree, .. _coded]);
        Refuses("fewer symbols than the stream has", 3, [.. _tree, .. _coded]);
        Refuses("no 1 at the end", 4, [.. _tree, 0x10, 0]);
        Refuses("no stream", 4, _tree);
        Refuses("no weights", 4, [127 + 5, 0, 0, 0, .. _coded]);
        Refuses("no weight of 1", 4, [127 + 5, 0x43, 0x20, 0x20, .. _coded]);
        Refuses("a weight of 12", 4, [127 + 5, 0xC3, 0x20, 0x10, .. _coded]);
        Refuses("weights that need two more symbols", 4, [127 + 3, 0x51, 0x10, .. _coded]);
        Refuses("a tree that is cut off", 4, [255, 0x43, 0x20, 0x10, .. _coded]);
        Refuses("a tree as an empty FSE stream", 4, [0, .. _coded]);
        Refuses("a tree of 12 bits", 4, [127 + 12, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x1B, .. _coded]);

        static void Refuses(string what, int count, byte[] content)
            => ZstdJudge.Refuses(
                ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.HuffmanLiterals(2, count, content), [0]).Done(), count, what);
    }

    [Fact]
    public void Literals_have_headers_of_one_to_three_bytes()
    {
        byte[] many = ZstdInputs.Make("random", 4095, 1);
        ZstdJudge.Decodes(ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), [0]).Done(), _hello, "one byte");
        ZstdJudge.Decodes(ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(many), [0]).Done(), many, "two bytes");
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock([0x5C, 0, 0, .. _hello], [0]).Done(), _hello, "three bytes for little");
        byte[] repeated = [0x0D | (0xF << 4), 0xFF, 0x1F, 7]; // 131071 times
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock(repeated, [0]).Done(), Enumerable.Repeat((byte)7, 131071).ToArray(), "repeated");
        ZstdJudge.Refuses(ZstdFrameBuilder.Windowed().CompressedBlock([0x0D, 0x10, 0x20, 7], [0]).Done(), 131073, "over the block maximum");
        ZstdJudge.Refuses(ZstdFrameBuilder.Windowed().CompressedBlock([6 << 3, .. _hello], []).Done(), 6, "cut off");
        ZstdJudge.Refuses(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), []).Done(), 5, "no sequences section");
        ZstdJudge.Refuses(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), [0, 0]).Done(), 5, "bytes behind no sequences");
    }

    [Fact]
    public void Sequences_copy_what_was_written_before()
    {
        // Literal code 5: five literals. Match code 0: three bytes. Offset code 3: 8 + extra − 3.
        byte[] copy = ZstdFrameBuilder.Sequences(5, 3, 0, (0, 0, 0));
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), copy).Done(), "hellohel"u8, "offset 5");
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals([.. _hello, (byte)'!']), copy).Done(),
            "hellohel!"u8,
            "a literal at the end");
        byte[] overlap = ZstdFrameBuilder.Sequences(5, 2, 36, (1, 3, 0)); // offset 4 + 1 − 3 = 2, length 43 + 3
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), overlap).Done(),
            Encoding.ASCII.GetBytes("hel" + string.Concat(Enumerable.Repeat("lo", 24))),
            "a copy of itself");
        byte[] outside = ZstdFrameBuilder.Sequences(5, 3, 0, (1, 0, 0));
        ZstdJudge.Refuses(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), outside).Done(),
            8,
            "an offset before the frame");
        byte[] before = ZstdFrameBuilder.Windowed().RawBlock(_hello).Done();
        ZstdJudge.Refuses(
            [.. before, .. ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), outside).Done()],
            13,
            "an offset into the frame before");
        ZstdJudge.Refuses(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals("hell"u8.ToArray()), copy).Done(),
            7,
            "fewer literals than asked");
        ZstdJudge.Refuses(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), [.. copy, 1]).Done(), 8, "bits left over");
        ZstdJudge.Refuses(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), copy[..^1]).Done(), 8, "no stream");
        ZstdJudge.Agrees(
            ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), [.. copy[..^1], 1]).Done(), 8, "bits missing");
        ZstdJudge.Agrees(
            ZstdFrameBuilder.Windowed(window: 0).CompressedBlock(
                ZstdFrameBuilder.Literals(_hello), ZstdFrameBuilder.Sequences(5, 3, 47, (0, 0, 0))).Done(),
            2056,
            "more than a block holds");
    }

    [Fact]
    public void Damaged_sequence_headers_are_refused()
    {
        byte[] copy = ZstdFrameBuilder.Sequences(5, 3, 0, (0, 0, 0));
        Judge("reserved bits", 1, 0x55, ZstdJudge.Agrees);
        Refuses("the table before, of which there is none", 1, 0xD4);
        Refuses("a literal code too large", 2, 36);
        Refuses("an offset code too large", 3, 32);
        Refuses("a match code too large", 4, 53);
        Judge("sequences that are not there", 0, 2, ZstdJudge.Agrees);

        void Refuses(string what, int at, byte value) => Judge(what, at, value, ZstdJudge.Refuses);

        void Judge(string what, int at, byte value, Judgement judgement)
        {
            byte[] damaged = [.. copy];
            damaged[at] = value;
            judgement(ZstdFrameBuilder.Windowed().CompressedBlock(ZstdFrameBuilder.Literals(_hello), damaged).Done(), 8, what);
        }
    }

    [Fact]
    public void Tables_can_be_those_of_the_block_before()
    {
        byte[] copy = ZstdFrameBuilder.Sequences(5, 3, 0, (0, 0, 0));
        byte[] repeat = [1, 0xFC, .. copy[5..]];
        byte[] literals = ZstdFrameBuilder.Literals(_hello);
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock(literals, copy).CompressedBlock(literals, [0]).RawBlock(_hello).CompressedBlock(literals, repeat).Done(),
            "hellohelhellohellohellohel"u8,
            "over a block without sequences");
        ZstdJudge.Refuses(ZstdFrameBuilder.Windowed().CompressedBlock(literals, repeat).Done(), 8, "none before");
        byte[] first = ZstdFrameBuilder.Windowed().CompressedBlock(literals, copy).Done();
        ZstdJudge.Refuses(
            [.. first, .. ZstdFrameBuilder.Windowed().CompressedBlock(literals, repeat).Done()], 16, "those of another frame");
    }

    [Fact]
    public void Recent_offsets_last_from_block_to_block()
    {
        byte[] literals = ZstdFrameBuilder.Literals(_hello);
        byte[] copy = ZstdFrameBuilder.Sequences(5, 3, 0, (0, 0, 0)); // offset 5
        byte[] recent = ZstdFrameBuilder.Sequences(1, 0, 0, (0, 0, 0)); // value 1: the newest
        ZstdJudge.Decodes(
            ZstdFrameBuilder.Windowed().CompressedBlock(literals, copy).RawBlock(_hello).CompressedBlock(
                ZstdFrameBuilder.Literals((byte)'?'), recent).Done(),
            "hellohelhello?ell"u8[..17],
            "an offset of the block before");
        byte[] none = ZstdFrameBuilder.Sequences(0, 1, 0, (1, 0, 0)); // value 3 without literals: 1 − 1
        ZstdJudge.Agrees(
            ZstdFrameBuilder.Windowed().RawBlock(_hello).CompressedBlock(ZstdFrameBuilder.Literals(), none).Done(), 8, "offset 0");
    }

    [Theory]
    [InlineData("", 0xEF46DB3751D8E999)]
    [InlineData("a", 0xD24EC4F1A98C6E5B)]
    [InlineData("abc", 0x44BC2CF5AD770999)]
    public void The_checksums_made_here_are_those_of_xxh64(string text, ulong hash)
        => Assert.Equal(hash, XxHash64.Hash(Encoding.ASCII.GetBytes(text)));
}
