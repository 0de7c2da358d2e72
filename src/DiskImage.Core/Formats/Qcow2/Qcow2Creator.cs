using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;
using DiskImage.Drivers;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Writes new images: header, refcount table, one refcount block, L1 table, in this order from offset 0. Whatever more is wanted
/// (preallocation) is then done by an open node, so that there is one allocator.
/// </summary>
internal static class Qcow2Creator
{
    private const int Sector = 512;

    public static async ValueTask CreateAsync(FormatCreateContext context, Qcow2CreateOptions options, CancellationToken cancellationToken)
    {
        BlockNode file = context.File;
        Qcow2Header header = Plan(file.Name, options);
        var geometry = new Qcow2Geometry(header);
        long l1Clusters = geometry.Clusters(header.L1Size * 8L);
        long keyBytes = options.WantedEncryption == Qcow2EncryptionFormat.Luks
            ? Luks1Volume.NewLength(options.Encrypt.Cipher(file.Name))
            : 0;
        long used = 3 + l1Clusters + geometry.Clusters(keyBytes); // header, refcount table, refcount block, L1 table, LUKS header
        int perBlock = 1 << geometry.RefcountsPerBlockBits;

        // Small clusters with wide refcounts: one block may not count the whole L1 table. Then more blocks follow it.
        long blocks = 1;
        while (blocks * perBlock < used + blocks - 1)
        {
            blocks++;
        }
        used += blocks - 1;
        long tableClusters = geometry.Clusters(blocks * 8L);
        header = header with
        {
            RefcountTableOffset = geometry.ClusterSize,
            RefcountTableClusters = (int)tableClusters,
            L1TableOffset = (1 + tableClusters + blocks) << geometry.ClusterBits,
        };
        used += tableClusters - 1;
        if (blocks * perBlock < used)
        {
            blocks++;
            used++;
            header = header with { L1TableOffset = header.L1TableOffset + geometry.ClusterSize };
        }

        long keysAt = header.L1TableOffset + (l1Clusters << geometry.ClusterBits);
        header = WithKeys(header, keysAt, keyBytes);
        using SecretBuffer? secret = options.WantedEncryption is null
            ? null
            : Secrets.ForNew(context.Secrets, options.Encrypt.KeySecret, file.Name);

        await file.ResizeAsync(0, cancellationToken: cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(0, header.ToCluster(file.Name), cancellationToken).ConfigureAwait(false);
        byte[] table = new byte[tableClusters << geometry.ClusterBits];
        long blockOffset = (1 + tableClusters) << geometry.ClusterBits;
        byte[] block = new byte[geometry.ClusterSize];
        for (long i = 0; i < blocks; i++, blockOffset += geometry.ClusterSize)
        {
            Array.Clear(block);
            for (int k = 0; k < perBlock && (i * perBlock) + k < used; k++)
            {
                _ = RefcountBlock.Set(block, k, geometry.RefcountOrder, 1);
            }
            BigEndian.U64(table, (int)i * 8, (ulong)blockOffset);
            await file.WriteAsync(blockOffset, block, cancellationToken).ConfigureAwait(false);
        }
        await file.WriteAsync(geometry.ClusterSize, table, cancellationToken).ConfigureAwait(false);
        await file.WriteZeroesAsync(
            header.L1TableOffset, l1Clusters << geometry.ClusterBits, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
        if (keyBytes > 0)
        {
            await file.WriteZeroesAsync(
                keysAt, geometry.Clusters(keyBytes) << geometry.ClusterBits, ZeroWriteMode.MayUnmap, cancellationToken)
                .ConfigureAwait(false);
            LuksParameters parameters = options.Encrypt;
            (await Luks1Volume.CreateAsync(
                new LuksArea(file, keysAt, keyBytes),
                parameters.Cipher(file.Name),
                parameters.Hash,
                isDetached: false,
                NewIdentity.Of("luks", header.Size),
                secret!,
                parameters.IterationTime,
                cancellationToken).ConfigureAwait(false)).Dispose();
        }
        BlockNode? dataFile = options.DataFile is null
            ? null
            : await OpenDataFileAsync(context, options, header, cancellationToken).ConfigureAwait(false);
        PreallocationMode mode = options is { DataFileRaw: true, Preallocation: PreallocationMode.Off }
            ? PreallocationMode.Metadata
            : options.Preallocation;
        if (mode != PreallocationMode.Off || dataFile is not null)
        {
            Qcow2Node disk = await OpenNewAsync(file, dataFile, header, options, context, cancellationToken).ConfigureAwait(false);
            await using (disk.ConfigureAwait(false))
            {
                if (mode != PreallocationMode.Off)
                {
                    await disk.PreallocateAsync(mode, options.KeepDataFile, context.Claimed, cancellationToken).ConfigureAwait(false);
                }
            }
        }
    }

    /// <summary>The header with the place of the LUKS header in its extension.</summary>
    private static Qcow2Header WithKeys(Qcow2Header header, long offset, long length)
    {
        byte[] pointer = new byte[Qcow2Encryption.ExtensionBytes];
        BigEndian.U64(pointer, 0, (ulong)offset);
        BigEndian.U64(pointer, 8, (ulong)length);
        return header with
        {
            Extensions = [.. header.Extensions.Select(e => e.Type == Qcow2Extension.Encryption ? e with { Data = pointer } : e)],
        };
    }

    private static async ValueTask<Qcow2Node> OpenNewAsync(
        BlockNode file,
        BlockNode? dataFile,
        Qcow2Header header,
        Qcow2CreateOptions options,
        FormatCreateContext context,
        CancellationToken cancellationToken)
    {
        Qcow2Encryption? encryption = null;
        try
        {
            var borrowed = new BorrowedNode(file, isReadOnly: false); // closing the disk must not close the caller's file
            var how = new Qcow2OpenOptions { Encrypt = new() { KeySecret = options.Encrypt.KeySecret } };
            encryption = await Qcow2Encryption.OpenAsync(file, header, how, context.Secrets, cancellationToken).ConfigureAwait(false);
            return await Qcow2Node.OpenAsync(
                borrowed, dataFile, null, header, how, encryption, forRepair: false, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            encryption?.Dispose();
            await Closing.FailedAsync(dataFile).ConfigureAwait(false);
            throw;
        }
    }

    private static async ValueTask<BlockNode> OpenDataFileAsync(
        FormatCreateContext context, Qcow2CreateOptions options, Qcow2Header header, CancellationToken cancellationToken)
    {
        CompanionOpener open = context.OpenCompanion
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{context.File.Name}: a data file cannot be made here", context.File.Name);
        BlockNode data = await open(options.DataFile!, !options.KeepDataFile, cancellationToken).ConfigureAwait(false);
        try
        {
            if (!options.KeepDataFile)
            {
                await data.ResizeAsync(header.Size, cancellationToken: cancellationToken).ConfigureAwait(false);
            }
            return data.Length >= header.Size ? data : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{context.File.Name}: the data file '{options.DataFile}' has {data.Length:#,0} bytes; allowed:"
                    + $" at least the {header.Size:#,0} of the disk",
                context.File.Name);
        }
        catch
        {
            await Closing.FailedAsync(data).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Checks the options against each other and turns them into a header without places.</summary>
    private static Qcow2Header Plan(string path, Qcow2CreateOptions options)
    {
        if (options.Size is not long asked)
        {
            throw Invalid("a new image needs a size");
        }
        bool v3 = options.Compat == Qcow2Compat.V3;
        if (!v3 && options.LazyRefcounts)
        {
            throw Invalid("lazy_refcounts=on needs compat=1.1");
        }
        if (!v3 && options.RefcountBits != 16)
        {
            throw Invalid($"refcount_bits={options.RefcountBits} needs compat=1.1; version 2 has 16");
        }
        if (!v3 && (options.ExtendedL2 || options.CompressionType != Qcow2CompressionType.Zlib))
        {
            throw Invalid($"{(options.ExtendedL2 ? "extended_l2=on" : "compression_type=zstd")} needs compat=1.1");
        }
        if (options.ExtendedL2 && options.ClusterSize < 1 << Qcow2Header.MinExtendedClusterBits)
        {
            throw Invalid(
                $"extended_l2=on needs clusters of at least {1 << Qcow2Header.MinExtendedClusterBits} bytes, not {options.ClusterSize}");
        }
        if (options.BackingFile is not null && options.Preallocation != PreallocationMode.Off && !options.ExtendedL2)
        {
            throw Invalid("preallocation with a backing file needs extended_l2=on:"
                + " without subclusters preallocated clusters would hide the backing file");
        }
        if (options.DataFile is null && (options.DataFileRaw || options.KeepDataFile))
        {
            throw Invalid("data_file_raw and keep_data_file need a data_file");
        }
        if (options.DataFile is not null && !v3)
        {
            throw Invalid("data_file needs compat=1.1");
        }
        if (options is { DataFileRaw: true, BackingFile: not null })
        {
            throw Invalid("data_file_raw=on and a backing file exclude each other: a raw image holds all of its contents itself");
        }
        if (options is { KeepDataFile: true, DataFileRaw: false })
        {
            throw Invalid("keep_data_file=on needs data_file_raw=on: without tables nothing else says what the file holds");
        }
        if (options.BackingFile is null && options.BackingFormat is not null)
        {
            throw Invalid("backing_fmt is given without a backing_file");
        }
        if (options is { Encryption: true, EncryptFormat: not null and not Qcow2EncryptionFormat.Aes })
        {
            throw Invalid("encryption=on means encrypt.format=aes, and another is given; leave out encryption");
        }
        if (options is { WantedEncryption: not null, DataFileRaw: true })
        {
            throw Invalid("data_file_raw=on and encryption exclude each other: an encrypted file reads as noise");
        }
        if (asked > long.MaxValue - Sector)
        {
            throw Invalid($"a size of {asked} bytes is too large");
        }
        long size = Round.Up(asked, Sector);
        var geometry = new Qcow2Geometry(
            Qcow2Geometry.Log2(options.ClusterSize), Qcow2Geometry.Log2(options.RefcountBits), options.ExtendedL2);
        long l1 = geometry.RequireL1For(size, path);
        var extensions = new List<Qcow2Extension>();
        if (options.BackingFormat is not null)
        {
            extensions.Add(Qcow2Extension.Text(Qcow2Extension.BackingFormat, options.BackingFormat));
        }
        if (options.DataFile is not null)
        {
            extensions.Add(Qcow2Extension.Text(Qcow2Extension.ExternalDataFile, options.DataFile));
        }
        if (options.WantedEncryption == Qcow2EncryptionFormat.Luks)
        {
            extensions.Add(new Qcow2Extension(Qcow2Extension.Encryption, new byte[Qcow2Encryption.ExtensionBytes]));
        }
        if (v3)
        {
            Qcow2Extension names = Qcow2Extension.NewFeatureNames();
            int room = geometry.ClusterSize - Qcow2Header.LengthWithCompressionType - (options.BackingFile?.Length * 4 ?? 0);
            if (Qcow2Extension.TotalLength([.. extensions, names]) <= room)
            {
                extensions.Add(names);
            }
        }
        return new Qcow2Header
        {
            Version = (int)options.Compat,
            ClusterBits = geometry.ClusterBits,
            Size = size,
            CryptMethod = options.WantedEncryption switch
            {
                Qcow2EncryptionFormat.Luks => Qcow2Encryption.LuksMethod,
                Qcow2EncryptionFormat.Aes => Qcow2Encryption.AesMethod,
                _ => 0,
            },
            L1Size = (int)l1,
            L1TableOffset = 0,
            RefcountTableOffset = 0,
            RefcountTableClusters = 0,
            RefcountOrder = geometry.RefcountOrder,
            CompressionType = options.CompressionType,
            AutoClear = options.DataFileRaw ? Qcow2AutoClear.RawExternalData : Qcow2AutoClear.None,
            Incompatible = (options.DataFile is null ? Qcow2Incompatible.None : Qcow2Incompatible.ExternalDataFile)
                | (options.ExtendedL2 ? Qcow2Incompatible.ExtendedL2 : Qcow2Incompatible.None)
                | (options.CompressionType == Qcow2CompressionType.Zlib ? Qcow2Incompatible.None : Qcow2Incompatible.CompressionType),
            HeaderLength = v3 ? Qcow2Header.LengthWithCompressionType : Qcow2Header.V2Length,
            Compatible = options.LazyRefcounts ? Qcow2Compatible.LazyRefcounts : Qcow2Compatible.None,
            Extensions = extensions,
            BackingFile = options.BackingFile,
        };

        DiskImageException Invalid(string what) => new(DiskImageErrorKind.InvalidOption, $"{path}: {what}.", path);
    }
}
