using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Block;

/// <summary>The place for a cipher between a disk and its places, with a format and a cipher that are made for it.</summary>
public sealed class FormatCipherTests
{
    private const int Unit = 4096, Length = 64 * Unit;

    [Theory]
    [InlineData(false, 512)]
    [InlineData(true, 512)]
    [InlineData(true, 4096)]
    public async Task What_is_stored_is_encoded_and_what_is_read_decoded(bool isByPlace, int sector)
    {
        var random = new Random(1);
        byte[] below = new byte[Length], model = new byte[Length];
        random.NextBytes(below);
        below.CopyTo(model, 0);
        var file = new MemoryNode();
        using var cipher = new MarkingCipher(sector, isByPlace);
        await using var disk = new UnitDisk(file, new MemoryNode(below, readOnly: true), cipher);
        for (int i = 0; i < 200; i++)
        {
            int offset = random.Next(Length - 1), count = random.Next(1, Math.Min(Length - offset, 20_000));
            if (i % 5 == 4)
            {
                model.AsSpan(offset, count).Clear();
                await disk.WriteZeroesAsync(offset, count);
            }
            else
            {
                random.NextBytes(model.AsSpan(offset, count));
                byte[] given = model.AsSpan(offset, count).ToArray();
                await disk.WriteAsync(offset, given);
                Assert.True(given.AsSpan().SequenceEqual(model.AsSpan(offset, count)), "the caller's bytes stay as they are");
            }
            byte[] part = new byte[Math.Min(5000, Length - offset)];
            await disk.ReadAsync(offset, part);
            Assert.True(part.AsSpan().SequenceEqual(model.AsSpan(offset, part.Length)), $"request {i}");
        }
        byte[] read = new byte[Length];
        await disk.ReadAsync(0, read);
        Assert.Equal(model, read);

        // what lies in the file is the encoded form of it, by the offset that was promised
        byte[] stored = file.ToArray();
        foreach ((long offset, long host) in disk.Places)
        {
            byte[] unit = stored[(int)host..(int)(host + Unit)];
            Assert.False(unit.AsSpan().SequenceEqual(model.AsSpan((int)offset, Unit)));
            cipher.Decrypt(unit, isByPlace ? host : offset);
            Assert.True(unit.AsSpan().SequenceEqual(model.AsSpan((int)offset, Unit)), $"at {offset}");
        }
        Assert.NotEmpty(disk.Places);
    }

    [Fact]
    public async Task No_extent_of_encoded_data_tells_a_host_offset()
    {
        using var cipher = new MarkingCipher(512, isByPlace: true);
        await using var disk = new UnitDisk(new MemoryNode(), null, cipher);
        await disk.WriteAsync(Unit, new byte[] { 1, 2, 3 });
        BlockExtent extent = await disk.GetExtentAsync(Unit, Unit);
        Assert.True(extent.IsData);
        Assert.Null(extent.HostOffset);
        Assert.Null(extent.Node);
        Assert.True((await disk.GetExtentAsync(0, Unit)).IsZero); // nothing is there, so nothing is decoded
    }

    [Fact]
    public async Task A_cipher_that_fails_leaves_the_disk_as_it_was()
    {
        using var cipher = new MarkingCipher(512, isByPlace: false);
        await using var disk = new UnitDisk(new MemoryNode(), null, cipher);
        await disk.WriteAsync(0, new byte[] { 9 });
        cipher.Fails = true;
        await Assert.ThrowsAsync<DiskImageException>(() => disk.WriteAsync(Unit, new byte[Unit]).AsTask());
        Assert.Equal(1, disk.Abandoned);
        cipher.Fails = false;
        byte[] read = new byte[2];
        await disk.ReadAsync(0, read);
        Assert.Equal([9, 0], read);
        Assert.True((await disk.GetExtentAsync(Unit, Unit)).IsZero);
    }

    /// <summary>Adds the sector's number and a constant to each byte; it refuses what is no whole sectors.</summary>
    private sealed class MarkingCipher(int sector, bool isByPlace) : ISectorCipher
    {
        public bool Fails { get; set; }

        public int SectorSize => sector;

        public bool IsByPlace => isByPlace;

        public void Encrypt(Span<byte> data, long offset) => Add(data, offset, 1);

        public void Decrypt(Span<byte> data, long offset) => Add(data, offset, -1);

        public void Dispose()
        {
        }

        private void Add(Span<byte> data, long offset, int sign)
        {
            if (Fails)
            {
                throw new DiskImageException(DiskImageErrorKind.Io, "told to fail");
            }
            Assert.Equal((0L, 0L), (offset % sector, data.Length % sector));
            for (int i = 0; i < data.Length; i++)
            {
                data[i] = (byte)(data[i] + (sign * (17 + ((offset + i) / sector))));
            }
        }
    }

    /// <summary>A format that gives each unit the next place at the end of its file.</summary>
    private sealed class UnitDisk(MemoryNode file, BlockNode? backing, ISectorCipher cipher) : FormatNode(file, backing)
    {
        public SortedDictionary<long, long> Places { get; } = [];

        public int Abandoned { get; private set; }

        public override long Length => FormatCipherTests.Length;

        public override bool IsReadOnly => false;

        protected override int AllocationUnit => Unit;

        protected override ISectorCipher? Cipher => cipher;

        private long _end = 3 * Unit;

        protected override ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
        {
            long start = offset / Unit * Unit;
            lock (Places)
            {
                return new(Places.TryGetValue(start, out long host)
                    ? new BlockExtent(offset, start + Unit - offset, BlockStatus.Allocated | BlockStatus.Data, File, host + offset - start)
                    : new BlockExtent(offset, start + Unit - offset, BlockStatus.None));
            }
        }

        protected override ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
        {
            long start = offset / Unit * Unit, part = Math.Min(length, start + Unit - offset);
            lock (Places)
            {
                if (Places.TryGetValue(start, out long host))
                {
                    return new(WriteMapping.InPlace(offset, part, File, host + offset - start));
                }
                host = _end;
                _end += Unit;
                return new(new WriteMapping(offset, part, File, host + offset - start, true, start, start + Unit, HostReadsZero: true));
            }
        }

        protected override ValueTask CommitMappingAsync(WriteMapping mapping)
        {
            lock (Places)
            {
                Places.Add(mapping.CopyStart, mapping.HostStart);
            }
            return default;
        }

        protected override ValueTask AbandonMappingAsync(WriteMapping mapping)
        {
            Abandoned++;
            return default;
        }
    }
}
