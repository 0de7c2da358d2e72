using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// A stream whose footer, directory or tables are lost: the markers before its grains tell where they are, and nothing else does.
/// </summary>
/// <param name="file">The file, which it owns.</param>
/// <param name="header">The header of the stream.</param>
/// <param name="descriptor">Its descriptor; null for none.</param>
/// <param name="reason">What is wrong.</param>
internal sealed class VmdkLostStream(BlockNode file, VmdkHeader header, VmdkDescriptor? descriptor, DiskImageException reason)
    : BlockNode, IDescribed, IRepairable
{
    private DiskImageException? _reason = reason; // null once it is repaired

    public override string Name => file.Name;

    public override long Length => header.Length;

    public override bool IsReadOnly => file.IsReadOnly;

    public override IReadOnlyDictionary<string, BlockNode> Children { get; }
        = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = file };

    public ImageDescription Describe() => new()
    {
        Format = VmdkDriver.FormatName,
        ClusterSize = header.GrainBytes,
        Compressed = true,
        FormatSpecific = new VmdkInfo
        {
            CreateType = descriptor?.CreateType,
            Cid = VmdkParent.Text(descriptor?.Cid ?? 0),
            SparseVersion = (int)header.Version,
            Extents = [.. (descriptor?.Extents ?? []).Select(e => e.Text)],
        },
    };

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        if (_reason is not { } reason)
        {
            return CheckRepairedAsync(bytes, cancellationToken);
        }
        var findings = new CheckFindings();
        findings.Corruption("StreamEnd", reason.Wording, "make the tables and the footer anew from the markers before the grains",
            host: reason.Offset);
        return new(new CheckReport { Findings = findings.List, Corruptions = findings.Corruptions });
    }

    public async ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        CheckReport before = await CheckAsync(bytes, cancellationToken).ConfigureAwait(false);
        if (mode != RepairMode.All || _reason is null)
        {
            return before;
        }
        await new VmdkStreamRebuild(file, header).RunAsync(cancellationToken).ConfigureAwait(false);
        _reason = null;
        CheckReport after = await CheckRepairedAsync(bytes, cancellationToken).ConfigureAwait(false);
        return after with { CorruptionsFixed = 1 };
    }

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken) => throw Why();

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw Why();

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken) => file.FlushAsync(cancellationToken);

    private async ValueTask<CheckReport> CheckRepairedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        byte[] start = new byte[VmdkHeader.SectorSize];
        await file.ReadPaddedAsync(0, start, cancellationToken).ConfigureAwait(false);
        VmdkHeader found = await VmdkFooter.ReadHeaderAsync(file, start, cancellationToken).ConfigureAwait(false);
        VmdkSparseExtent extent = await VmdkSparseExtent.OpenAsync(
            file, backing: null, found, new VmdkExtentTraits(IsReadOnly: true), forRepair: false, cancellationToken).ConfigureAwait(false);
        await using (extent.ConfigureAwait(false))
        {
            return await extent.CheckAsync(bytes, cancellationToken).ConfigureAwait(false);
        }
    }

    private DiskImageException Why() => _reason ?? new DiskImageException(
        DiskImageErrorKind.Unsupported, $"{Name}: was repaired; open it again to use it", Name);
}
