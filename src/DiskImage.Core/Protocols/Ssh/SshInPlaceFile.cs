using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Protocols.Ssh;

/// <summary>A file that a new image is written into, with the connection that ends when it is done.</summary>
/// <param name="file">The file.</param>
/// <param name="server">Where it is.</param>
internal sealed class SshInPlaceFile(InPlaceFile file, SshServer server) : PendingNode(file.Place)
{
    public override BlockNode Node => file.Node;

    public override ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
        => file.OpenAsync(writable, cancellationToken);

    public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
        => file.PublishAsync(durable, revocable, cancellationToken);

    public override void Withdraw() => file.Withdraw();

    public override async ValueTask DisposeAsync()
    {
        await file.DisposeAsync().ConfigureAwait(false);
        await server.DisposeAsync().ConfigureAwait(false);
    }
}
