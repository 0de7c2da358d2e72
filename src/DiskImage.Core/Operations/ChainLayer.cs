using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.Operations;

/// <summary>One image of a chain: the top, its backing image, and so on.</summary>
/// <param name="Path">Its full path.</param>
/// <param name="Format">Its format's name.</param>
/// <param name="Length">Its virtual size in bytes.</param>
/// <param name="Identity">Its file.</param>
/// <param name="CanBeEmptied">It can drop all that its own layer holds.</param>
/// <param name="DataFiles">Further files that hold its data.</param>
public sealed record ChainLayer(
    string Path, string Format, long Length, NodeIdentity? Identity, bool CanBeEmptied, IReadOnlyList<string> DataFiles)
{
    /// <summary>All of its files, for what a user agrees to.</summary>
    public string Files => WrittenFiles.Text(Path, DataFiles);

    /// <summary>The layers of an open image, the top first.</summary>
    public static IReadOnlyList<ChainLayer> Of(OpenedImage image)
    {
        var layers = new List<ChainLayer>();
        for (BlockNode? node = image.Node; node is not null; node = node.BackingNode())
        {
            ImageDescription? said = node.As<IDescribed>()?.Describe();
            string path = System.IO.Path.IsPathRooted(node.Name) ? System.IO.Path.GetFullPath(node.Name) : node.Name;
            layers.Add(new ChainLayer(
                path,
                said?.Format ?? image.Format.Name,
                node.Length,
                node.HolderIdentity(),
                node.As<IEmptiable>() is not null,
                WrittenFiles.Further(node)));
        }
        return layers;
    }
}
