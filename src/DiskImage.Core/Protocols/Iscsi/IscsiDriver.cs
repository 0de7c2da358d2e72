using System.Security;
using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Iscsi;

/// <summary>Logical units of iSCSI targets.</summary>
internal sealed class IscsiDriver : ProtocolDriver, IStorage
{
    private IReadOnlyDictionary<string, SecureString> _secrets = new Dictionary<string, SecureString>(StringComparer.Ordinal);

    public override string Name => IscsiLocator.Scheme;

    public override string Description => "A logical unit of an iSCSI target: iscsi://[user@]host[:port]/target/lun";

    public override IReadOnlyList<string> Schemes => [IscsiLocator.Scheme, .. IscsiLocator.RdmaSchemes]; // the latter to be refused

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<IscsiOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => IscsiLocator.Parse(locator);

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        var options = Bound(values);
        options.Check(needsTarget: true);
        return options;
    }

    public override string NameOf(object options) => ((IscsiOptions)options).Url;

    public override NodeIdentity? IdentityOf(object options) => IdentityOf((IscsiOptions)options);

    /// <summary>The identity of a unit: the target's name is its own in all the world, whichever portal leads to it.</summary>
    public static NodeIdentity IdentityOf(IscsiOptions options) => new($"iscsi:{options.Target.ToLowerInvariant()}/{options.Lun}");

    public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
        => await OpenAsync((IscsiOptions)context.Options, context.Access.Writes, context.Secrets, cancellationToken).ConfigureAwait(false);

    public IStorage ForUser(IReadOnlyDictionary<string, SecureString> secrets, Action<Wording> warn)
        => new IscsiDriver { _secrets = secrets };

    public ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        var options = (IscsiOptions)Bind(Parse(locator));
        return mode == TargetMode.InPlace
            ? new(new StoragePlace(options.Url, locator, mode, IdentityOf(options), OtherNames: 0))
            : throw new DiskImageException(
                DiskImageErrorKind.AlreadyExists,
                $"{options.Url}: a unit is there already and cannot be replaced, only written to. If that is meant, allow it "
                    + $"with {new Remedy(RemedyKind.InPlace)}.",
                options.Url);
    }

    public ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        var options = (IscsiOptions)Bind(Parse(place.Address));
        return OccupiedPlace.BeginAsync(place, (writable, token) => OpenAsync(options, writable, _secrets, token), cancellationToken);
    }

    /// <summary>Opens a unit.</summary>
    public static async ValueTask<BlockNode> OpenAsync(
        IscsiOptions given, bool writable, IReadOnlyDictionary<string, SecureString> secrets, CancellationToken cancellationToken)
    {
        IscsiOptions options = IscsiConfiguration.Under(given);
        IscsiLink link = await IscsiLink.OpenAsync(
            new IscsiWay(
                options.Url,
                options.Address,
                WishesOf(options, secrets),
                (int)options.Lun,
                TimeSpan.FromSeconds(options.ReconnectDelay),
                TimeSpan.FromSeconds(options.Timeout ?? 0)),
            cancellationToken).ConfigureAwait(false);
        try
        {
            ScsiUnit unit = link.Unit;
            if (!unit.IsDisk)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{options.Url}: is a {unit.Kind}, not a disk", options.Url);
            }
            if (writable && unit.IsReadOnly)
            {
                string why = unit.Kind is "CD-ROM" ? "is a CD-ROM" : "is write-protected";
                throw new DiskImageException(
                    DiskImageErrorKind.ReadOnly, $"{options.Url}: {why}, so it cannot be written to", options.Url);
            }
            return new IscsiNode(options.Url, IdentityOf(options), link, writable);
        }
        catch
        {
            await link.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>What a login to a target is to be like.</summary>
    public static IscsiWishes WishesOf(IscsiOptions options, IReadOnlyDictionary<string, SecureString> secrets)
    {
        string initiator = options.InitiatorName ?? IscsiIdentity.InitiatorName;
        return new IscsiWishes
        {
            InitiatorName = IscsiLocator.IsName(initiator) ? initiator : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"'{initiator}' is no name of an initiator. Names begin with iqn., eui. or naa."),
            Target = options.Target.Length > 0 ? options.Target : null,
            HeaderDigest = TextOf(options.HeaderDigest ?? IscsiDigest.NoneCrc32C),
            DataDigest = TextOf(options.DataDigest),
            Credentials = IscsiIdentity.CredentialsOf(options, secrets),
            SessionId = NewSessionId(),
        };
    }

    /// <summary>The options as they were given, whether or not they lead to a target.</summary>
    public IscsiOptions Bound(IEnumerable<KeyValuePair<string, object?>> values)
    {
        KeyValuePair<string, object?>[] all = [.. values];
        SecureString? Taken(string name) => all.LastOrDefault(v => v.Key.Equals(name, StringComparison.Ordinal)).Value switch
        {
            SecureString secret => secret,
            string text => new System.Net.NetworkCredential("", text).SecurePassword,
            _ => null,
        };
        var options = (IscsiOptions)OpenOptions.Bind(all.Where(v => v.Key is not (IscsiLocator.Password or IscsiLocator.TargetPassword)));
        return options with { Password = Taken(IscsiLocator.Password), TargetPassword = Taken(IscsiLocator.TargetPassword) };
    }

    /// <summary>A session number of the random kind. Spec: RFC 7143, section 11.12.5.</summary>
    private static byte[] NewSessionId()
    {
        byte[] id = RandomNumberGenerator.GetBytes(6);
        id[0] = 0x80;
        return id;
    }

    private static string TextOf(IscsiDigest digest) => digest switch
    {
        IscsiDigest.Crc32C => "CRC32C",
        IscsiDigest.Crc32CNone => "CRC32C,None",
        IscsiDigest.NoneCrc32C => "None,CRC32C",
        _ => "None",
    };
}
