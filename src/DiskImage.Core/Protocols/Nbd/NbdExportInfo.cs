namespace DiskImage.Protocols.Nbd;

/// <summary>What a client and a server have agreed on.</summary>
internal sealed record NbdExportInfo
{
    /// <summary>Bytes of the export.</summary>
    public long Length { get; init; }

    /// <summary>What the server can do with it.</summary>
    public NbdExportFlags Flags { get; init; }

    /// <summary>What requests must be multiples of; 0 if nothing was said.</summary>
    public int MinimumBlock { get; init; }

    /// <summary>What they had better be multiples of; 0 if nothing was said.</summary>
    public int PreferredBlock { get; init; }

    /// <summary>Bytes of data in a request at most; 0 if nothing was said.</summary>
    public long MaximumPayload { get; init; }

    /// <summary>The name by which the server knows it, if it says so.</summary>
    public string? Name { get; init; }

    /// <summary>What the server says of it to people.</summary>
    public string? Description { get; init; }

    /// <summary>Answers come in chunks.</summary>
    public bool IsStructured { get; init; }

    /// <summary>Requests and answers have lengths of 64 bits.</summary>
    public bool IsExtended { get; init; }

    /// <summary>The contexts that were agreed on, and by which numbers answers name them.</summary>
    public IReadOnlyDictionary<string, uint> Contexts { get; init; } = new Dictionary<string, uint>(StringComparer.Ordinal);

    /// <summary>True for something the server can do.</summary>
    public bool Can(NbdExportFlags flag) => (Flags & flag) == flag;
}
