using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.Operations;

/// <summary>
/// Puts an image's structures right: first looks, then, if that is wanted, repairs. From the first look on nobody else may write to it,
/// until it is repaired or this is disposed of.
/// </summary>
/// <param name="front">Who asks.</param>
/// <param name="image">How the image is opened.</param>
public sealed class RepairOperation(IFrontEnd front, OpenRequest image) : IDisposable
{
    private readonly KeptLocks _kept = new(); // between looking and repairing

    private readonly OpenRequest _request = image with { WithBacking = false, ForRepair = true };

    private CheckOperation Check => new(front, _request);

    /// <summary>What is wrong now, and the files that a repair would write to.</summary>
    /// <exception cref="DiskImageException">Unsupported: such images cannot be repaired; what the check says.</exception>
    public async Task<(CheckOutcome Found, string Files)> FindAsync(CancellationToken cancellationToken)
    {
        OpenedImage opened = await front.OpenAsync(_request, cancellationToken).ConfigureAwait(false);
        await using (opened.ConfigureAwait(false))
        {
            _ = opened.Require<IRepairable>("cannot be repaired");
            CheckOutcome found = await Check.CheckAsync(opened, [], cancellationToken).ConfigureAwait(false);
            _kept.Keep(opened.Node);
            return (found, WrittenFiles.Of(opened));
        }
    }

    /// <summary>Repairs, durably; what is wrong then.</summary>
    /// <param name="mode">What may be repaired.</param>
    /// <param name="cancellationToken">Stops it between two steps.</param>
    public async Task<CheckOutcome> RunAsync(RepairMode mode, CancellationToken cancellationToken)
    {
        OpenedImage opened = await front.OpenAsync(
            _request with { Writable = true, Kept = _kept.Locks }, cancellationToken).ConfigureAwait(false);
        await using (opened.ConfigureAwait(false))
        {
            IRepairable repairable = opened.Require<IRepairable>("cannot be repaired");
            CheckOutcome outcome = await Check.ReportAsync(
                opened, "Repair", bytes => repairable.RepairAsync(mode, bytes, cancellationToken), []).ConfigureAwait(false);
            await opened.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            return outcome;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _kept.Dispose();

    /// <summary>Adds what is wrong with the parent, which no repair changes, to what is known of a sound image.</summary>
    public async Task<CheckOutcome> WithParentAsync(CheckOutcome outcome, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(outcome);
        if (!outcome.IsConsistent)
        {
            return outcome; // what is wrong may keep it from being opened at all
        }
        OpenedImage opened = await front.OpenAsync(_request with { ForRepair = false }, cancellationToken).ConfigureAwait(false);
        await using (opened.ConfigureAwait(false))
        {
            return outcome with
            {
                Also = [.. await Check.ParentFaultsAsync(opened, cancellationToken).ConfigureAwait(false), .. outcome.Also],
            };
        }
    }
}
