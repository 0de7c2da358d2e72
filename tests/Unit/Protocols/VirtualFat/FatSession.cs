using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Protocols.VirtualFat;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.VirtualFat;

/// <summary>A folder that is open as a disk to write to, and a copy of the disk that mtools change.</summary>
internal sealed class FatSession : IAsyncDisposable
{
    private FatSession(WritableFatNode node, string image, bool isFloppy) => (Node, Image, IsFloppy) = (node, image, isFloppy);

    public WritableFatNode Node { get; }

    /// <summary>The copy.</summary>
    public string Image { get; }

    public bool IsFloppy { get; }

    /// <summary>Opens a folder by a text of the protocol's, and copies the disk.</summary>
    public static async Task<FatSession> OpenAsync(string locator, string image, string size = "")
    {
        ProtocolDriver driver = Images.Registry.Protocol("fat");
        IEnumerable<KeyValuePair<string, object?>> options = driver.Parse(locator);
        object bound = driver.Bind(size.Length == 0 ? options : options.Append(new("size", size)));
        var node = (WritableFatNode)await driver.OpenAsync(
            new ProtocolOpenContext(bound) { Access = Access.Writing }, CancellationToken.None);
        await FatTools.SaveAsync(node, image);
        return new FatSession(node, image, locator.Contains(":floppy:", StringComparison.Ordinal));
    }

    /// <summary>Has mtools change the copy: the arguments behind the image.</summary>
    public void Tool(string program, params string[] arguments)
        => _ = FatTools.Run(program, ["-i", FatTools.At(Image, IsFloppy), .. arguments]);

    /// <summary>Writes what is changed in the copy to the disk.</summary>
    public async Task SendAsync()
    {
        await using FileStream file = File.OpenRead(Image);
        byte[] ours = new byte[64 << 10], theirs = new byte[ours.Length];
        for (long at = 0; at < Node.Length; at += ours.Length)
        {
            int count = (int)Math.Min(ours.Length, Node.Length - at);
            await Node.ReadAsync(at, ours.AsMemory(0, count));
            await file.ReadExactlyAsync(theirs.AsMemory(0, count));
            for (int sector = 0; sector < count; sector += 512)
            {
                if (!ours.AsSpan(sector, 512).SequenceEqual(theirs.AsSpan(sector, 512)))
                {
                    await Node.WriteAsync(at + sector, theirs.AsMemory(sector, 512));
                }
            }
        }
    }

    public ValueTask DisposeAsync() => Node.DisposeAsync();
}
