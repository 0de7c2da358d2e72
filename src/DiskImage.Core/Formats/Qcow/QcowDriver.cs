using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Qcow;

/// <summary>Options when a qcow image of version 1 is made. Names and defaults are QEMU's.</summary>
internal sealed record QcowCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_file", "Image whose contents show through where this one holds nothing")]
    public string? BackingFile { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_fmt", "Format of the backing image; this format cannot record it, so it is found by probing")]
    public string? BackingFormat { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }

    /// <summary>The old option.</summary>
    [DriverOption("encryption", "The old way to say encrypt.format=aes")]
    public bool Encryption { get; init; }

    /// <summary>How the data is to be encrypted.</summary>
    [DriverOption("encrypt.format", "Encrypt the data: aes as old QEMU did, which is weak")]
    public QcowEncryptionFormat? EncryptFormat { get; init; }

    /// <summary>The secret's name.</summary>
    [DriverOption("encrypt.key-secret", "Name of the secret that is to open it, among those that are given")]
    public string? EncryptKeySecret { get; init; }

    /// <summary>The data is to be encrypted.</summary>
    public bool IsEncrypted => Encryption || EncryptFormat is not null;
}

/// <summary>How a qcow image of version 1 is encrypted: there is one way.</summary>
internal enum QcowEncryptionFormat
{
    /// <summary>QEMU's old way, which is weak.</summary>
    Aes,
}

/// <summary>Options when a qcow image of version 1 is opened.</summary>
internal sealed record QcowOpenOptions
{
    /// <summary>How the data is encrypted.</summary>
    [DriverOption("encrypt.format", "How the data is encrypted; as the image says if not given")]
    public QcowEncryptionFormat? EncryptFormat { get; init; }

    /// <summary>The secret's name.</summary>
    [DriverOption("encrypt.key-secret", "Name of the secret that opens it, among those that are given")]
    public string? EncryptKeySecret { get; init; }
}

/// <summary>What a qcow header of version 1 says beyond the facts that all formats share.</summary>
public readonly record struct QcowInfo()
{
    /// <summary>Entries of an L2 table.</summary>
    public required int L2Entries { get; init; }

    /// <summary>How large the disk can become.</summary>
    public required long MaximumSize { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"L2 tables of {L2Entries} entries";
}

/// <summary>QEMU's first own format. Layout: see SPEC.md beside this file.</summary>
internal sealed class QcowDriver : FormatDriver, ICreatable, IMeasurable
{
    public const string FormatName = "qcow";

    private const uint AesMethod = 1;

    public override string Name => FormatName;

    public override string Description => "QEMU copy-on-write version 1";

    public override IReadOnlyList<string> Extensions => [".qcow"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(QcowNode)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<QcowOpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<QcowCreateOptions>();

    public override int Probe(in ProbeInput input) => QcowHeader.IsSigned(input.Header) ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        QcowHeader header = await QcowHeader.ReadAsync(context.File, cancellationToken).ConfigureAwait(false);
        ISectorCipher? cipher = CipherOf(context, header);
        BlockNode? backing = await context.OpenBackingAsync(header.BackingFile, null, cancellationToken).ConfigureAwait(false);
        try
        {
            return await QcowNode.OpenAsync(context.File, backing, header, cipher, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            cipher?.Dispose();
            await Closing.FailedAsync(backing).ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        var options = (QcowCreateOptions)context.Options;
        BlockNode file = context.File;
        QcowHeader header = Plan(options, null, file.Name);
        if (options.IsEncrypted)
        {
            Secrets.ForNew(context.Secrets, options.EncryptKeySecret, file.Name).Dispose();
            header = header with { CryptMethod = AesMethod };
        }
        await file.ResizeAsync(
            header.L1Offset + Round.Up((long)header.L1Entries * QcowHeader.EntryBytes, QcowHeader.SectorSize),
            cancellationToken: cancellationToken).ConfigureAwait(false);
        if (header.BackingFile is { } name)
        {
            await file.WriteAsync(header.NameOffset, QcowHeader.NameBytes(name, file.Name), cancellationToken).ConfigureAwait(false);
        }
        await file.WriteAsync(0, header.ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Exact for the tables that are needed and no compression; a cluster counts if the source does not say that all of it is zero.
    /// </summary>
    public async ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        var given = (QcowCreateOptions)options;
        DataBlocks.RequireNoParent(given.BackingFile);
        QcowHeader header = Plan(given, source, "Measuring");
        (long data, long tables) = await DataBlocks.CountAsync(
            source, header.ClusterSize, header.Span, cancellationToken).ConfigureAwait(false);
        long l1 = header.L1Offset + Round.Up((long)header.L1Entries * QcowHeader.EntryBytes, QcowHeader.SectorSize);
        return new(Total(tables, data), Total(header.L1Entries, Round.Units(header.Size, header.ClusterSize)));

        long Total(long tables, long clusters)
            => clusters == 0 ? l1
                : Round.Up(
                    l1, header.ClusterSize) + (tables * Round.Up(header.L2Bytes, header.ClusterSize)) + (clusters * header.ClusterSize);
    }

    private static ISectorCipher? CipherOf(FormatOpenContext context, QcowHeader header)
    {
        if (header.CryptMethod == 0)
        {
            return null;
        }
        string path = context.File.Name;
        if (header.CryptMethod != AesMethod || header.Size % QcowHeader.SectorSize != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{path}: is encrypted by the method {header.CryptMethod}, with a disk of {header.Size:#,0} bytes; known: 1 (aes), with "
                    + $"multiples of {QcowHeader.SectorSize}",
                path,
                36);
        }
        using SecretBuffer? secret = Secrets.Find(context.Secrets, ((QcowOpenOptions)context.Options).EncryptKeySecret, path);
        return secret is null ? new LockedCipher(path, QcowHeader.SectorSize, isByPlace: false) : LegacyAes.Make(secret);
    }

    private static QcowHeader Plan(QcowCreateOptions options, BlockNode? source, string name)
    {
        long size = source?.Length ?? options.Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a new image needs a size.", name);
        QcowHeader header = QcowHeader.New(0, string.IsNullOrEmpty(options.BackingFile) ? null : options.BackingFile, name);
        return size <= header.MaxSize
            ? header with { Size = Round.Up(size, QcowHeader.SectorSize) }
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a qcow image of version 1 cannot have {size:#,0} bytes here; allowed: up to {header.MaxSize:#,0}. Use qcow2.",
                name);
    }
}
