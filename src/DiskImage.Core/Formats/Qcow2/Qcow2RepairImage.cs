using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>An image while it is repaired: the file as it is to be, held back, and the header as it is understood so far.</summary>
internal sealed class Qcow2RepairImage
{
    private readonly IProgress<long>? _bytes;

    public Qcow2RepairImage(
        StagedNode file, Qcow2Header header, BlockNode? dataFile, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        (File, Header, DataFile, _bytes, CancellationToken) = (file, header, dataFile, bytes, cancellationToken);
        Geometry = new Qcow2Geometry(header);
        Length = file.Length;
    }

    public StagedNode File { get; }

    public BlockNode? DataFile { get; }

    public CancellationToken CancellationToken { get; }

    public Qcow2Header Header { get; private set; }

    public Qcow2Geometry Geometry { get; private set; }

    /// <summary>The file's length as it was found: what lies past it was never written, even if the repair puts something there.</summary>
    public long Length { get; }

    public bool IsExternal => Header.Has(Qcow2Incompatible.ExternalDataFile);

    /// <summary>Where the file may be extended by a cluster. A repair takes space there only: it cannot be in use.</summary>
    public long FileEnd => Geometry.Clusters(File.Length) << Geometry.ClusterBits;

    /// <summary>True if something can lie at an offset.</summary>
    public bool IsPlace(long offset) => Geometry.InCluster(offset) == 0 && offset >= Geometry.ClusterSize && offset < Length;

    public IEnumerable<long> ClustersOf(long offset, long length)
    {
        for (long cluster = offset >> Geometry.ClusterBits; cluster < Geometry.Clusters(offset + length); cluster++)
        {
            yield return cluster;
        }
    }

    public Qcow2Checker NewChecker() => new(File, Header, _bytes, CancellationToken, DataFile);

    /// <summary>Everything but the refcount structure, counted.</summary>
    public async ValueTask<Qcow2Checker> CountAsync()
    {
        Qcow2Checker checker = NewChecker();
        await checker.CountWithoutRefcountsAsync().ConfigureAwait(false);
        return checker;
    }

    /// <summary>Writes part of another header.</summary>
    public async ValueTask WriteHeaderAsync(Qcow2Header header, Range part)
    {
        await File.WriteAsync(part.Start.Value, header.ToCluster(File.Name).AsMemory(part), CancellationToken).ConfigureAwait(false);
        Header = header;
    }

    /// <summary>Writes all of another header.</summary>
    public ValueTask WriteHeaderAsync(Qcow2Header header) => WriteHeaderAsync(header, 0..Geometry.ClusterSize);

    /// <summary>A header was written that names other refcounts, perhaps of another width.</summary>
    public void Switched(Qcow2Header header) => (Header, Geometry) = (header, new Qcow2Geometry(header));

    /// <summary>Sets the incompatible features of a version 3 image, between two flushes.</summary>
    public async ValueTask MarkAsync(Qcow2Incompatible features)
    {
        if (Header.Version >= 3 && features != Header.Incompatible)
        {
            await File.FlushAsync(CancellationToken).ConfigureAwait(false);
            byte[] field = new byte[8];
            BigEndian.U64(field, 0, (ulong)features);
            await File.WriteAsync(Qcow2Header.IncompatibleAt, field, CancellationToken).ConfigureAwait(false);
            await File.FlushAsync(CancellationToken).ConfigureAwait(false);
            Header = Header with { Incompatible = features };
        }
    }

    /// <summary>Copies a table to the end of the file. Counting follows, so nothing is allocated here.</summary>
    public async ValueTask<long> CopyToEndAsync(long offset, int length)
    {
        byte[] table = new byte[length];
        await File.ReadPaddedAsync(offset, table, CancellationToken).ConfigureAwait(false);
        long place = FileEnd;
        await File.WriteAsync(place, table, CancellationToken).ConfigureAwait(false);
        await File.FlushAsync(CancellationToken).ConfigureAwait(false);
        return place;
    }
}
