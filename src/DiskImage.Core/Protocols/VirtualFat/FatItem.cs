using DiskImage.Block;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>A file or folder of the tree, as it was when it was listed, and where it has come to lie on the volume.</summary>
/// <param name="name">Its name, which is a valid long name; empty for the folder at the top.</param>
/// <param name="path">Its full path on the host.</param>
internal abstract class FatItem(string name, string path)
{
    /// <summary>Its name.</summary>
    public string Name { get; } = name;

    /// <summary>Its full path on the host; another one when it was renamed through the disk.</summary>
    public string Path { get; set; } = path;

    /// <summary>When it was last changed, UTC.</summary>
    public required DateTime Changed { get; init; }

    /// <summary>Its attributes in the folder's entry.</summary>
    public required FatAttributes Attributes { get; init; }

    /// <summary>Its short name: 8 and 3 characters, padded with spaces.</summary>
    public string ShortName { get; set; } = "";

    /// <summary>The number of its first cluster; 0 for none.</summary>
    public uint FirstCluster { get; set; }

    /// <summary>How many clusters it has, one behind the other.</summary>
    public uint Clusters { get; set; }

    /// <summary>Bytes that it takes of its clusters.</summary>
    public abstract long Bytes { get; }
}

/// <summary>A file.</summary>
internal sealed class FatFile(string name, string path) : FatItem(name, path)
{
    /// <summary>Bytes.</summary>
    public required long Length { get; init; }

    /// <summary>Which file it is.</summary>
    public required NodeIdentity Identity { get; init; }

    /// <summary>When it was changed as the host counts, which is finer than what the volume tells.</summary>
    public required DateTime HostChanged { get; init; }

    public override long Bytes => Length;
}

/// <summary>A folder.</summary>
internal sealed class FatFolder(string name, string path) : FatItem(name, path)
{
    /// <summary>The folder that it is in; null for the one at the top.</summary>
    public FatFolder? Parent { get; init; }

    /// <summary>What is in it, in the order of names.</summary>
    public List<FatItem> Items { get; } = [];

    /// <summary>Entries of 32 bytes that its listing has.</summary>
    public int Entries => (Parent is null ? 1 : 2) + Items.Sum(FatName.EntriesOf);

    public override long Bytes => (long)Entries * FatFolderBytes.EntryBytes;
}

/// <summary>What a folder's entry says of a file. Spec: fatgen103, 6.</summary>
[Flags]
internal enum FatAttributes : byte
{
    None = 0,
    ReadOnly = 1,
    Hidden = 2,
    System = 4,
    VolumeId = 8,
    Folder = 0x10,
    Archive = 0x20,

    /// <summary>A part of a long name.</summary>
    LongName = ReadOnly | Hidden | System | VolumeId,
}
