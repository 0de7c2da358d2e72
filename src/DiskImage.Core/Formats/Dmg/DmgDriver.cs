using System.Globalization;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Dmg;

/// <summary>Options when a dmg image is opened.</summary>
internal sealed record DmgOpenOptions
{
    /// <summary>The secret's name.</summary>
    [DriverOption("key-secret", "Name of the secret that opens an encrypted image, among those that are given")]
    public string? KeySecret { get; init; }

    /// <summary>Iterations of a key derivation at most.</summary>
    [DriverOption("max-iterations", "Most iterations with which a secret is tried: an image may ask for hours", Minimum = 1)]
    public long MaxIterations { get; init; } = KeyLimits.DefaultIterations;
}

/// <summary>Apple disk images (UDIF). Layout: see SPEC.md beside this file.</summary>
internal sealed class DmgDriver : FormatDriver
{
    public const string FormatName = "dmg";

    /// <summary>
    /// The name's ending counts for little more: the trailer alone is a weak signature, as a disk's last sector can hold anything.
    /// </summary>
    private const int Weak = 20, WithName = 40, Certain = 100;

    public override string Name => FormatName;

    public override string Description => "Apple disk image (read-only)";

    public override IReadOnlyList<string> Extensions => [".dmg"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(DmgNode)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<DmgOpenOptions>();

    public override int Probe(in ProbeInput input)
        => DmgEncryption.IsSigned(input.Header) || DmgEncryptionV1.IsSigned(input.Tail) ? Certain
            : (input.Tail.Length >= DmgTrailer.Length && DmgTrailer.IsSigned(input.Tail[^DmgTrailer.Length..]))
            || DmgTrailer.IsSigned(input.Header)
            ? Score(input.FileName)
            : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode file = await DmgEncryption.OpenAsync(context, cancellationToken).ConfigureAwait(false);
        var parts = new List<(BlockNode File, DmgTrailer Trailer)>();
        try
        {
            DmgTrailer trailer = await DmgTrailer.ReadAsync(file, cancellationToken).ConfigureAwait(false);
            ReadOnlyFormatNode.RequireReading(context, FormatName);
            parts.Add((file, trailer));
            for (int segment = 2; segment <= trailer.Segments; segment++)
            {
                parts.Add(await OpenPartAsync(context, trailer, segment, cancellationToken).ConfigureAwait(false));
            }
            return await OpenAsync(parts, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            (file as CipherNode)?.Forget();
            await Closing.FailedAsync(parts.Skip(1).Select(p => p.File)).ConfigureAwait(false);
            throw;
        }
    }

    private static int Score(string fileName) => fileName.EndsWith(".dmg", StringComparison.OrdinalIgnoreCase) ? WithName : Weak;

    private static async ValueTask<(BlockNode File, DmgTrailer Trailer)> OpenPartAsync(
        FormatOpenContext context, DmgTrailer first, int segment, CancellationToken cancellationToken)
    {
        string path = context.File.Name;
        string name = string.Create(CultureInfo.InvariantCulture, $"{Path.GetFileNameWithoutExtension(path)}.{segment:000}.dmgpart");
        if (first.Segment > 1)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{path}: is segment {first.Segment} of {first.Segments} of an image. Open the first one, whose name ends with .dmg.",
                path);
        }
        BlockNode part = await context.OpenData(name, null, cancellationToken).ConfigureAwait(false);
        try
        {
            DmgTrailer trailer = await DmgTrailer.ReadAsync(part, cancellationToken).ConfigureAwait(false);
            return trailer.Id == first.Id && trailer.Segment == segment && trailer.Segments == first.Segments
                ? (part, trailer)
                : throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{path}: {name} is segment {trailer.Segment} of {trailer.Segments} of the image {trailer.Id}; needed: segment "
                        + $"{segment} of {first.Segments} of {first.Id}",
                    path);
        }
        catch
        {
            await Closing.FailedAsync(part).ConfigureAwait(false);
            throw;
        }
    }

    private static async ValueTask<BlockNode> OpenAsync(
        List<(BlockNode File, DmgTrailer Trailer)> parts, CancellationToken cancellationToken)
    {
        (BlockNode file, DmgTrailer trailer) = parts[0];
        var segments = new List<DmgSegment>();
        long start = 0;
        foreach ((BlockNode part, DmgTrailer own) in parts)
        {
            segments.Add(new(part, start, own.DataOffset, own.DataLength));
            start += own.DataLength;
        }
        var fork = new DmgFork(segments);
        IReadOnlyList<DmgTable> tables = await TablesAsync(parts, fork, cancellationToken).ConfigureAwait(false);
        DmgChunk[] chunks = [.. tables.SelectMany(t => t.Chunks).OrderBy(c => c.Offset)];
        for (int i = 1; i < chunks.Length; i++)
        {
            if (chunks[i].Offset < chunks[i - 1].End)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{file.Name}: the chunks of {chunks[i - 1].Length:#,0} bytes at guest offset {chunks[i - 1].Offset:#,0} and "
                        + $"{chunks[i].Length:#,0} at {chunks[i].Offset:#,0} overlap",
                    file.Name);
            }
        }
        return new DmgNode(trailer, fork, tables, chunks);
    }

    private static async ValueTask<IReadOnlyList<DmgTable>> TablesAsync(
        List<(BlockNode File, DmgTrailer Trailer)> parts, DmgFork fork, CancellationToken cancellationToken)
    {
        DmgTrailer first = parts[0].Trailer;
        string path = parts[0].File.Name;
        foreach ((BlockNode file, DmgTrailer trailer) in parts)
        {
            bool isList = trailer.PropertyList.Length > 0;
            (long offset, long length) = isList ? trailer.PropertyList : trailer.ResourceFork;
            if (length == 0)
            {
                continue;
            }
            byte[] bytes = new byte[length];
            await file.ReadAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<(string Name, byte[] Table)> found = isList
                ? DmgLists.FromPropertyList(bytes, path)
                : DmgLists.FromResourceFork(bytes, path);
            return [.. found.Select(t => DmgTable.Parse(t.Name, t.Table, first.DiskSize, fork.Length, path))];
        }
        long raw = Math.Min(first.DiskSize, fork.Length) / DmgTrailer.SectorSize * DmgTrailer.SectorSize; // read-write: the disk as it is
        return raw == 0 ? [] : [new("", 0, raw, default, [new(0, raw, DmgKind.Raw, 0, raw)])];
    }
}
