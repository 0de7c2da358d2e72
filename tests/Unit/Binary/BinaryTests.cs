using DiskImage.Binary;
using FsCheck;
using FsCheck.Fluent;

namespace DiskImage.Tests.Binary;

public sealed class BinaryTests
{
    private static readonly Arbitrary<(long Value, int Bits)> s_valueAndUnit = Arb.From(
        from value in ArbMap.Default.GeneratorFor<long>()
        from shift in Gen.Choose(0, 62)
        from bits in Gen.Choose(0, 40)
        select ((value & long.MaxValue) >> shift, bits));

    [Fact]
    public void Rounding_finds_the_nearest_multiples()
        => Prop.ForAll(s_valueAndUnit, pair =>
        {
            long unit = 1L << pair.Bits, down = Round.Down(pair.Value, unit);
            bool units = Round.Units(pair.Value, unit) == (pair.Value / unit) + (pair.Value % unit == 0 ? 0 : 1);
            if (pair.Value > long.MaxValue - unit)
            {
                return down % unit == 0 && pair.Value - down < unit && units;
            }
            long up = Round.Up(pair.Value, unit);
            return down % unit == 0 && up % unit == 0 && down <= pair.Value && pair.Value <= up && pair.Value - down < unit
                && up - pair.Value < unit && units;
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void Rounding_up_past_the_end_of_numbers_throws()
    {
        Assert.Throws<OverflowException>(() => Round.Up(long.MaxValue - 1, 4096));
        Assert.Equal(1L << 51, Round.Units(long.MaxValue, 4096));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(64)]
    [InlineData(512)]
    [InlineData(4096)]
    public void Runs_of_zeroes_and_data_are_those_of_a_plain_loop(int block)
    {
        var random = new Random(block);
        for (int attempt = 0; attempt < 300; attempt++)
        {
            byte[] bytes = new byte[random.Next(1, 20_000)];
            for (int i = random.Next(0, 6); i > 0; i--)
            {
                bytes[random.Next(bytes.Length)] = 1;
            }
            if (random.Next(4) == 0)
            {
                bytes.AsSpan(0, random.Next(bytes.Length)).Fill(7);
            }
            bool first = IsZero(0);
            int expected = 0;
            while (expected < bytes.Length && IsZero(expected) == first)
            {
                expected = Math.Min(expected + block, bytes.Length);
            }
            int run = ZeroDetection.Run(bytes, block, out bool isZero);
            Assert.True(first == isZero && expected == run, $"attempt {attempt}: {run} {isZero}, not {expected} {first}");

            bool IsZero(int at) => bytes.Skip(at).Take(block).All(b => b == 0);
        }
    }

    [Fact]
    public void One_byte_anywhere_is_not_zero()
    {
        byte[] bytes = new byte[300];
        Assert.True(ZeroDetection.IsZero(bytes));
        Assert.True(ZeroDetection.IsZero([]));
        for (int i = 0; i < bytes.Length; i++)
        {
            bytes[i] = 1;
            Assert.False(ZeroDetection.IsZero(bytes));
            bytes[i] = 0;
        }
    }

    [Fact]
    public void Fields_are_big_endian()
    {
        byte[] bytes = new byte[16];
        BigEndian.U16(bytes, 1, 0x0102);
        BigEndian.U32(bytes, 3, 0x03040506);
        BigEndian.U64(bytes, 7, 0x0708090A0B0C0D0E);
        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0], bytes);
        Assert.Equal(0x0102, BigEndian.U16(bytes, 1));
        Assert.Equal(0x03040506u, BigEndian.U32(bytes, 3));
        Assert.Equal(0x0708090A0B0C0D0Eu, BigEndian.U64(bytes, 7));
    }
}
