using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Measure-DiskImagePerformance</c>: times requests to a disk.</summary>
[Cmdlet(VerbsDiagnostic.Measure, "DiskImagePerformance", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImagePerformance))]
public sealed class MeasureDiskImagePerformanceCommand : ReadImageCmdlet
{
    private const int LargestBuffer = 1 << 30, MostAtOnce = 1024; // ours

    /// <summary>How many requests.</summary>
    [Parameter]
    [ValidateRange(1, long.MaxValue)]
    public long Count { get; set; } = 75000;

    /// <summary>How many requests at once.</summary>
    [Parameter]
    [ValidateRange(1, MostAtOnce)]
    public int Depth { get; set; } = 64;

    /// <summary>Bytes of a request.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(1, LargestBuffer)]
    public long BufferSize { get; set; } = 4096;

    /// <summary>Bytes from one request to the next; those of a request if absent.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(1, long.MaxValue)]
    public long? StepSize { get; set; }

    /// <summary>The first byte of the first request. After the last that fits the next is there again.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Offset { get; set; }

    /// <summary>Writes instead of reading: the disk's contents are lost where the requests are.</summary>
    [Parameter]
    public SwitchParameter Write { get; set; }

    /// <summary>Writes to a temporary overlay, which is gone afterwards: the image stays as it is.</summary>
    [Parameter]
    public SwitchParameter TemporaryOverlay { get; set; }

    /// <summary>The byte that is written.</summary>
    [Parameter]
    public byte Pattern { get; set; }

    /// <summary>Flushes after so many writes; 0 for never.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long FlushInterval { get; set; }

    /// <summary>Does not wait for the requests under way before a flush.</summary>
    [Parameter]
    public SwitchParameter NoDrain { get; set; }

    /// <inheritdoc/>
    private protected override OpenRequest Request(string path) => base.Request(path) with { TemporaryOverlay = TemporaryOverlay };

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        if (WrongTogether() is { } wrong)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{path}: {wrong}", path);
        }
        var shape = new BenchShape((int)BufferSize, Offset, StepSize ?? BufferSize, Write, Pattern, FlushInterval, Drains: !NoDrain);
        if (Write && !await AgreeAsync(path, cancellationToken).ConfigureAwait(false))
        {
            return;
        }
        OpenedImage image = await OpenAsync(path, cancellationToken, writable: Write).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            BenchResult result = await ShowAsync(
                $"Timing requests to {Leaf(image.Path)}",
                progress => new BenchJob(image.Node, shape, Count, Depth).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
            await OutputAsync(
                DiskImagePerformance.Of(image.Path, image.Format.Name, shape, Depth, result)).ConfigureAwait(false);
        }
    }

    /// <summary>What parameters say that cannot be meant; null for nothing.</summary>
    private string? WrongTogether()
    {
        string? ofWrites = new[] { nameof(TemporaryOverlay), nameof(Pattern), nameof(FlushInterval), nameof(NoDrain) }
            .FirstOrDefault(MyInvocation.BoundParameters.ContainsKey);
        return !Write && ofWrites is not null ? $"-{ofWrites} is about requests that write, so it needs -{nameof(Write)}."
            : Write && ForceShare ? $"-{nameof(ForceShare)} is for reading: what is written to is not shared. Leave out one of the two."
            : FlushInterval > 0 && FlushInterval < Depth
                ? $"a -{nameof(FlushInterval)} of {FlushInterval:#,0} is less than the {Depth:#,0} requests at once (-{nameof(Depth)})."
            : NoDrain && FlushInterval == 0 ? $"-{nameof(NoDrain)} says how is flushed, so it needs -{nameof(FlushInterval)}."
            : null;
    }

    private async Task<bool> AgreeAsync(string path, CancellationToken cancellationToken)
    {
        string files = await LookAsync(
            path,
            image => new ValueTask<string>(WrittenFiles.Of(image)),
            cancellationToken,
            beforeWriting: true).ConfigureAwait(false);
        string requests = $"{Count:#,0} writes of {BufferSize:#,0} bytes from offset {Offset:#,0} on";
        return await (TemporaryOverlay
            ? ConfirmAsync(files, $"Send {requests} to a temporary overlay of it")
            : ConfirmLossAsync(files, $"Lose its contents to {requests}")).ConfigureAwait(false);
    }
}
