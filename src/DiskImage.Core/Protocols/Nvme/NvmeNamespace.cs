using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Nvme;

/// <summary>A controller, as it says itself. Spec: NVM Express Base 2.0, section 5.17.2.1.</summary>
internal sealed record NvmeIdentity
{
    /// <summary>Bytes of what controllers and namespaces say of themselves.</summary>
    public const int Size = 4096;

    private const int QueueSizesAt = 512, OptionalAt = 520, CacheAt = 525, TransferAt = 77;

    /// <summary>Bytes of one transfer at most; null if it does not say.</summary>
    public long? MostTransfer { get; private init; }

    /// <summary>Write Zeroes is understood.</summary>
    public bool TakesZeroes { get; private init; }

    /// <summary>Dataset Management is understood.</summary>
    public bool TakesDiscards { get; private init; }

    /// <summary>What is written may be in a cache that does not survive a power cut.</summary>
    public bool HasCache { get; private init; }

    /// <summary>Reads it.</summary>
    /// <exception cref="DiskImageException">Unsupported: its queues have other entries than all have.</exception>
    public static NvmeIdentity Parse(string name, ReadOnlySpan<byte> data)
    {
        (byte submission, byte completion, byte transfer) = (data[QueueSizesAt], data[QueueSizesAt + 1], data[TransferAt]);
        if ((submission & 15) > NvmeQueue.SubmissionShift || (completion & 15) > NvmeQueue.CompletionShift)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{name}: the controller's queues have entries of {1 << (submission & 15)} and {1 << (completion & 15)} bytes at least. "
                    + "Supported: 64 and 16.",
                name);
        }
        ushort optional = BinaryPrimitives.ReadUInt16LittleEndian(data[OptionalAt..]);
        return new NvmeIdentity
        {
            MostTransfer = transfer is > 0 and < 40 ? (long)NvmeQueue.PageSize << transfer : null,
            TakesDiscards = (optional & 4) != 0,
            TakesZeroes = (optional & 8) != 0,
            HasCache = (data[CacheAt] & 1) != 0,
        };
    }
}

/// <summary>A namespace, as its controller says. Spec: NVM Command Set 1.0, section 4.1.5.1.</summary>
/// <param name="Number">Which.</param>
/// <param name="Blocks">Blocks that it has.</param>
/// <param name="BlockSize">Bytes of each.</param>
internal sealed record NvmeNamespace(uint Number, long Blocks, int BlockSize)
{
    private const int LastFormatAt = 25, FormatAt = 26, ProtectionAt = 29, DeallocateAt = 33, AttributesAt = 99, FormatsAt = 128;
    private const int MostFormats = 64, LeastShift = 9, MostShift = 12;

    /// <summary>It takes no changes.</summary>
    public bool IsReadOnly { get; private init; }

    /// <summary>Blocks that were given back read as zeroes.</summary>
    public bool ReadsZeroes { get; private init; }

    /// <summary>Write Zeroes may give blocks back.</summary>
    public bool ZeroesMayDiscard { get; private init; }

    /// <summary>Bytes.</summary>
    public long Length => Blocks * BlockSize;

    /// <summary>Reads it.</summary>
    /// <returns>Null if it has no blocks: it is not active.</returns>
    /// <exception cref="DiskImageException">Unsupported: metadata, protection information, or blocks of a size that is not had;
    /// Corrupt: it contradicts itself.</exception>
    public static NvmeNamespace? Parse(string name, uint number, ReadOnlySpan<byte> data)
    {
        ulong blocks = BinaryPrimitives.ReadUInt64LittleEndian(data);
        if (blocks == 0)
        {
            return null;
        }
        int last = data[LastFormatAt], format = data[FormatAt] & 15;
        format |= last >= 16 ? (data[FormatAt] & 0x60) >> 1 : 0;
        if (format > last || last >= MostFormats)
        {
            throw Wrong(DiskImageErrorKind.Corrupt, $"the namespace says that it has format {format} of formats 0 to {last}");
        }
        ReadOnlySpan<byte> formatted = data[(FormatsAt + (4 * format))..];
        int metadata = BinaryPrimitives.ReadUInt16LittleEndian(formatted), shift = formatted[2];
        if (metadata != 0)
        {
            throw Wrong(
                DiskImageErrorKind.Unsupported,
                $"the namespace is formatted with {metadata} bytes of metadata for each block. Supported: formats without; nvme format "
                    + "changes it, and erases it");
        }
        if ((data[ProtectionAt] & 7) != 0)
        {
            throw Wrong(
                DiskImageErrorKind.Unsupported,
                $"the namespace is formatted with protection information of type {data[ProtectionAt] & 7}. Supported: formats without");
        }
        if (shift is < LeastShift or > MostShift)
        {
            throw Wrong(
                DiskImageErrorKind.Unsupported, $"the namespace has blocks of 2^{shift} bytes. Supported: 512 to 4,096 (2^9 to 2^12)");
        }
        if (blocks > (ulong)(long.MaxValue >> shift) - (1UL << 20))
        {
            throw Wrong(
                DiskImageErrorKind.Corrupt,
                $"the namespace says that it has {blocks:#,0} blocks of {1 << shift:#,0} bytes, which is more than can be addressed");
        }
        return new NvmeNamespace(number, (long)blocks, 1 << shift)
        {
            IsReadOnly = (data[AttributesAt] & 1) != 0,
            ReadsZeroes = (data[DeallocateAt] & 7) == 1,
            ZeroesMayDiscard = (data[DeallocateAt] & 8) != 0,
        };

        DiskImageException Wrong(DiskImageErrorKind kind, Wording what) => new(kind, $"{name}: {what}.", name);
    }

    /// <summary>The numbers of namespaces in a list of them. Spec: NVM Express Base 2.0, section 5.17.2.2.</summary>
    public static IReadOnlyList<uint> List(ReadOnlySpan<byte> data)
    {
        var numbers = new List<uint>();
        while (data.Length >= sizeof(uint) && BinaryPrimitives.ReadUInt32LittleEndian(data) is > 0 and var number)
        {
            numbers.Add(number);
            data = data[sizeof(uint)..];
        }
        return numbers;
    }
}
