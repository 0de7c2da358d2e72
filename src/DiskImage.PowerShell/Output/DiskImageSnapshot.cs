using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A state of a disk that its image keeps.</summary>
public sealed class DiskImageSnapshot(
    string path, string id, string name, long vmStateSize, DateTime date, TimeSpan vmClock, long? iCount, long virtualSize)
{
    /// <summary>The image's full path, or its URI.</summary>
    public string Path { get; } = path;

    /// <summary>The identifier, unique in the image.</summary>
    public string Id { get; } = id;

    /// <summary>The name, which need not be unique.</summary>
    public string Name { get; } = name;

    /// <summary>Bytes of virtual machine state kept with it.</summary>
    public long VmStateSize { get; } = vmStateSize;

    /// <summary>When it was taken, in local time.</summary>
    public DateTime Date { get; } = date;

    /// <summary>How long the virtual machine had run.</summary>
    public TimeSpan VmClock { get; } = vmClock;

    /// <summary>Instructions the virtual machine had executed; null if not recorded.</summary>
    public long? ICount { get; } = iCount;

    /// <summary>Bytes of the disk when it was taken.</summary>
    public long VirtualSize { get; } = virtualSize;

    /// <inheritdoc/>
    public override string ToString() => Printable.Of($"{Id}: {Name}");

    internal static DiskImageSnapshot Of(string path, DiskSnapshot snapshot)
        => new(
            path,
            snapshot.Id,
            snapshot.Name,
            snapshot.VmStateSize,
            snapshot.Date.LocalDateTime,
            snapshot.VmClock,
            snapshot.ICount,
            snapshot.VirtualSize);
}

/// <summary>A dirty bitmap that an image keeps: which parts of the disk were written since it was cleared.</summary>
public sealed class DiskImageBitmap(string path, string name, long granularity, ReadableList<string> flags, long? dirtyBytes)
{
    /// <summary>The image's full path, or its URI.</summary>
    public string Path { get; } = path;

    /// <summary>Its name, unique in the image.</summary>
    public string Name { get; } = name;

    /// <summary>Bytes that one bit stands for.</summary>
    public long Granularity { get; } = granularity;

    /// <summary>
    /// QEMU's words: <c>auto</c> (it records writes), <c>in-use</c> (it was not saved properly and can only be removed).
    /// </summary>
    public ReadableList<string> Flags { get; } = flags;

    /// <summary>Bytes that its set bits stand for; null if it is in use.</summary>
    public long? DirtyBytes { get; } = dirtyBytes;

    /// <inheritdoc/>
    public override string ToString() => Printable.Of(Name);

    internal static DiskImageBitmap Of(string path, DiskBitmap bitmap)
        => new(path, bitmap.Name, bitmap.Granularity, new(Words(bitmap)), bitmap.DirtyBytes);

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
