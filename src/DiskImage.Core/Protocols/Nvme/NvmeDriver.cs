using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Nvme;

/// <summary>Namespaces of NVMe controllers that this process drives by itself.</summary>
/// <param name="controllers">Where controllers come from.</param>
internal sealed class NvmeDriver(NvmeControllers controllers) : ProtocolDriver, IStorage
{
    public override string Name => NvmeLocator.Scheme;

    public override string Description => "A namespace of an NVMe controller by way of vfio-pci: nvme://0000:44:00.0/1";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<NvmeOptions>();

    public override bool NeedsPermissionToWrite => true;

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => NvmeLocator.Parse(locator);

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
        => NvmeLocator.Checked((NvmeOptions)OpenOptions.Bind(values));

    public override string NameOf(object options) => ((NvmeOptions)options).Url;

    public override NodeIdentity? IdentityOf(object options) => new(NameOf(options));

    public override ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
        => OpenAsync((NvmeOptions)context.Options, context.Access.Writes, cancellationToken);

    public async ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        var options = (NvmeOptions)Bind(Parse(locator));
        BlockNode there = await OpenAsync(options, writable: true, cancellationToken).ConfigureAwait(false);
        await using (there.ConfigureAwait(false))
        {
            // As with every disk of this machine, what is made is written into it.
            TargetMode taken = mode == TargetMode.New ? TargetMode.InPlace : mode;
            return new StoragePlace(options.Url, locator, taken, there.Identity, OtherNames: 0);
        }
    }

    public ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        var options = (NvmeOptions)Bind(Parse(place.Address));
        return OccupiedPlace.BeginAsync(place, (writable, token) => OpenAsync(options, writable, token), cancellationToken);
    }

    private async ValueTask<BlockNode> OpenAsync(NvmeOptions options, bool writable, CancellationToken cancellationToken)
    {
        NvmeLease lease = await controllers.TakeAsync(options.Url, options.Device, cancellationToken).ConfigureAwait(false);
        try
        {
            NvmeNamespace space = await lease.Controller.IdentifyAsync(
                options.Url, (uint)options.Namespace, cancellationToken).ConfigureAwait(false);
            return writable && space.IsReadOnly
                ? throw new DiskImageException(
                    DiskImageErrorKind.ReadOnly, $"{options.Url}: it is write-protected, so it cannot be written to", options.Url)
                : new NvmeNode(options.Url, new(options.Url), lease, space, writable);
        }
        catch
        {
            await lease.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }
}
