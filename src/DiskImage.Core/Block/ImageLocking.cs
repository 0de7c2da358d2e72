namespace DiskImage.Block;

/// <summary>Whether files are locked as QEMU locks image files.</summary>
public enum ImageLocking
{
    /// <summary>Where the file system has such locks.</summary>
    Auto,

    /// <summary>Or it is not opened.</summary>
    On,

    /// <summary>Not at all: others neither know nor are asked.</summary>
    Off,
}
