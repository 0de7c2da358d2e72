using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto.Luks;
using DiskImage.Drivers;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// How large an image becomes, by the same count as qemu-img measure: all tables of a fully allocated image, plus the clusters that
/// hold data. It overestimates an image with few clusters by its unneeded L2 tables.
/// </summary>
internal static class Qcow2Measurer
{
    public static async ValueTask<ImageMeasurement> MeasureAsync(
        Qcow2CreateOptions options, BlockNode? source, CancellationToken cancellationToken)
    {
        long cluster = options.ClusterSize;
        long asked = source?.Length ?? options.Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, "Measuring needs a size or a source image.");
        long size = Round.Up(asked, cluster);
        _ = new Qcow2Geometry(
            Qcow2Geometry.Log2(cluster), Qcow2Geometry.Log2(options.RefcountBits), options.ExtendedL2).RequireL1For(size, path: null);
        long data = 0;
        if (options.BackingFile is not null || options.Preallocation is PreallocationMode.Falloc or PreallocationMode.Full)
        {
            data = size; // what a shared backing chain saves is not known
        }
        else if (source is not null)
        {
            data = await DataBlocks.CountAsync(source, cluster, cancellationToken).ConfigureAwait(false) * cluster;
        }
        long full = FullSize(size, cluster, Qcow2Geometry.Log2(options.RefcountBits), options.ExtendedL2 ? 16 : 8);
        bool canHaveBitmaps = options.Compat >= Qcow2Compat.V3;
        long? bitmaps = canHaveBitmaps ? await BitmapsAsync(source, cluster, cancellationToken).ConfigureAwait(false) : null;
        long keys = options.WantedEncryption == Qcow2EncryptionFormat.Luks
            ? Round.Up(Luks1Volume.NewLength(options.Encrypt.Cipher("Measuring")), cluster)
            : 0;
        return new ImageMeasurement(full - size + data + keys, full + keys, bitmaps);
    }

    private static long FullSize(long size, long cluster, int refcountOrder, int l2EntryBytes)
    {
        long l2 = RoundToMultiple(size / cluster, cluster / l2EntryBytes) * l2EntryBytes;
        long l1 = RoundToMultiple(l2 / cluster, cluster / 8) * 8;
        long tables = cluster + l2 + l1;
        return tables + RefcountBytes((tables + size) / cluster, cluster, refcountOrder) + size;
    }

    /// <summary>Refcount blocks and table for a number of clusters, themselves included.</summary>
    private static long RefcountBytes(long clusters, long cluster, int refcountOrder)
    {
        long perBlock = cluster * 8 / (1 << refcountOrder), perTableCluster = cluster / 8;
        long table = 0, blocks = 0, last;
        do
        {
            last = table + blocks;
            blocks = (clusters + table + blocks + perBlock - 1) / perBlock;
            table = (blocks + perTableCluster - 1) / perTableCluster;
        }
        while (table + blocks != last);
        return last * cluster;
    }

    /// <summary>Directory, tables and data of the source's bitmaps if every granule were dirty; null if it cannot keep any.</summary>
    private static async ValueTask<long?> BitmapsAsync(BlockNode? source, long cluster, CancellationToken cancellationToken)
    {
        if (source is not IBitmaps bitmaps)
        {
            return null;
        }
        long tables = 0, directory = 0;
        foreach (DiskBitmap bitmap in await bitmaps.GetBitmapsAsync(cancellationToken).ConfigureAwait(false))
        {
            if (bitmap.IsInUse)
            {
                continue;
            }
            long bytes = Round.Units(Round.Units(source.Length, bitmap.Granularity), 8);
            long clusters = Round.Units(bytes, cluster);
            tables += (clusters + Round.Units(clusters * 8, cluster)) * cluster;
            directory += Round.Up(Qcow2BitmapEntry.FixedBytes + System.Text.Encoding.UTF8.GetByteCount(bitmap.Name), 8);
        }
        return tables + Round.Up(directory, cluster);
    }

    private static long RoundToMultiple(long value, long unit) => (value + unit - 1) / unit * unit;
}
