using DiskImage.Formats.Qcow2;
using DiskImage.Metadata;
using FsCheck;
using FsCheck.Fluent;

namespace DiskImage.Tests.Formats.Qcow2;

public sealed class EntryTests
{
    /// <summary>Spec: the field of additional sectors is as wide as the cluster needs; the offset takes the rest.</summary>
    [Fact]
    public void A_compressed_descriptor_covers_exactly_the_sectors_of_its_bytes()
        => Prop.ForAll(
            Arb.From(
                from bits in Gen.Choose(9, 21)
                from high in Gen.Choose(0, int.MaxValue)
                from low in Gen.Choose(0, 1 << 20)
                from length in Gen.Choose(1, (1 << bits) - 1)
                select (bits, offset: (((long)high << 20) + low) & ((1L << (62 - (bits - 8))) - 1), length)),
            given =>
            {
                var entry = L2Entry.Compressed(new(given.offset), given.length, given.bits);
                (HostOffset place, int most) = entry.CompressedRange(given.bits);
                return entry.IsCompressed && !entry.IsCopied && place.Value == given.offset
                    && most >= given.length && most - given.length < 512 && (place.Value + most) % 512 == 0
                    && entry.KindOf(0, extended: false) == ClusterKind.Compressed;
            }).QuickCheckThrowOnFailure();

    [Fact]
    public void Plain_entries_say_what_they_were_made_of()
    {
        Assert.Equal(ClusterKind.Unallocated, default(L2Entry).KindOf(0, extended: false));
        Assert.Equal(ClusterKind.Zero, L2Entry.Zero(null, extended: false).KindOf(0, extended: false));
        Assert.False(L2Entry.Zero(null, extended: false).HasPlace);
        var reserved = L2Entry.Zero(new HostOffset(65536), extended: false);
        Assert.Equal((ClusterKind.Zero, 65536L, true), (reserved.KindOf(0, extended: false), reserved.Place.Value, reserved.IsCopied));
        var normal = L2Entry.Normal(new(1L << 50), 0);
        Assert.Equal((ClusterKind.Normal, 1L << 50, true), (normal.KindOf(0, extended: false), normal.Place.Value, normal.IsCopied));
        Assert.False(normal.WithCopied(false).IsCopied);
        Assert.Equal(normal, normal.WithCopied(false).WithCopied(true));
        Assert.Equal(1, normal.RunOf(0, extended: false));
    }

    [Fact]
    public void Subclusters_are_told_apart_bit_by_bit()
        => Prop.ForAll(ArbMap.Default.ArbFor<ulong>(), Arb.From(Gen.Choose(0, 31)), (bitmap, index) =>
        {
            var entry = L2Entry.Normal(new(65536), bitmap);
            ClusterKind kind = Kind(index);
            int run = 1;
            while (index + run < 32 && Kind(index + run) == kind)
            {
                run++;
            }
            return entry.KindOf(index, extended: true) == kind && entry.RunOf(index, extended: true) == run;

            ClusterKind Kind(int i) => (bitmap >> (32 + i) & 1) != 0 ? ClusterKind.Zero : (bitmap >> i & 1) != 0 ? ClusterKind.Normal
                : ClusterKind.Unallocated;
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void Changing_subclusters_changes_no_other()
        => Prop.ForAll(ArbMap.Default.ArbFor<ulong>(), Arb.From(Gen.Choose(0, 31)), Arb.From(Gen.Choose(1, 32)), (bitmap, first, count) =>
        {
            var entry = L2Entry.Normal(new(65536), bitmap);
            int end = Math.Min(first + count, 32);
            return All(entry.BitmapWithData(first, end), ClusterKind.Normal)
                && All(entry.BitmapWithZeroes(first, end), ClusterKind.Zero)
                && All(entry.BitmapWithout(first, end), ClusterKind.Unallocated);

            bool All(ulong changed, ClusterKind kind) => Enumerable.Range(0, 32).All(i =>
                (entry with { Bitmap = changed }).KindOf(i, extended: true) == (i >= first && i < end
                    ? kind
                    : entry.KindOf(i, extended: true)));
        }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void Refcounts_of_every_width_are_kept_apart(int order)
    {
        const int Bytes = 512;
        int count = Bytes * 8 >> order;
        ulong most = order == 6 ? ulong.MaxValue : (1UL << (1 << order)) - 1;
        var random = new Random(order);
        byte[] block = new byte[Bytes];
        ulong[] plain = new ulong[count];
        for (int i = 0; i < 4000; i++)
        {
            int index = random.Next(count);
            ulong value = random.Next(3) switch { 0 => 0, 1 => most, _ => (ulong)random.NextInt64() & most };
            byte[] before = (byte[])block.Clone();
            (int start, int length) = RefcountBlock.Set(block, index, order, value);
            plain[index] = value;
            Assert.Equal(value, RefcountBlock.Get(block, index, order));
            before.AsSpan(start, length).Clear();
            byte[] after = (byte[])block.Clone();
            after.AsSpan(start, length).Clear();
            Assert.Equal(before, after); // what it says was changed is all that was
            int from = random.Next(count), end = random.Next(from, count + 1);
            Assert.Equal(Find(from, end, v => v == 0), RefcountBlock.NextFree(block, from, end, order));
            Assert.Equal(Find(from, end, v => v != 0), RefcountBlock.NextUsed(block, from, end, order));
        }
        Assert.Equal(plain, Enumerable.Range(0, count).Select(i => RefcountBlock.Get(block, i, order)));

        int Find(int from, int end, Func<ulong, bool> wanted)
        {
            while (from < end && !wanted(plain[from]))
            {
                from++;
            }
            return from;
        }
    }

    /// <summary>Spec: below a byte, refcounts begin at the least significant bit; above, they are big-endian.</summary>
    [Fact]
    public void Refcounts_lie_where_the_specification_says()
    {
        byte[] block = [0b_1000_0001, 0x12, 0, 0, 0, 0, 0, 0];
        Assert.Equal([1ul, 0, 0, 0, 0, 0, 0, 1], Enumerable.Range(0, 8).Select(i => RefcountBlock.Get(block, i, 0)));
        Assert.Equal([1ul, 0, 0, 2], Enumerable.Range(0, 4).Select(i => RefcountBlock.Get(block, i, 1)));
        Assert.Equal([1ul, 8, 2, 1], Enumerable.Range(0, 4).Select(i => RefcountBlock.Get(block, i, 2)));
        Assert.Equal(0x12ul, RefcountBlock.Get(block, 1, 3));
        Assert.Equal(0x8112ul, RefcountBlock.Get(block, 0, 4));
        Assert.Equal(0x81120000ul, RefcountBlock.Get(block, 0, 5));
        Assert.Equal(0x8112000000000000ul, RefcountBlock.Get(block, 0, 6));
    }
}
