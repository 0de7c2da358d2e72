using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using DiskImage.Block;

namespace DiskImage.Crypto;

/// <summary>Sectors under a block cipher in one of the modes that disks use.</summary>
/// <remarks>
/// <para>Every mode is made of long requests to the block cipher, since the platform's takes a microsecond to begin with one, so that it
/// pays to work on many sectors at once. XTS (IEEE 1619): the sectors' tweaks are encrypted together, each is spread over its
/// sector by doubling in GF(2^128), and what is to be added before and after is one stream as long as the data. CBC encrypts one block of
/// every sector at a time; it decrypts all at once.</para>
/// <para>The numbers that vectors are made of count units of 512 bytes, whatever the sector. Spec: cryptsetup, LUKS2, "iv_tweak".</para>
/// </remarks>
internal sealed class SectorCipher : ISectorCipher
{
    private const int Unit = 512; // of the sectors' numbers
    private const int Batch = 32 << 10; // bytes at a time: with the stream they fit the first caches. Ours

    private readonly CipherMode _mode;
    private readonly IBlockCipher _data;
    private readonly IBlockCipher? _tweak;
    private readonly IvGenerator? _iv;
    private readonly long _first;

    /// <summary>Makes the cipher; what it gets is its own.</summary>
    /// <param name="mode">The mode.</param>
    /// <param name="data">Encrypts the data.</param>
    /// <param name="tweak">Encrypts the tweaks of XTS.</param>
    /// <param name="iv">Makes the vectors; null for ECB.</param>
    /// <param name="sectorSize">Bytes of a sector.</param>
    /// <param name="isByPlace">See <see cref="ISectorCipher.IsByPlace"/>.</param>
    /// <param name="first">The number of the sector at offset 0, in units of 512 bytes.</param>
    public SectorCipher(
        CipherMode mode, IBlockCipher data, IBlockCipher? tweak, IvGenerator? iv, int sectorSize, bool isByPlace, long first)
    {
        (_mode, _data, _tweak, _iv, SectorSize, IsByPlace, _first) = (mode, data, tweak, iv, sectorSize, isByPlace, first);
    }

    public int SectorSize { get; }

    public bool IsByPlace { get; }

    public void Encrypt(Span<byte> data, long offset) => Run(data, offset, encrypt: true);

    public void Decrypt(Span<byte> data, long offset) => Run(data, offset, encrypt: false);

    public void Dispose()
    {
        _data.Dispose();
        _tweak?.Dispose();
        _iv?.Dispose();
    }

    private void Run(Span<byte> data, long offset, bool encrypt)
    {
        int block = _data.BlockSize, batch = Math.Max(Batch, SectorSize), perBatch = batch / SectorSize;
        byte[] rented = ArrayPool<byte>.Shared.Rent(batch + (perBatch * block * 2));
        try
        {
            while (!data.IsEmpty)
            {
                Span<byte> part = data[..Math.Min(batch, data.Length)];
                int sectors = part.Length / SectorSize;
                Span<byte> stream = rented.AsSpan(0, part.Length);
                Span<byte> vectors = rented.AsSpan(batch, sectors * block);
                _iv?.Fill(vectors, block, _first + (offset / Unit), SectorSize / Unit);
                RunBatch(part, vectors, stream, rented.AsSpan(batch + (perBatch * block), sectors * block), encrypt);
                data = data[part.Length..];
                offset += part.Length;
            }
        }
        finally
        {
            rented.AsSpan(0, batch + (perBatch * block * 2)).Clear();
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private void RunBatch(Span<byte> data, Span<byte> vectors, Span<byte> stream, Span<byte> column, bool encrypt)
    {
        switch (_mode)
        {
            case CipherMode.Xts:
                _tweak!.Encrypt(vectors, vectors);
                SpreadTweaks(vectors, stream);
                Xor.Into(data, stream);
                Whole(data, encrypt);
                Xor.Into(data, stream);
                break;
            case CipherMode.Ctr:
                SpreadCounters(vectors, stream);
                _data.Encrypt(stream, stream);
                Xor.Into(data, stream);
                break;
            case CipherMode.Cbc when encrypt:
                EncryptChained(data, vectors, column);
                break;
            case CipherMode.Cbc:
                SpreadChain(data, vectors, stream);
                _data.Decrypt(data, data);
                Xor.Into(data, stream);
                break;
            default:
                Whole(data, encrypt);
                break;
        }
    }

    private void Whole(Span<byte> data, bool encrypt)
    {
        if (encrypt)
        {
            _data.Encrypt(data, data);
        }
        else
        {
            _data.Decrypt(data, data);
        }
    }

    /// <summary>The tweak of each block: a sector's first is its vector, each next one twice the one before in GF(2^128).</summary>
    private void SpreadTweaks(ReadOnlySpan<byte> vectors, Span<byte> stream)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(stream);
        int perSector = SectorSize / sizeof(ulong);
        for (int sector = 0; sector * SectorSize < stream.Length; sector++)
        {
            ulong low = BinaryPrimitives.ReadUInt64LittleEndian(vectors[(sector * 16)..]);
            ulong high = BinaryPrimitives.ReadUInt64LittleEndian(vectors[((sector * 16) + 8)..]);
            Span<ulong> target = words.Slice(sector * perSector, perSector);
            for (int i = 0; i + 1 < target.Length; i += 2)
            {
                (target[i], target[i + 1]) = (Little(low), Little(high));
                ulong carry = (ulong)((long)high >> 63) & 0x87;
                high = (high << 1) | (low >> 63);
                low = (low << 1) ^ carry;
            }
        }
    }

    private static ulong Little(ulong value) => BitConverter.IsLittleEndian ? value : BinaryPrimitives.ReverseEndianness(value);

    /// <summary>The counter of each block: a sector's first is its vector, each next one is one more, in big endian.</summary>
    private void SpreadCounters(Span<byte> vectors, Span<byte> stream)
    {
        int block = _data.BlockSize;
        for (int sector = 0; sector * SectorSize < stream.Length; sector++)
        {
            Span<byte> counter = vectors.Slice(sector * block, block);
            for (int at = 0; at < SectorSize; at += block)
            {
                counter.CopyTo(stream[((sector * SectorSize) + at)..]);
                for (int i = block - 1; i >= 0 && ++counter[i] == 0; i--)
                {
                }
            }
        }
    }

    /// <summary>What each block is mixed with: a sector's first with its vector, each next one with the encrypted one before.</summary>
    private void SpreadChain(ReadOnlySpan<byte> data, ReadOnlySpan<byte> vectors, Span<byte> stream)
    {
        int block = _data.BlockSize;
        for (int start = 0; start < data.Length; start += SectorSize)
        {
            vectors.Slice(start / SectorSize * block, block).CopyTo(stream[start..]);
            data.Slice(start, SectorSize - block).CopyTo(stream[(start + block)..]);
        }
    }

    /// <summary>Encrypts the same block of every sector at a time.</summary>
    private void EncryptChained(Span<byte> data, Span<byte> before, Span<byte> column)
    {
        int block = _data.BlockSize;
        for (int at = 0; at < SectorSize; at += block)
        {
            for (int i = 0, start = at; start < data.Length; i += block, start += SectorSize)
            {
                data.Slice(start, block).CopyTo(column[i..]);
            }
            Xor.Into(column, before);
            _data.Encrypt(column, before);
            for (int i = 0, start = at; start < data.Length; i += block, start += SectorSize)
            {
                before.Slice(i, block).CopyTo(data[start..]);
            }
        }
    }
}
