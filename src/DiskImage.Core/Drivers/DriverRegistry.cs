using DiskImage.Block;

namespace DiskImage.Drivers;

/// <summary>What probing found.</summary>
/// <param name="Format">The format.</param>
/// <param name="Contents">What a file seems to hold that was taken by the last resort, since no other format recognises it;
/// null for others.</param>
public sealed record ProbedFile(FormatDriver Format, FileContents? Contents);

/// <summary>The drivers of a program, by name and by probe. It holds what it is given: no scanning, no statics.</summary>
public sealed class DriverRegistry(
    IReadOnlyList<FormatDriver> formats, IReadOnlyList<ProtocolDriver> protocols, IReadOnlyList<FilterDriver>? filters = null)
{
    /// <summary>Bytes of a file that drivers get to see when probing. QEMU's value.</summary>
    public const int ProbeLength = 2048;

    /// <summary>
    /// Bytes of a file's end that drivers get to see when probing. Ours: the formats that sign the end do it in one sector.
    /// </summary>
    public const int ProbeTailLength = 512;

    private const int LastResort = 1; // the score of a format that takes what nobody else wants

    /// <summary>All formats, the last resort (raw) first.</summary>
    public IReadOnlyList<FormatDriver> Formats { get; } = formats;

    /// <summary>All protocols.</summary>
    public IReadOnlyList<ProtocolDriver> Protocols { get; } = protocols;

    /// <summary>All filters.</summary>
    public IReadOnlyList<FilterDriver> Filters { get; } = filters ?? [];

    /// <summary>The driver of a name or alias, of whatever kind.</summary>
    /// <exception cref="DiskImageException">InvalidOption, with near misses.</exception>
    public NodeDriver Driver(string name)
    {
        NodeDriver[] all = [.. Formats, .. Protocols, .. Filters];
        return Array.Find(all, d => d.IsCalled(name))
            ?? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"Unknown driver '{name}'. {Options.KnownNames.Hint(name, all.Select(d => d.Name))}");
    }

    /// <summary>The format of a name or alias.</summary>
    /// <exception cref="DiskImageException">InvalidOption, listing the names.</exception>
    public FormatDriver Format(string name)
        => Formats.FirstOrDefault(f => f.IsCalled(name))
            ?? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"Unknown format '{name}'. Known: {string.Join(", ", Formats.Select(f => f.Name))}.");

    /// <summary>The protocol that answers to a URI scheme.</summary>
    /// <exception cref="DiskImageException">Unsupported, listing the schemes.</exception>
    public ProtocolDriver Protocol(string scheme)
        => Protocols.FirstOrDefault(p => p.Schemes.Contains(scheme, StringComparer.OrdinalIgnoreCase))
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"Unknown protocol '{scheme}'. Known: {string.Join(", ", Protocols.SelectMany(p => p.Schemes))}.");

    /// <summary>The protocol that has what options lead to: the one they are for, or the one that it names.</summary>
    public ProtocolDriver Owner(ProtocolDriver protocol, object options)
    {
        ArgumentNullException.ThrowIfNull(protocol);
        return protocol.OwnerOf(options) is { } other ? (ProtocolDriver)Driver(other) : protocol;
    }

    /// <summary>The format that a file name's ending suggests, or null.</summary>
    public FormatDriver? FormatByExtension(string fileName) => Formats.FirstOrDefault(f => Ends(fileName, f.Extensions));

    /// <summary>
    /// The names of formats, with or without a driver here, that a file name's ending promises; "raw" among them. Empty for other endings.
    /// </summary>
    public IReadOnlyList<string> PromisedBy(string fileName)
        => [.. Formats.Where(f => Ends(fileName, f.Extensions)).Select(f => f.Name)
            .Concat(ForeignFormat.All.Where(f => Ends(fileName, f.Extensions)).Select(f => f.Format ?? f.Extensions[0].TrimStart('.')))
            .Distinct(StringComparer.Ordinal)];

    /// <summary>The format that recognises the node's contents best, and what else is to be said of them.</summary>
    public async ValueTask<ProbedFile> ProbeAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] header = new byte[(int)Math.Min(ProbeLength, file.Length)];
        await file.ReadAsync(0, header, cancellationToken).ConfigureAwait(false);
        byte[] tail = new byte[(int)Math.Min(ProbeTailLength, file.Length)];
        await file.ReadAsync(file.Length - tail.Length, tail, cancellationToken).ConfigureAwait(false);
        (FormatDriver best, int bestScore) = Best(header, tail, file.Length, file.Name);
        if (bestScore > LastResort)
        {
            return new ProbedFile(best, null);
        }
        byte[] disc = new byte[file.Length >= FileContents.DiscAt + FileContents.DiscBytes ? FileContents.DiscBytes : 0];
        await file.ReadAsync(FileContents.DiscAt * Math.Min(disc.Length, 1), disc, cancellationToken).ConfigureAwait(false);
        return bestScore > 0
            ? new ProbedFile(best, FileContents.Of(header, tail, disc, [.. Formats.Select(f => f.Name)]))
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{file.Name}: no known format recognises it. Name one with {new Remedy(RemedyKind.Format)}.",
                file.Name);
    }

    /// <summary>The format that bytes would be recognised as; null for those that only the last resort takes.</summary>
    /// <param name="header">The first <see cref="ProbeLength"/> bytes of the file.</param>
    /// <param name="tail">The last <see cref="ProbeTailLength"/>.</param>
    /// <param name="length">Bytes of the file.</param>
    /// <param name="name">What it is called.</param>
    public FormatDriver? Recognise(byte[] header, byte[] tail, long length, string name)
        => Best(header, tail, length, name) is (var best, > LastResort) ? best : null;

    private (FormatDriver Format, int Score) Best(byte[] header, byte[] tail, long length, string name)
    {
        (FormatDriver Format, int Score) best = (Formats[0], 0);
        foreach (FormatDriver format in Formats)
        {
            int score = format.Probe(new ProbeInput(header, tail, length, name));
            best = score > best.Score ? (format, score) : best;
        }
        return best;
    }

    private static bool Ends(string fileName, IReadOnlyList<string> extensions)
        => extensions.Any(e => fileName.EndsWith(e, StringComparison.OrdinalIgnoreCase));
}
