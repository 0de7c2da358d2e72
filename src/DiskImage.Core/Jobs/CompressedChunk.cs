using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>The compressed units of one chunk of data, in buffers that are used again for the next.</summary>
/// <param name="target">Says how.</param>
/// <param name="chunk">Bytes of a chunk at most.</param>
/// <param name="zeroesAreData">Units of zeroes are compressed like any other.</param>
internal sealed class CompressedChunk(ICompressedWritable target, int chunk, bool zeroesAreData = false)
{
    private const int Plain = -1, Zero = 0;

    private readonly int _room = target.LargestCompressed;
    private readonly byte[] _bytes = GC.AllocateUninitializedArray<byte>(
        Math.Max(1, chunk / target.CompressionUnit) * target.LargestCompressed);
    private readonly int[] _lengths = new int[Math.Max(1, chunk / target.CompressionUnit)];

    /// <summary>Bytes of a unit.</summary>
    public int Unit => target.CompressionUnit;

    /// <summary>Units of the chunk.</summary>
    public int Count { get; private set; }

    /// <summary>A unit compressed; empty if it did not get smaller.</summary>
    public ReadOnlyMemory<byte> this[int index] => _lengths[index] > 0 ? _bytes.AsMemory(index * _room, _lengths[index]) : default;

    /// <summary>True if a unit is all zeroes, which are not to be stored.</summary>
    public bool IsZero(int index) => _lengths[index] == Zero;

    /// <summary>Takes the next chunk.</summary>
    public void Compress(ReadOnlySpan<byte> data)
    {
        Count = (data.Length + Unit - 1) / Unit;
        for (int i = 0; i < Count; i++)
        {
            ReadOnlySpan<byte> unit = data.Slice(i * Unit, Math.Min(Unit, data.Length - (i * Unit)));
            _lengths[i] = !zeroesAreData && ZeroDetection.IsZero(unit)
                ? Zero
                : target.Compress(unit, _bytes.AsSpan(i * _room, _room)) ?? Plain;
        }
    }
}

/// <summary>Lets workers that run ahead of each other do one step in the order of their pieces.</summary>
internal sealed class InOrder
{
    private readonly Lock _sync = new(); // guards the rest
    private readonly Dictionary<long, TaskCompletionSource> _waiting = [];
    private long _next;

    /// <summary>Waits until every piece before this one is done.</summary>
    public Task WaitAsync(long number, CancellationToken cancellationToken)
    {
        lock (_sync)
        {
            if (number == _next)
            {
                return Task.CompletedTask;
            }
            var turn = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _waiting.Add(number, turn);
            return turn.Task.WaitAsync(cancellationToken);
        }
    }

    /// <summary>A piece is done.</summary>
    public void Done(long number)
    {
        lock (_sync)
        {
            _next = number + 1;
            if (_waiting.Remove(_next, out TaskCompletionSource? turn))
            {
                turn.SetResult();
            }
        }
    }

}
