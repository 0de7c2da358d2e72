using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Ssh;

/// <summary>Files of SSH servers, by the system's OpenSSH and SFTP.</summary>
/// <param name="program">The system's OpenSSH; null for what the environment says whenever it is needed.</param>
internal sealed class SshDriver(SshProgram? program = null) : ProtocolDriver, IStorage
{
    private readonly SshConnections _connections = new();

    public override string Name => "ssh";

    public override string Description => "A file of an SSH server, by SFTP: ssh://user@host/path";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<SshOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => SshLocator.Parse(locator);

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        // QEMU's older forms of server.host, server.port
        static string Full(string option) => option is "host" or "port" ? $"server.{option}" : option;
        var options = (SshOptions)OpenOptions.Bind(values.Select(v => KeyValuePair.Create(Full(v.Key), v.Value)));
        _ = SshPlace.Of(options);
        return options;
    }

    public override string NameOf(object options) => SshPlace.Of((SshOptions)options).Name;

    public override NodeIdentity? IdentityOf(object options) => SshStorage.IdentityOf(SshPlace.Of((SshOptions)options));

    public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        var storage = new SshStorage(Program, context.Secrets, context.Warn, _connections);
        return await storage.OpenAsync(
            SshPlace.Of((SshOptions)context.Options), context.Access.Writes, cancellationToken).ConfigureAwait(false);
    }

    public IStorage ForUser(IReadOnlyDictionary<string, System.Security.SecureString> secrets, Action<Wording> warn)
        => new SshStorage(Program, secrets, warn, _connections);

    public ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
        => Own.LookAsync(locator, mode, cancellationToken);

    public ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
        => Own.BeginAsync(place, traits, cancellationToken);

    public ValueTask RemoveAsync(string locator, NodeIdentity identity) => Own.RemoveAsync(locator, identity);

    private SshProgram Program => program ?? SshProgram.FromEnvironment();

    private SshStorage Own => new(Program, new ProtocolOpenContext(new SshOptions()).Secrets, static _ => { }, _connections);
}
