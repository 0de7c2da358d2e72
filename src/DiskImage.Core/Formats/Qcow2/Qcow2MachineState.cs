using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// The state of a machine: clusters that are mapped like the disk's, in the L1 entries behind those that the disk needs. Spec: qcow2, "VM
/// state" of snapshots.
/// </summary>
/// <remarks>
/// While it is read or written nothing else runs on the disk, which passes for one that reaches so far meanwhile. It is no change of the
/// disk, so no bitmap takes note of it.
/// </remarks>
/// <param name="disk">The image.</param>
/// <param name="read">Reads from the disk, under the range lock.</param>
/// <param name="write">Writes to it, likewise.</param>
internal sealed class Qcow2MachineState(
    Qcow2Disk disk,
    Func<long, Memory<byte>, CancellationToken, ValueTask> read,
    Func<long, ReadOnlyMemory<byte>, CancellationToken, ValueTask> write)
{
    private const int Sector = 512; // what encryption goes by

    private readonly Qcow2L1Tables _l1Tables = new(disk);

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>Where it begins, as an offset of the disk: where the first L2 table begins that the disk has no need of.</summary>
    private long Start => Geometry.StartOf((int)Geometry.L1EntriesFor(disk.Header.Size)).Value;

    /// <summary>Reads some of it.</summary>
    public async ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        await disk.TellAsync(DebugEvent.VmstateLoad).ConfigureAwait(false);
        long end = Geometry.StartOf(disk.Tables.L1.Count).Value - Start; // what the L1 table reaches
        int inside = (int)Math.Clamp(end - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        if (inside > 0)
        {
            await ReachAsync(Start + offset + inside, () => ReadSectorsAsync(Start + offset, buffer[..inside], cancellationToken))
                .ConfigureAwait(false);
        }
    }

    /// <summary>Writes some of it.</summary>
    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        RequirePossible(offset, buffer.Length);
        await disk.TellAsync(DebugEvent.VmstateSave).ConfigureAwait(false);
        long start = Start + offset, end = start + buffer.Length;
        await disk.Session.RunAsync(
            async held =>
            {
                if (disk.Mark.MustPostpone)
                {
                    await disk.Mark.PostponeAsync(held).ConfigureAwait(false);
                }
                await _l1Tables.GrowAsync(held, (int)Geometry.L1EntriesFor(end), cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        await ReachAsync(end, () => WriteSectorsAsync(start, buffer, cancellationToken)).ConfigureAwait(false);
    }

    private void RequirePossible(long offset, int length)
    {
        if (disk.IsReadOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly, $"{disk.Name}: opened read-only, so no machine's state can be kept in it", disk.Name);
        }
        if (disk.IsExternal)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: its data is in an external file, which has no room for a machine's state",
                disk.Name);
        }
        long most = (Qcow2Header.MaxL1Bytes / 8 * Geometry.L2Span) - Start;
        if (offset > most - length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: {length:#,0} bytes of a machine's state at offset {offset:#,0} end too far behind the disk; allowed with"
                    + $" clusters of {Geometry.ClusterSize:#,0}: up to {most:#,0}",
                disk.Name);
        }
    }

    /// <summary>Does something while the disk passes for one that ends so far behind; whole sectors, for encryption.</summary>
    private async ValueTask ReachAsync(long end, Func<ValueTask> work)
    {
        disk.GrownTo = Round.Up(end, Sector);
        try
        {
            await work().ConfigureAwait(false);
        }
        finally
        {
            disk.GrownTo = 0;
        }
    }

    private async ValueTask ReadSectorsAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        (long start, long end) = Around(offset, buffer.Length);
        if (start == offset && end == offset + buffer.Length)
        {
            await read(offset, buffer, cancellationToken).ConfigureAwait(false);
            return;
        }
        byte[] sectors = new byte[end - start];
        await read(start, sectors, cancellationToken).ConfigureAwait(false);
        sectors.AsMemory((int)(offset - start), buffer.Length).CopyTo(buffer);
    }

    private async ValueTask WriteSectorsAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        (long start, long end) = Around(offset, buffer.Length);
        if (start == offset && end == offset + buffer.Length)
        {
            await write(offset, buffer, cancellationToken).ConfigureAwait(false);
            return;
        }
        byte[] sectors = new byte[end - start];
        await read(start, sectors, cancellationToken).ConfigureAwait(false);
        buffer.CopyTo(sectors.AsMemory((int)(offset - start)));
        await write(start, sectors, cancellationToken).ConfigureAwait(false);
    }

    private static (long Start, long End) Around(long offset, int length)
        => (Round.Down(offset, Sector), Round.Up(offset + length, Sector));
}
