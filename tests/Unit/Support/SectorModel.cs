using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>What a guest does to a disk.</summary>
internal enum GuestAction
{
    Write,
    WriteZeroes,
    Discard,
    Flush,
}

/// <summary>One request, in sectors. Every write has a tag of its own, which its sectors carry together with their number.</summary>
internal sealed record GuestOperation(GuestAction Action, int Sector = 0, int Count = 0, int Tag = 0)
{
    public ValueTask RunAsync(BlockNode disk) => Action switch
    {
        GuestAction.Write => disk.WriteAsync(Sector * (long)SectorModel.Bytes, SectorModel.Data(Sector, Count, Tag)),
        GuestAction.WriteZeroes => disk.WriteZeroesAsync(Sector * (long)SectorModel.Bytes, Count * (long)SectorModel.Bytes),
        GuestAction.Discard => disk.DiscardAsync(Sector * (long)SectorModel.Bytes, Count * (long)SectorModel.Bytes),
        _ => disk.FlushAsync(),
    };

    /// <summary>Requests at random, the same for the same seed.</summary>
    public static List<GuestOperation> Sequence(int seed, int sectors, int operations, int longest, params GuestAction[] actions)
    {
        var random = new Random(seed);
        var sequence = new List<GuestOperation>();
        for (int i = 1; i <= operations; i++)
        {
            GuestAction action = actions[random.Next(actions.Length)];
            int count = random.Next(1, 1 + random.Next(1, longest + 1));
            int sector = random.Next(sectors - count + 1);
            sequence.Add(action == GuestAction.Flush ? new(action) : new(action, sector, count, action == GuestAction.Write ? i : 0));
        }
        sequence.Add(new(GuestAction.Flush));
        return sequence;
    }
}

/// <summary>
/// What each sector of a disk may read as, given what was asked of it: the value of the last flush, and every value written since.
/// A value is the tag of a write, or 0 for zeroes.
/// </summary>
internal sealed class SectorModel
{
    public const int Bytes = 512;

    private readonly int[] _below;
    private readonly HashSet<int>[] _current; // if everything so far arrives
    private readonly HashSet<int>[] _allowed; // if only some of it does

    /// <summary>Begins with the tags of the disk as it is; discarding may bring them back.</summary>
    public SectorModel(int[] below)
    {
        _below = below;
        _current = [.. below.Select(tag => new HashSet<int> { tag })];
        _allowed = [.. below.Select(tag => new HashSet<int> { tag })];
    }

    public int Sectors => _below.Length;

    /// <summary>The bytes of a write.</summary>
    public static byte[] Data(int sector, int count, int tag)
    {
        byte[] data = new byte[count * Bytes];
        for (int i = 0; i < data.Length && tag != 0; i += 8)
        {
            BinaryPrimitives.WriteInt64LittleEndian(data.AsSpan(i), ((long)tag << 32) | (uint)(sector + (i / Bytes)));
        }
        return data;
    }

    /// <summary>A request has begun: from now on its result may be seen.</summary>
    public void Began(GuestOperation operation)
    {
        for (int sector = operation.Sector; sector < operation.Sector + operation.Count; sector++)
        {
            _allowed[sector].UnionWith(Values(operation, sector));
        }
    }

    /// <summary>A request is done: from now on its result is seen, as long as nothing crashes.</summary>
    public void Done(GuestOperation operation)
    {
        Began(operation);
        for (int sector = operation.Sector; sector < operation.Sector + operation.Count; sector++)
        {
            if (operation.Action != GuestAction.Discard)
            {
                _current[sector].Clear();
            }
            _current[sector].UnionWith(Values(operation, sector));
        }
        for (int sector = 0; operation.Action == GuestAction.Flush && sector < _current.Length; sector++)
        {
            _allowed[sector] = [.. _current[sector]];
        }
    }

    /// <summary>A request has failed: its range reads as before or after.</summary>
    public void Failed(GuestOperation operation)
    {
        Began(operation);
        for (int sector = operation.Sector; sector < operation.Sector + operation.Count; sector++)
        {
            _current[sector].UnionWith(Values(operation, sector));
        }
    }

    /// <summary>The disk must read as one of the values that each sector may have.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="crashed">True if what was not flushed may be lost.</param>
    /// <param name="unsure">Sectors that are not looked at.</param>
    public async Task VerifyAsync(BlockNode disk, bool crashed, IReadOnlySet<int>? unsure = null)
    {
        byte[] all = new byte[Sectors * Bytes];
        await disk.ReadAsync(0, all);
        for (int sector = 0; sector < Sectors; sector++)
        {
            HashSet<int> values = (crashed ? _allowed : _current)[sector];
            int tag = BinaryPrimitives.ReadInt32LittleEndian(all.AsSpan((sector * Bytes) + 4));
            ReadOnlySpan<byte> bytes = all.AsSpan(sector * Bytes, Bytes);
            if (unsure?.Contains(sector) != true)
            {
                Assert.True(
                    values.Contains(tag) && bytes.SequenceEqual(Data(sector, 1, tag)),
                    $"sector {sector} reads as {tag}:{Convert.ToHexString(bytes[..16])}; allowed: {string.Join(", ", values)}");
            }
        }
    }

    private int[] Values(GuestOperation operation, int sector)
        => operation.Action == GuestAction.Discard ? [.. _current[sector], 0, _below[sector]] : [operation.Tag];
}
