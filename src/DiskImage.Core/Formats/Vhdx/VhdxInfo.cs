namespace DiskImage.Formats.Vhdx;

/// <summary>What a VHDX image says beyond the facts that all formats share.</summary>
public readonly record struct VhdxInfo()
{
    /// <summary>Dynamic, fixed or differencing.</summary>
    public required string Subformat { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Subformat;

    /// <summary>Bytes per payload block.</summary>
    public required long BlockSize { get; init; }

    /// <summary>Sector size that the disk shows.</summary>
    public required int LogicalSectorSize { get; init; }

    /// <summary>Sector size that the disk says it has inside.</summary>
    public required int PhysicalSectorSize { get; init; }

    /// <summary>The disk's identity, which its children share: SCSI page 83.</summary>
    public required Guid VirtualDiskId { get; init; }

    /// <summary>Changes whenever the contents do; a child knows its parent by it.</summary>
    public required Guid DataWriteGuid { get; init; }

    /// <summary>Bytes of the metadata log.</summary>
    public required long LogSize { get; init; }

    /// <summary>True if the log holds updates that are not yet in place: the image was not closed properly.</summary>
    public required bool HasLog { get; init; }

    /// <summary>The program that made the file, as it says.</summary>
    public required string Creator { get; init; }

    /// <summary>The DataWriteGuid that the parent must have; null if there is no parent.</summary>
    public Guid? ParentLinkage { get; init; }

    /// <summary>The parent's paths as they stand in the image, in the order in which they are tried.</summary>
    public IReadOnlyList<string> ParentPaths { get; init; } = [];

    /// <summary>The facts of an open image.</summary>
    internal static VhdxInfo Of(VhdxDisk disk) => new()
    {
        Subformat = (disk.Metadata.HasParent ? VhdxSubformat.Differencing
            : disk.Metadata.IsFixed ? VhdxSubformat.Fixed
            : VhdxSubformat.Dynamic).ToString(),
        BlockSize = disk.Metadata.BlockSize,
        LogicalSectorSize = disk.Metadata.LogicalSectorSize,
        PhysicalSectorSize = disk.Metadata.PhysicalSectorSize,
        VirtualDiskId = disk.Metadata.VirtualDiskId,
        DataWriteGuid = disk.Header.DataWriteGuid,
        LogSize = disk.Header.LogLength,
        HasLog = disk.HadLog,
        Creator = disk.Creator,
        ParentLinkage = disk.Metadata.Locator?.Linkage,
        ParentPaths = disk.Metadata.Locator is { } locator ? [.. locator.Paths] : [],
    };
}
