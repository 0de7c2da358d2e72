using System.Management.Automation;
using DiskImage.Operations;

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
        ImageProfile? profile = ImageProfile.Find(Profile);
        IReadOnlyList<string> refusals = [];
        CheckOutcome outcome = await new CheckOperation(this, Request(path)).RunAsync(
            mayLackCheck: profile is not null,
            profile is null ? null : image => refusals =
                [.. profile.Objections(image).Select(o => $"{profile.Name} would refuse it: {o}.")],
            cancellationToken).ConfigureAwait(false);
        DiskImageCheckResult result = DiskImageCheckResult.Of(outcome).RefusedFor(refusals);
        await OutputAsync(Quiet ? result.IsConsistent && result.ProfileRefusals.Count == 0 : result).ConfigureAwait(false);
    }
}
