using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A state of a disk that its image keeps.</summary>
/// <param name="Path">The image's full path, or its URI.</param>
/// <param name="Id">The identifier, unique in the image.</param>
/// <param name="Name">The name, which need not be unique.</param>
/// <param name="VmStateSize">Bytes of virtual machine state kept with it.</param>
/// <param name="Date">When it was taken.</param>
/// <param name="VmClock">How long the virtual machine had run.</param>
/// <param name="ICount">Instructions the virtual machine had executed; null if not recorded.</param>
/// <param name="VirtualSize">Bytes of the disk when it was taken.</param>
public sealed record DiskImageSnapshot(
    string Path, string Id, string Name, long VmStateSize, DateTimeOffset Date, TimeSpan VmClock, long? ICount, long VirtualSize)
{
    internal static DiskImageSnapshot Of(string path, DiskSnapshot snapshot)
        => new(path, snapshot.Id, snapshot.Name, snapshot.VmStateSize, snapshot.Date, snapshot.VmClock, snapshot.ICount, snapshot.VirtualSize);

    /// <inheritdoc/>
    public override string ToString() => Printable.Of($"{Id}: {Name}");
}

/// <summary>A dirty bitmap that an image keeps: which parts of the disk were written since it was cleared.</summary>
/// <param name="Path">The image's full path, or its URI.</param>
/// <param name="Name">Its name, unique in the image.</param>
/// <param name="Granularity">Bytes that one bit stands for.</param>
/// <param name="Flags">QEMU's words: <c>auto</c> (it records writes), <c>in-use</c> (it was not saved properly and can only be removed).</param>
/// <param name="DirtyBytes">Bytes that its set bits stand for; null if it is in use.</param>
public sealed record DiskImageBitmap(string Path, string Name, long Granularity, IReadOnlyList<string> Flags, long? DirtyBytes)
{
    internal static DiskImageBitmap Of(string path, DiskBitmap bitmap)
        => new(path, bitmap.Name, bitmap.Granularity, Words(bitmap).ToArray(), bitmap.DirtyBytes);

    /// <inheritdoc/>
    public override string ToString() => Printable.Of(Name);

    private static IEnumerable<string> Words(DiskBitmap bitmap)
    {
        if (bitmap.IsInUse)
        {
            yield return "in-use";
        }
        if (bitmap.IsEnabled)
        {
            yield return "auto";
        }
    }
}
