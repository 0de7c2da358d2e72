using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A disk that is served: by this session, as it was when it was asked for, or by somebody else, as far as it says.</summary>
public sealed class DiskImageExport
{
    /// <summary>The number of the server in this session; null for somebody else's.</summary>
    public int? Id { get; init; }

    /// <summary>By which clients ask for it.</summary>
    public string Name { get; init; } = "";

    /// <summary>What it is, for people.</summary>
    public string? Description { get; init; }

    /// <summary>What clients open.</summary>
    public string Uri { get; init; } = "";

    /// <summary>The image's full path or locator; null for somebody else's.</summary>
    public string? Path { get; init; }

    /// <summary>The image's format; null for somebody else's.</summary>
    public string? Format { get; init; }

    /// <summary>Bytes of the disk.</summary>
    public long VirtualSize { get; init; }

    /// <summary>Nobody may change it.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>Several connections see what each of them writes.</summary>
    public bool MultiConnection { get; init; }

    /// <summary>What block status can tell of.</summary>
    public ReadableList<string> Contexts { get; init; } = new([]);

    /// <summary>Clients that have it; null for somebody else's, as all that follows.</summary>
    public int? Clients { get; init; }

    /// <summary>Bytes that clients have read.</summary>
    public long? BytesRead { get; init; }

    /// <summary>Bytes that clients have written.</summary>
    public long? BytesWritten { get; init; }

    /// <summary>Requests that were answered.</summary>
    public long? Requests { get; init; }

    /// <summary>Requests that failed, and clients that were cut off.</summary>
    public long? Errors { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Printable.Of(Uri);
}
