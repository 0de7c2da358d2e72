using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A logical unit of an iSCSI target, or a target that has none or shows none.</summary>
public sealed class DiskImageIscsiTarget
{
    /// <summary>The target's name.</summary>
    public string Target { get; init; } = "";

    /// <summary>Where it listens.</summary>
    public ReadableList<string> Portals { get; init; } = new([]);

    /// <summary>The unit's number; null where none is known.</summary>
    public int? Lun { get; init; }

    /// <summary>What kind of device it is: disk, CD-ROM, tape, controller …</summary>
    public string? Kind { get; init; }

    /// <summary>Its bytes; null for what has none, or no medium.</summary>
    public long? VirtualSize { get; init; }

    /// <summary>Bytes of a block; null likewise.</summary>
    public int? BlockSize { get; init; }

    /// <summary>Who made it, and what they call it.</summary>
    public string? Model { get; init; }

    /// <summary>Its serial number.</summary>
    public string? SerialNumber { get; init; }

    /// <summary>It does not take changes.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>Its blocks need not have a place.</summary>
    public bool IsThin { get; init; }

    /// <summary>What is opened to use it; a target's own where no unit is known.</summary>
    public string Uri { get; init; } = "";

    /// <inheritdoc/>
    public override string ToString() => Printable.Of(Uri);
}
