using System.Management.Automation;

namespace DiskImage.PowerShell;

/// <summary><c>Test-DiskImageSecret</c>: whether a secret opens encrypted images.</summary>
[Cmdlet(VerbsDiagnostic.Test, "DiskImageSecret", DefaultParameterSetName = PathSet)]
[OutputType(typeof(bool))]
public sealed class TestDiskImageSecretCommand : KeySlotCmdlet
{
    /// <summary>Reads images that another program has open for writing. What is read may then not fit together.</summary>
    [Parameter]
    public SwitchParameter ForceShare { get; set; }

    /// <inheritdoc/>
    private protected override bool ReadsAlongWriters => ForceShare;

    /// <inheritdoc/>
    private protected override bool GivesSecrets => false;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string image, int? slot) = await LookAsync(
            path,
            async opened => (
                opened.Path,
                await Slots(opened).FindKeySlotAsync(SecretFor(opened.Path), cancellationToken).ConfigureAwait(false)),
            cancellationToken).ConfigureAwait(false);
        await VerboseAsync(slot is int number
            ? $"{image}: the secret opens key slot {number}"
            : $"{image}: the secret opens no key slot").ConfigureAwait(false);
        await OutputAsync(slot is not null).ConfigureAwait(false);
    }
}
