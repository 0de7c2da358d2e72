using System.Diagnostics;
using System.Runtime.InteropServices;
using DiskImage.Platform;

namespace DiskImage.Protocols.Nvme;

/// <summary>A command and the bytes that go with it.</summary>
/// <param name="Opcode">Which.</param>
/// <param name="Namespace">On which namespace; 0 for none, all ones for all.</param>
internal readonly record struct NvmeCommand(byte Opcode, uint Namespace)
{
    /// <summary>Words 10 to 13 of the command.</summary>
    public uint Word10 { get; init; }

    /// <inheritdoc cref="Word10"/>
    public uint Word11 { get; init; }

    /// <inheritdoc cref="Word10"/>
    public uint Word12 { get; init; }

    /// <summary>An address that the command itself is about: where a queue lies. It has no data then.</summary>
    public ulong Address { get; init; }

    /// <summary>What the controller is given.</summary>
    public ReadOnlyMemory<byte> From { get; init; }

    /// <summary>Where what it gives goes.</summary>
    public Memory<byte> Into { get; init; }
}

/// <summary>
/// A submission queue, its completion queue, and memory for the data of as many commands as may be under way.
/// Spec: NVM Express Base 2.0, sections 3.3.3.1 (commands), 3.3.3.2 (completions), 4.1.1 (PRP).
/// </summary>
/// <remarks>
/// The controller reaches this memory only, never a caller's: whatever it does late, it does to nobody. What it writes is read once, and
/// checked.
/// </remarks>
internal sealed class NvmeQueue : IDisposable
{
    /// <summary>Bytes of a page, as a shift and as such; of an entry of either queue as shifts.</summary>
    public const int PageShift = 12, PageSize = 1 << PageShift, SubmissionShift = 6, CompletionShift = 4;

    private const int PhaseBit = 1 << 16;
    private static readonly long s_spin = Stopwatch.Frequency / 50_000; // 20 microseconds: what a quick read takes. Ours

    private readonly IPciFunction _function;
    private readonly NvmeQueueLayout _layout;
    private readonly TimeSpan _patience;
    private readonly Lock _gate = new();
    private readonly Slot[] _slots;
    private readonly Stack<Slot> _free;
    private readonly SemaphoreSlim _room;
    private int _tail, _head, _phase = PhaseBit, _busy;
    private bool _isBroken;

    /// <summary>Makes one; its memory is zeroes.</summary>
    public NvmeQueue(IPciFunction function, NvmeQueueLayout layout, TimeSpan patience)
    {
        (_function, _layout, _patience) = (function, layout, patience);
        _slots = [.. Enumerable.Range(0, layout.Slots).Select(i => new Slot(i))];
        _free = new(_slots.Reverse());
        _room = new(layout.Slots);
        foreach (Slot slot in _slots)
        {
            Span<byte> list = function.Memory.Slice(layout.ListAt(slot.Index), PageSize);
            for (int page = 1; page < layout.DataSize / PageSize; page++)
            {
                ulong address = Address(layout.DataAt(slot.Index) + (page * PageSize));
                MemoryMarshal.Write(list[((page - 1) * sizeof(ulong))..], in address);
            }
        }
    }

    /// <summary>Commands that may be under way.</summary>
    public int Slots => _slots.Length;

    /// <summary>Entries of either queue.</summary>
    public int Entries => _layout.Entries;

    /// <summary>Where the controller finds the queues.</summary>
    public ulong SubmissionAddress => Address(_layout.SubmissionAt);

    /// <inheritdoc cref="SubmissionAddress"/>
    public ulong CompletionAddress => Address(_layout.CompletionAt);

    /// <summary>Something is under way.</summary>
    public bool IsBusy => Volatile.Read(ref _busy) > 0;

    /// <summary>Has a command answered.</summary>
    /// <param name="command">It.</param>
    /// <param name="faulted">Told of what the controller did against the rules.</param>
    /// <param name="breaking">Cancelled when the controller is given up.</param>
    /// <param name="cancellationToken">
    /// Stops waiting. What changes something is waited for once it is on its way: a later change must not be overtaken by it.
    /// </param>
    /// <returns>Null if the controller was given up.</returns>
    public async ValueTask<NvmeStatus?> RunAsync(
        NvmeCommand command, Action<string> faulted, CancellationToken breaking, CancellationToken cancellationToken)
    {
        if (!_room.Wait(0, CancellationToken.None))
        {
            using var either = CancellationTokenSource.CreateLinkedTokenSource(breaking, cancellationToken);
            try
            {
                await _room.WaitAsync(either.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (breaking.IsCancellationRequested)
            {
                return null;
            }
        }
        var done = new TaskCompletionSource<NvmeStatus?>(TaskCreationOptions.RunContinuationsAsynchronously);
        if (Submit(command, done) is not { } slot)
        {
            return null;
        }
        for (long end = Stopwatch.GetTimestamp() + s_spin; !done.Task.IsCompleted && Stopwatch.GetTimestamp() < end; Thread.SpinWait(10))
        {
            if (Process(out string? fault) == 0 && fault is not null)
            {
                faulted(fault);
            }
        }
        if (!done.Task.IsCompleted && !_function.HasInterrupts)
        {
            _function.Wake();
        }
        NvmeStatus? answer;
        try
        {
            answer = await done.Task.WaitAsync(command.Into.IsEmpty ? CancellationToken.None : cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            Leave(slot);
            throw;
        }
        if (answer is { } answered)
        {
            if (answered.IsGood)
            {
                _function.Memory.Slice(_layout.DataAt(slot.Index), command.Into.Length).CopyTo(command.Into.Span);
            }
            Free(slot);
        }
        return answer;
    }

    /// <summary>Takes what the controller has answered.</summary>
    /// <param name="fault">What it did against the rules, after which nothing that it says is worth anything; null if nothing.</param>
    /// <returns>How many commands it answered.</returns>
    public int Process(out string? fault)
    {
        lock (_gate)
        {
            int taken = 0;
            fault = null;
            while (!_isBroken && taken < _layout.Entries)
            {
                Span<uint> entry = MemoryMarshal.Cast<byte, uint>(
                    _function.Memory.Slice(_layout.CompletionAt + (_head << CompletionShift), 1 << CompletionShift));
                uint last = Volatile.Read(ref entry[3]); // first: the rest is valid with it
                if ((last & PhaseBit) != _phase)
                {
                    break;
                }
                uint about = entry[2];
                fault = Take(about, last);
                if (fault is not null)
                {
                    return 0;
                }
                taken++;
                _head = (_head + 1) % _layout.Entries;
                _phase ^= _head == 0 ? PhaseBit : 0;
            }
            if (taken > 0)
            {
                _function.Write(_layout.CompletionDoorbell, (uint)_head);
            }
            return taken;
        }
    }

    /// <summary>The code of a command that has not been answered in time; null if there is none.</summary>
    public byte? Late(long now)
    {
        lock (_gate)
        {
            foreach (Slot slot in _slots)
            {
                if (slot.Done is not null && now >= slot.Deadline)
                {
                    return slot.Opcode;
                }
            }
            return null;
        }
    }

    /// <summary>Gives the controller up: whoever waits is told so, nothing more is submitted, and no memory is used again.</summary>
    public void Break()
    {
        lock (_gate)
        {
            _isBroken = true;
            foreach (Slot slot in _slots)
            {
                _ = slot.Done?.TrySetResult(null);
                slot.Done = null;
            }
            _busy = 0;
        }
    }

    public void Dispose() => _room.Dispose();

    private Slot? Submit(NvmeCommand command, TaskCompletionSource<NvmeStatus?> done)
    {
        lock (_gate)
        {
            if (_isBroken)
            {
                return null;
            }
            Slot slot = _free.Pop();
            Span<byte> memory = _function.Memory;
            command.From.Span.CopyTo(memory.Slice(_layout.DataAt(slot.Index), _layout.DataSize));
            slot.Begin(command.Opcode, done, Environment.TickCount64 + (long)_patience.TotalMilliseconds);
            Span<byte> entry = memory.Slice(_layout.SubmissionAt + (_tail << SubmissionShift), 1 << SubmissionShift);
            entry.Clear();
            Span<uint> words = MemoryMarshal.Cast<byte, uint>(entry);
            (words[0], words[1]) = (command.Opcode | ((uint)slot.Number << 16), command.Namespace);
            (ulong first, ulong second) = command.Address != 0 ? (command.Address, 0UL)
                : Pages(slot.Index, command.From.Length + command.Into.Length);
            (words[6], words[7], words[8], words[9]) = ((uint)first, (uint)(first >> 32), (uint)second, (uint)(second >> 32));
            (words[10], words[11], words[12]) = (command.Word10, command.Word11, command.Word12);
            _tail = (_tail + 1) % _layout.Entries;
            _busy++;
            _function.Write(_layout.SubmissionDoorbell, (uint)_tail);
            return slot;
        }
    }

    /// <summary>Where data lies: a page, two pages, or a page and a list of those behind it.</summary>
    private (ulong First, ulong Second) Pages(int slot, int length) => length switch
    {
        0 => (0, 0),
        <= PageSize => (Address(_layout.DataAt(slot)), 0),
        <= 2 * PageSize => (Address(_layout.DataAt(slot)), Address(_layout.DataAt(slot) + PageSize)),
        _ => (Address(_layout.DataAt(slot)), Address(_layout.ListAt(slot))),
    };

    /// <summary>Takes one completion. Returns what is wrong with it, or null.</summary>
    private string? Take(uint about, uint last)
    {
        uint queue = about >> 16, head = about & 0xFFFF;
        int number = (ushort)last, index = number & 0xFF;
        if (queue != _layout.Number || head >= _layout.Entries)
        {
            return $"answered for queue {queue} at entry {head}, on the queue {_layout.Number} of {_layout.Entries} entries";
        }
        if (index >= _slots.Length || _slots[index] is not { Done: { } done } slot || slot.Number != number)
        {
            return $"answered command 0x{number:x4} on queue {_layout.Number}, which is not under way";
        }
        slot.Done = null;
        _busy--;
        if (slot.IsLeft)
        {
            _free.Push(slot);
            _ = _room.Release();
        }
        _ = done.TrySetResult(new NvmeStatus((ushort)(last >> 17)));
        return null;
    }

    /// <summary>Nobody waits any more; the memory is the command's until it is answered.</summary>
    private void Leave(Slot slot)
    {
        lock (_gate)
        {
            if (slot.Done is not null)
            {
                slot.IsLeft = true;
                return;
            }
        }
        Free(slot);
    }

    private void Free(Slot slot)
    {
        lock (_gate)
        {
            if (_isBroken)
            {
                return;
            }
            _free.Push(slot);
        }
        _ = _room.Release();
    }

    private ulong Address(int at) => _function.MemoryAddress + (ulong)at;

    /// <summary>Room for one command under way.</summary>
    private sealed class Slot(int index)
    {
        private int _turn; // so that an answer that comes twice is not taken for that of the next command

        public int Index => index;

        public int Number => index | (_turn << 8);

        public byte Opcode { get; private set; }

        public TaskCompletionSource<NvmeStatus?>? Done { get; set; }

        public long Deadline { get; private set; }

        public bool IsLeft { get; set; }

        public void Begin(byte opcode, TaskCompletionSource<NvmeStatus?> done, long deadline)
        {
            _turn = (_turn + 1) & 0xFF;
            (Opcode, Done, Deadline, IsLeft) = (opcode, done, deadline, false);
        }
    }
}

/// <summary>Where a queue lies in the memory that the controller sees. All offsets are whole pages.</summary>
/// <param name="Number">The queue's; 0 is the admin queue's.</param>
/// <param name="Entries">Of either queue, at most a page of them.</param>
/// <param name="Slots">Commands under way, fewer than entries.</param>
/// <param name="DataSize">Bytes of data of each, whole pages.</param>
/// <param name="Start">Where all of it begins.</param>
/// <param name="SubmissionDoorbell">The register that is told the tail of the submission queue.</param>
/// <param name="CompletionDoorbell">The register that is told the head of the completion queue.</param>
internal sealed record NvmeQueueLayout(
    int Number, int Entries, int Slots, int DataSize, int Start, long SubmissionDoorbell, long CompletionDoorbell)
{
    /// <summary>Where the queues are.</summary>
    public int SubmissionAt => Start;

    /// <inheritdoc cref="SubmissionAt"/>
    public int CompletionAt => Start + NvmeQueue.PageSize;

    /// <summary>Where it ends.</summary>
    public int End => ListAt(Slots);

    /// <summary>Where a command's list of pages is.</summary>
    public int ListAt(int slot) => Start + (2 * NvmeQueue.PageSize) + (slot * (NvmeQueue.PageSize + DataSize));

    /// <summary>Where its data is.</summary>
    public int DataAt(int slot) => ListAt(slot) + NvmeQueue.PageSize;
}
