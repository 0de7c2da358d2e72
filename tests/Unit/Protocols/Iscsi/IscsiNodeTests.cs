using DiskImage.Block;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Iscsi;

/// <summary>A unit with blocks of 512 bytes keeps the contract of nodes.</summary>
public sealed class IscsiNodeTests : NodeConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        var target = new ScriptedTarget([.. contents]);
        return new ServedNode(await Images.OpenAsync(target.Url, "raw", writable), target);
    }

    /// <summary>Closes the target behind the disk.</summary>
    private sealed class ServedNode(BlockNode disk, ScriptedTarget target) : FilterNode(disk)
    {
        protected override bool OwnsChildren => false;

        protected override async ValueTask CloseCoreAsync()
        {
            await Below.DisposeAsync();
            await target.DisposeAsync();
        }
    }
}
