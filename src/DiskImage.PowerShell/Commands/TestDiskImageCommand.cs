using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary><c>Test-DiskImage</c>: checks an image's structures and changes nothing.</summary>
[Cmdlet(VerbsDiagnostic.Test, "DiskImage", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageCheckResult), typeof(bool))]
public sealed class TestDiskImageCommand : CheckCmdlet
{
    /// <summary>Returns only whether the image is consistent.</summary>
    [Parameter]
    public SwitchParameter Quiet { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        bool unfinished = path.EndsWith(ImageCreator.IncompleteSuffix, StringComparison.OrdinalIgnoreCase);
        var also = new List<CheckFinding>();
        if (unfinished)
        {
            also.Add(new CheckFinding(
                "Incomplete",
                CheckSeverity.Corruption,
                $"The name ends with {ImageCreator.IncompleteSuffix}: the image is still being made, or was left by a program that did not finish it."));
        }
        DiskImageCheckResult result;
        try
        {
            result = await CheckAsync(path, also, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (IsDefect(e.Kind) || (unfinished && e.Kind == DiskImageErrorKind.Unsupported))
        {
            // An image that is too damaged to be opened is not an obstacle to the check but its result.
            if (IsDefect(e.Kind))
            {
                also.Add(new CheckFinding("Unreadable", CheckSeverity.Corruption, e.Message, HostOffset: e.Offset));
            }
            result = DiskImageCheckResult.Of(path, Format, new CheckReport { Findings = [] }, also);
        }
        await OutputAsync(Quiet ? result.IsConsistent : result).ConfigureAwait(false);
    }

    private static bool IsDefect(DiskImageErrorKind kind) => kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat;

    private async Task<DiskImageCheckResult> CheckAsync(string path, List<CheckFinding> also, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(path, cancellationToken, withBacking: false).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            return await CheckAsync(image, also, cancellationToken).ConfigureAwait(false);
        }
    }
}
