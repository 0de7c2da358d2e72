using System.Management.Automation;
using DiskImage.Protocols.Iscsi;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageIscsiTarget</c>: the iSCSI targets of a server and their logical units.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageIscsiTarget")]
[OutputType(typeof(DiskImageIscsiTarget))]
public sealed class GetDiskImageIscsiTargetCommand : DiskImageCmdlet
{
    /// <summary>Servers: host, host:port, or the URL of a unit.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true)]
    [Alias("ComputerName", "TargetPortal")]
    [ValidateNotNullOrEmpty]
    public string[] Server { get; set; } = [];

    /// <summary>Names of targets; wildcards are expanded. All if absent.</summary>
    [Parameter(Position = 1)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Name { get; set; } = ["*"];

    /// <summary>User and password at the targets (CHAP).</summary>
    [Parameter]
    [ValidateNotNull]
    [Credential]
    public PSCredential? Credential { get; set; }

    /// <summary>Name and password with which the targets are to prove who they are (mutual CHAP).</summary>
    [Parameter]
    [ValidateNotNull]
    [Credential]
    public PSCredential? TargetCredential { get; set; }

    /// <summary>The initiator's name; one of this machine's if absent.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? InitiatorName { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord() => Run(async cancellationToken =>
    {
        foreach (string server in Server)
        {
            await RunItemAsync(server, () => ListAsync(server, cancellationToken)).ConfigureAwait(false);
        }
    });

    private async Task ListAsync(string server, CancellationToken cancellationToken)
    {
        var listing = new IscsiListing(server)
        {
            InitiatorName = InitiatorName,
            User = Credential?.UserName,
            Password = Credential?.Password,
            TargetUser = TargetCredential?.UserName,
            TargetPassword = TargetCredential?.Password,
        };
        await foreach (ListedUnit unit in IscsiTargetList.OfAsync(listing, IsMeant, cancellationToken).ConfigureAwait(false))
        {
            if (unit.Problem is { } problem)
            {
                await RunItemAsync(unit.Url, () => Task.FromException(problem)).ConfigureAwait(false);
            }
            await OutputAsync(new DiskImageIscsiTarget
            {
                Target = unit.Target,
                Portals = new(unit.Portals),
                Lun = unit.Lun,
                Kind = unit.Kind,
                VirtualSize = unit.Length,
                BlockSize = unit.BlockSize,
                Model = unit.Model,
                SerialNumber = unit.Serial,
                IsReadOnly = unit.IsReadOnly,
                IsThin = unit.IsThin,
                Uri = unit.Url,
            }).ConfigureAwait(false);
        }
    }

    private bool IsMeant(string target)
        => Array.Exists(Name, n => WildcardPattern.Get(n, WildcardOptions.IgnoreCase).IsMatch(target));
}
