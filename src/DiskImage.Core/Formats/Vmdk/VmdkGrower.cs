using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vmdk;

/// <summary>Gives a sparse extent directories and tables for a greater length.</summary>
/// <remarks>
/// The tables are made at the end of the file, as other programs want all of them to be there. Directories that lack room for their entries
/// get a new place: they are written there, flushed, and the header, one sector, then leads to both. Until the header has the new capacity,
/// nothing uses what is new; a crash leaks it.
/// </remarks>
internal sealed class VmdkGrower(BlockNode file, MetadataSession session, VmdkGrainTables tables, VmdkLayout layout, VmdkSpace space)
{
    /// <summary>Makes the room.</summary>
    /// <param name="held">The lock.</param>
    /// <param name="length">The length to come.</param>
    /// <param name="setHeader">Writes a header, durably.</param>
    /// <param name="cancellationToken">Stops it before anything is written.</param>
    public async ValueTask RunAsync(
        MetadataSession.Held held,
        long length,
        Func<MetadataSession.Held, VmdkHeader, ValueTask> setHeader,
        CancellationToken cancellationToken)
    {
        VmdkHeader old = tables.Header, grown = old with { Capacity = length / VmdkHeader.SectorSize };
        int count = (int)VmdkHeader.UnitsOf(grown.Capacity, grown.GrainSectors * grown.TableEntries);
        _ = VmdkHeader.Parse(grown.ToBytes(), file.Name, 0); // within the bounds
        if (count == tables.Directory.Count)
        {
            return;
        }
        cancellationToken.ThrowIfCancellationRequested();
        await session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        int copies = tables.Redundant.Count > 0 ? 2 : 1;
        long bytes = Round.Up(count * (long)sizeof(uint), VmdkHeader.SectorSize);
        var places = new long[copies];
        var directories = new byte[copies][];
        for (int copy = 0; copy < copies; copy++)
        {
            BlockTable<VmdkEntry> directory = copy == 0 ? tables.Directory : tables.Redundant;
            places[copy] = space.AllocateSectors(held, bytes);
            directories[copy] = new byte[bytes];
            directory.Bytes.Span.CopyTo(directories[copy]);
            for (int index = directory.Count; index < count; index++)
            {
                long table = space.AllocateSectors(held, tables.TableBytes);
                tables.Forget(table, tables.TableBytes);
                VmdkEntry.At(table).Write(directories[copy].AsSpan(index * sizeof(uint)));
            }
        }
        long from = places[0], reach = space.End;
        await file.WriteZeroesAsync(from, Math.Max(0, Math.Min(file.Length, reach) - from),
            cancellationToken: CancellationToken.None).ConfigureAwait(false);
        await file.ResizeAsync(Math.Max(file.Length, reach), cancellationToken: CancellationToken.None).ConfigureAwait(false);
        for (int copy = 0; copy < copies; copy++)
        {
            await file.WriteAsync(places[copy], directories[copy], CancellationToken.None).ConfigureAwait(false);
        }
        await file.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        await setHeader(held, old with
        {
            DirectorySector = (ulong)(places[0] / VmdkHeader.SectorSize),
            RedundantSector = copies > 1 ? (ulong)(places[1] / VmdkHeader.SectorSize) : old.RedundantSector,
        }).ConfigureAwait(false);
        int entries = count * sizeof(uint);
        tables.Directory.Replace(places[0], directories[0][..entries]);
        tables.Redundant.Replace(copies > 1 ? places[1] : 0, copies > 1 ? directories[1][..entries] : []);
        layout.Changed();
    }
}
