using System.Globalization;
using DiskImage.Block;
using DiskImage.Crypto.Luks;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Qcow2;

/// <summary>What a discard request does.</summary>
internal enum Qcow2DiscardMode
{
    /// <summary>Clusters become free in the image; the host file keeps its space.</summary>
    Ignore,

    /// <summary>Clusters become free, and the host gets the space back.</summary>
    Unmap,
}

/// <summary>
/// Which of the image's structures are looked up before each write, so that a damaged table cannot have them overwritten.
/// </summary>
internal enum Qcow2OverlapCheck
{
    /// <summary>None: a damaged image is damaged further.</summary>
    None,

    /// <summary>Those that lie in one place: header, refcount table, active L1 table, snapshot table, bitmap directory.</summary>
    Constant,

    /// <summary>Those, the refcount blocks, the active L2 tables, the bitmaps' tables and the L1 tables of snapshots.</summary>
    Cached,

    /// <summary>All of them, also the L2 tables that only snapshots have; these are looked up when the image is opened.</summary>
    All,
}

/// <summary>What a cluster reads as that the tables say to be past the end of its file.</summary>
internal enum Qcow2MissingClusters
{
    /// <summary>Reading it is an error.</summary>
    Error,

    /// <summary>Zeroes, as QEMU has it.</summary>
    Zero,
}

/// <summary>How an image's data is encrypted.</summary>
internal enum Qcow2EncryptionFormat
{
    /// <summary>With a LUKS header inside the image.</summary>
    Luks,

    /// <summary>QEMU's old way, which is weak.</summary>
    Aes,
}

/// <summary>Options when a qcow2 image is opened.</summary>
internal sealed record Qcow2OpenOptions
{
    private const long DefaultTables = 32 << 20, DefaultRefcounts = 4 << 20; // the former QEMU's

    /// <summary>Memory for L2 tables.</summary>
    [DriverOption("l2-cache-size", "Most bytes of L2 tables kept in memory; 32M if not given", IsSize = true, Minimum = 0)]
    public long? L2CacheSize { get; init; }

    /// <summary>Memory for refcount blocks.</summary>
    [DriverOption("refcount-cache-size", "Most bytes of refcount blocks kept in memory; 4M if not given", IsSize = true, Minimum = 0)]
    public long? RefcountCacheSize { get; init; }

    /// <summary>Memory for both; null for the sum of them.</summary>
    [DriverOption("cache-size", "Most bytes of L2 tables and refcount blocks kept in memory, together", IsSize = true, Minimum = 0)]
    public long? CacheSize { get; init; }

    /// <summary>What is read of L2 tables at once.</summary>
    [DriverOption("l2-cache-entry-size", "Taken for the sake of descriptions made for QEMU: whole L2 tables are read", IsSize = true,
        Minimum = 512, Maximum = 2 << 20, PowerOfTwo = true)]
    public long? L2CacheEntrySize { get; init; }

    /// <summary>How long what is not used stays.</summary>
    [DriverOption("cache-clean-interval", "Taken for the sake of descriptions made for QEMU: tables leave memory for others", Minimum = 0)]
    public long CacheCleanInterval { get; init; }

    /// <summary>What a discard request does.</summary>
    [DriverOption("discard", "What discarding does to the host file: ignore keeps its space, unmap gives it back")]
    public Qcow2DiscardMode Discard { get; init; } = Qcow2DiscardMode.Unmap;

    /// <summary>Refcounts may stay behind while the image is open; null to do as the image says.</summary>
    [DriverOption("lazy-refcounts", "Write refcounts only when the image is closed: quicker flushes, a repair after a crash;"
        + " as the image says if not given")]
    public bool? LazyRefcounts { get; init; }

    /// <summary>What a cluster reads as that the tables say to be past the end of its file.</summary>
    [DriverOption("missing-clusters", "What reads as a cluster past the end of its file, as in a copy that was cut short: error,"
        + " or zero as QEMU does")]
    public Qcow2MissingClusters MissingClusters { get; init; }

    /// <summary>How the data is encrypted.</summary>
    [DriverOption("encrypt.format", "How the data is encrypted, luks or aes; as the image says if not given")]
    public Qcow2EncryptionFormat? EncryptFormat { get; init; }

    /// <summary>What its LUKS header is opened with.</summary>
    [DriverOptionGroup("encrypt.")]
    public LuksOpening Encrypt { get; init; } = new();

    /// <summary>Bytes for L2 tables and for refcount blocks. Of a sum, tables get what refcount blocks do not need.</summary>
    /// <exception cref="DiskImageException">InvalidOption: the parts are more than the sum, or all three are given.</exception>
    internal (long Tables, long Refcounts) Caches() => (CacheSize, L2CacheSize, RefcountCacheSize) switch
    {
        (null, _, _) => (L2CacheSize ?? DefaultTables, RefcountCacheSize ?? DefaultRefcounts),
        (long sum, null, null) => (sum - Math.Min(DefaultRefcounts, sum / 2), Math.Min(DefaultRefcounts, sum / 2)),
        (long sum, long tables, null) when tables <= sum => (tables, sum - tables),
        (long sum, null, long refcounts) when refcounts <= sum => (sum - refcounts, refcounts),
        _ => throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"The options cache-size ({CacheSize}), l2-cache-size ({Said(L2CacheSize)}) and refcount-cache-size "
                + $"({Said(RefcountCacheSize)}) do not go together. Give two of them at most, cache-size being the sum of both."),
    };

    private static string Said(long? bytes) => bytes is null ? "not given" : bytes.Value.ToString(CultureInfo.InvariantCulture);

    /// <summary>What no write may land on.</summary>
    [DriverOption("overlap-check", "Structures that no write may land on: none, constant (those in one place),"
        + " cached (also active tables), all (also those of snapshots)")]
    public Qcow2OverlapCheck OverlapCheck { get; init; } = Qcow2OverlapCheck.Cached; // QEMU's default
}

/// <summary>Options when a qcow2 image is made. Names and defaults are QEMU's.</summary>
internal sealed record Qcow2CreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>The version of the format.</summary>
    [DriverOption("compat", "Format version: 0.10 (v2) for very old readers, 1.1 (v3) for every feature")]
    public Qcow2Compat Compat { get; init; } = Qcow2Compat.V3;

    /// <inheritdoc/>
    [DriverOption("backing_file", "Image whose contents show through where this one holds nothing")]
    public string? BackingFile { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_fmt", "Format of the backing image")]
    public string? BackingFormat { get; init; }

    /// <summary>Bytes per cluster.</summary>
    [DriverOption("cluster_size", "Bytes that are allocated together", IsSize = true, Minimum = 512, Maximum = 2 << 20, PowerOfTwo = true)]
    public long ClusterSize { get; init; } = 65536;

    /// <summary>Space claimed ahead of its use.</summary>
    [DriverOption("preallocation", "Space claimed ahead: off, metadata (tables), falloc (reserved), full (written)")]
    public PreallocationMode Preallocation { get; init; }

    /// <summary>Refcount updates may be postponed by QEMU.</summary>
    [DriverOption("lazy_refcounts", "Postpone refcount updates: quicker writes, a check after a crash")]
    public bool LazyRefcounts { get; init; }

    /// <summary>Bits of a refcount.</summary>
    [DriverOption("refcount_bits", "Bits of a cluster's reference count:"
        + " 2^bits - 1 snapshots can share it", Minimum = 1, Maximum = 64, PowerOfTwo = true)]
    public int RefcountBits { get; init; } = 16;

    /// <summary>Subclusters.</summary>
    [DriverOption("extended_l2", "32 subclusters per cluster: less copying for small writes; clusters of 16k or more")]
    public bool ExtendedL2 { get; init; }

    /// <summary>How compressed clusters are compressed.</summary>
    [DriverOption("compression_type", "How compressed clusters are compressed")]
    public Qcow2CompressionType CompressionType { get; init; }

    /// <summary>The external data file.</summary>
    [DriverOption("data_file", "Another file that is to hold the disk's data")]
    public string? DataFile { get; init; }

    /// <summary>The external data file is a raw image.</summary>
    [DriverOption("data_file_raw", "The external data file can be read as a raw image of the disk")]
    public bool DataFileRaw { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }

    /// <summary>The old option.</summary>
    [DriverOption("encryption", "The old way to say encrypt.format=aes")]
    public bool Encryption { get; init; }

    /// <summary>How the data is to be encrypted.</summary>
    [DriverOption("encrypt.format", "Encrypt the data: luks, or aes as old QEMU did, which is weak")]
    public Qcow2EncryptionFormat? EncryptFormat { get; init; }

    /// <summary>What its LUKS header is made with.</summary>
    [DriverOptionGroup("encrypt.")]
    public LuksParameters Encrypt { get; init; } = new();

    /// <summary>How the data is to be encrypted; null for not at all.</summary>
    public Qcow2EncryptionFormat? WantedEncryption => EncryptFormat ?? (Encryption ? Qcow2EncryptionFormat.Aes : null);

    /// <summary>An existing data file is wrapped.</summary>
    [DriverOption("keep_data_file", "Wrap an existing raw data file, whose contents stay untouched; needs data_file_raw=on")]
    public bool KeepDataFile { get; init; }
}

/// <summary>Create options that can be changed later; what is not given stays.</summary>
internal sealed record Qcow2AmendOptions
{
    /// <summary>The version of the format.</summary>
    [DriverOption("compat", "Format version: 0.10 (v2) or 1.1 (v3)")]
    public Qcow2Compat? Compat { get; init; }

    /// <summary>Refcount updates may be postponed by QEMU.</summary>
    [DriverOption("lazy_refcounts", "Postpone refcount updates")]
    public bool? LazyRefcounts { get; init; }

    /// <summary>Bits of a refcount.</summary>
    [DriverOption("refcount_bits", "Bits of a cluster's reference count", Minimum = 1, Maximum = 64, PowerOfTwo = true)]
    public int? RefcountBits { get; init; }

    /// <summary>The external data file is a raw image.</summary>
    [DriverOption("data_file_raw", "The external data file can be read as a raw image: can be turned off, not on")]
    public bool? DataFileRaw { get; init; }

    /// <summary>Virtual size.</summary>
    [DriverOption("size", "Virtual size in bytes; can only grow", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>Key slots.</summary>
    [DriverOptionGroup("encrypt.")]
    public LuksAmendment Encrypt { get; init; } = new();
}
