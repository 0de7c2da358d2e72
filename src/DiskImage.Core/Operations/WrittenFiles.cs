using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.Operations;

/// <summary>The files that a change of an image writes to: what a user agrees to names them all.</summary>
public static class WrittenFiles
{
    /// <summary>An image and the further files that hold its data, for <c>-WhatIf</c> and <c>-Confirm</c>.</summary>
    public static string Text(string path, IReadOnlyList<string> further)
        => further.Count == 0 ? path : $"{path} and its data file {string.Join(", ", further)}";

    /// <inheritdoc cref="Text"/>
    public static string Of(OpenedImage image) => Text(image.Path, Further(image.Node));

    /// <summary>The files of a disk's own layer that hold its data beside the one that bears its name.</summary>
    public static IReadOnlyList<string> Further(BlockNode node)
        => [.. node.Children.Where(c => c.Key is not ("file" or "backing")).Select(c => c.Value.Name)];
}
