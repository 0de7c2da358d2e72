namespace DiskImage.Block;

/// <summary>A disk that can repair its own structures. It is opened for that with the checks of an ordinary open relaxed.</summary>
public interface IRepairable : ICheckable
{
    /// <summary>
    /// Repairs, checks again, and reports what is left, with what was fixed counted in
    /// <see cref="CheckReport.CorruptionsFixed"/> and <see cref="CheckReport.LeaksFixed"/>.
    /// </summary>
    ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken);
}

/// <summary>What a repair may touch.</summary>
public enum RepairMode
{
    /// <summary>Only give back space that nothing uses: cannot lose data.</summary>
    Leaks,

    /// <summary>Everything that can be repaired.</summary>
    All,
}
