using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary><c>Test-DiskImage</c>: checks an image's structures and changes nothing.</summary>
[Cmdlet(VerbsDiagnostic.Test, "DiskImage", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageCheckResult), typeof(bool))]
public sealed class TestDiskImageCommand : CheckCmdlet
{
    /// <summary>Also says why a service or program would refuse the image.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(ProfileNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Profile { get; set; }

    /// <summary>Returns only whether the image is consistent, and with a profile whether it would be taken.</summary>
    [Parameter]
    public SwitchParameter Quiet { get; set; }

    /// <summary>Reads images that another program has open for writing. What is read may then not fit together.</summary>
    [Parameter]
    public SwitchParameter ForceShare { get; set; }

    /// <inheritdoc/>
    private protected override bool ReadsAlongWriters => ForceShare;

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
                $"The name ends with {ImageCreator.IncompleteSuffix}: the image is still being made, or was left "
                    + $"by a program that did not finish it."));
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
                also.Add(new CheckFinding("Unreadable", CheckSeverity.Corruption, RemedyWords.Say(e), HostOffset: e.Offset));
            }
            result = DiskImageCheckResult.Of(path, Format, new CheckReport { Findings = [] }, also);
        }
        await OutputAsync(Quiet ? result.IsConsistent && result.ProfileRefusals.Count == 0 : result).ConfigureAwait(false);
    }

    private async Task<DiskImageCheckResult> CheckAsync(string path, List<CheckFinding> also, CancellationToken cancellationToken)
    {
        ImageProfile? profile = ImageProfile.Find(Profile);
        OpenedImage image = await OpenAsync(
            Request(path) with { WithBacking = false, ToDescribe = true }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            also.AddRange(await ParentFaultsAsync(image, path, cancellationToken).ConfigureAwait(false));
            also.AddRange(UnopenedFiles(image));
            also.AddRange(await BrokenBitmapsAsync(image, cancellationToken).ConfigureAwait(false));
            DiskImageCheckResult result = profile is not null && image.Node.As<ICheckable>() is null
                ? DiskImageCheckResult.Of(image.Path, image.Format.Name, new CheckReport { Findings = [] }, also)
                : await CheckAsync(image, also, cancellationToken).ConfigureAwait(false);
            return profile is null
                ? result
                : result.RefusedFor(profile.Objections(image).Select(o => $"{profile.Name} would refuse it: {o}."));
        }
    }
}
