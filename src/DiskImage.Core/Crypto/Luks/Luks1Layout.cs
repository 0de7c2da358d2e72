using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>
/// Whether the slots of a version 1 header lie where they can: each by itself, against the data and against each other. What is one
/// record's fault is told from what is the header's: a slot that is where its neighbours say it should be, and yet lies on the data, says
/// that the data's offset is wrong, and then nothing is safe.
/// </summary>
internal static class Luks1Layout
{
    private const int MostStripes = 1 << 16; // ours

    /// <summary>What is wrong with each record, by the number of its slot.</summary>
    /// <param name="header">The header.</param>
    /// <param name="area">Where it is.</param>
    /// <param name="states">The state of each slot, as stored.</param>
    /// <exception cref="DiskImageException">Corrupt: the header as a whole is.</exception>
    public static Dictionary<int, Luks1Fault> Faults(Luks1Header header, LuksArea area, ReadOnlySpan<uint> states)
    {
        var faults = new Dictionary<int, Luks1Fault>();
        for (int i = 0; i < Luks1Header.Slots; i++)
        {
            if (Fault(header, area, i, states[i]) is { } fault)
            {
                faults[i] = new(fault, CanBeTried: false);
            }
        }
        for (int i = 0; i < Luks1Header.Slots; i++)
        {
            for (int j = i + 1; j < Luks1Header.Slots; j++)
            {
                if (IsWithin(faults, i) && IsWithin(faults, j) && Overlap(header, i, j))
                {
                    // which of the two records is the wrong one, nothing says
                    _ = faults.TryAdd(i, new(Overlapping(header, i, j), CanBeTried: true));
                    _ = faults.TryAdd(j, new(Overlapping(header, j, i), CanBeTried: true));
                }
            }
        }
        return faults.Count < Luks1Header.Slots
            ? faults
            : throw area.Wrong(DiskImageErrorKind.Corrupt, faults[0].What, Luks1Header.RecordAt(0));
    }

    private static Wording? Fault(Luks1Header header, LuksArea area, int number, uint state)
    {
        Luks1Slot slot = header.KeySlots[number];
        if (state is not (Luks1Slot.Active or Luks1Slot.Dead))
        {
            return $"key slot {number} is in the state {state:x8}; allowed: {Luks1Slot.Active:x8} (active), {Luks1Slot.Dead:x8} (not)";
        }
        if (slot.Stripes is 0 or > MostStripes)
        {
            return $"key slot {number} has {slot.Stripes:#,0} stripes; allowed: 1 to {MostStripes:#,0}";
        }
        if (slot.IsActive && slot.Iterations is 0 or > int.MaxValue)
        {
            return $"key slot {number} has {slot.Iterations:#,0} iterations; allowed: 1 to {int.MaxValue:#,0}";
        }
        long limit = header.Payload == 0 ? area.Length : Math.Min(header.Payload, area.Length), end = header.AreaEnd(slot);
        if (end > limit)
        {
            Wording what =
                $"key slot {number} lies at {slot.Offset:#,0} to {end:#,0}; allowed: up to {limit:#,0}, where the data begins";
            return IsRegular(header.KeySlots, number)
                ? throw area.Wrong(DiskImageErrorKind.Corrupt, what, Luks1Header.RecordAt(number))
                : what;
        }
        if (slot.Offset < Luks1Header.Bytes)
        {
            return $"key slot {number} at {slot.Offset:#,0} to {end:#,0} overlaps the header at 0 to {Luks1Header.Bytes}";
        }
        return null;
    }

    private static bool IsWithin(Dictionary<int, Luks1Fault> faults, int slot)
        => !faults.TryGetValue(slot, out Luks1Fault? fault) || fault.CanBeTried;

    private static bool Overlap(Luks1Header header, int one, int other)
        => header.KeySlots[one].Offset < header.AreaEnd(header.KeySlots[other])
            && header.KeySlots[other].Offset < header.AreaEnd(header.KeySlots[one]);

    private static Wording Overlapping(Luks1Header header, int one, int other)
        => $"key slot {one} at {header.KeySlots[one].Offset:#,0} to {header.AreaEnd(header.KeySlots[one]):#,0} overlaps "
            + $"key slot {other} at {header.KeySlots[other].Offset:#,0} to {header.AreaEnd(header.KeySlots[other]):#,0}";

    /// <summary>A slot is where the two next to it say, and like them.</summary>
    private static bool IsRegular(IReadOnlyList<Luks1Slot> slots, int number)
    {
        int step = number + 2 < slots.Count ? 1 : -1;
        Luks1Slot near = slots[number + step], far = slots[number + (2 * step)];
        return slots[number].Offset == near.Offset - (far.Offset - near.Offset) && slots[number].Stripes == near.Stripes;
    }
}
