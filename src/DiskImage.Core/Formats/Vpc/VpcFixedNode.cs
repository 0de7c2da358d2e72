using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>A fixed disk: the disk's bytes from offset 0, and the footer behind them. Spec: "Fixed Hard Disk Image".</summary>
internal sealed class VpcFixedNode : LinearFormatNode, IDescribed, IRepairable, ITrialRepair, ICompactable
{
    private readonly VpcSizeCalculation _calculation;
    private VpcFooters _footers;
    private long _length;

    private VpcFixedNode(BlockNode file, VpcFooters footers, VpcSizeCalculation calculation, long length)
        : base(file, start: 0)
        => (_footers, _calculation, _length) = (footers, calculation, length);

    public override long Length => Volatile.Read(ref _length);

    public override long? AllocatedLength => File.AllocatedLength;

    private VpcFooter Footer => _footers.Best;

    public static VpcFixedNode Open(BlockNode file, VpcFooters footers, VpcOpenOptions options)
    {
        long length = VpcSize.Of(footers.Best, options.ForceSizeCalculation), room = footers.EndOffset(file.Length);
        if (length > room)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: the footer says {length:#,0} bytes, but only {room:#,0} stand before it: the file was cut, or another size "
                    + $"is meant (open option force_size_calc)",
                file.Name,
                room);
        }
        return new VpcFixedNode(file, footers, options.ForceSizeCalculation, length);
    }

    /// <summary>A fixed disk has nothing to give up: its file is as long as the disk. What was written is durable afterwards.</summary>
    public async ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        await FlushAsync(cancellationToken).ConfigureAwait(false);
        bytes?.Report(Length);
        return 0;
    }

    public ImageDescription Describe() => new()
    {
        Format = VpcDriver.FormatName,
        FormatSpecific = VpcInfo.Of(_footers, _calculation),
        Warnings = VpcSize.Warning(Footer, _calculation) is { } warning ? [warning] : [],
    };

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        long end = _footers.EndOffset(File.Length);
        if (VpcSize.Warning(Footer, _calculation) is { } warning)
        {
            findings.Warning("SizesDiffer", warning, host: end);
        }
        if (!_footers.IsSealed)
        {
            findings.Corruption(
                "FooterChecksum",
                "the footer's checksum is wrong; its size is the file's, and nothing else contradicts it",
                "write the right checksum",
                host: end);
        }
        if (_footers.EndLength != VpcFooter.Length)
        {
            findings.Warning(
                "FooterShort",
                "the footer has 511 bytes, as programs before Virtual PC 2004 wrote it; Hyper-V and Azure want 512",
                "write it with 512 bytes",
                end);
        }
        // a disk that ends with its geometry hides the rest, which is still its own
        long unused = end - Binary.Round.Up(Math.Max(Footer.CurrentSize, Length), VpcGeometry.SectorSize);
        if (unused > 0)
        {
            findings.Leak(
                $"{end:#,0} bytes stand before the footer, but it says {Footer.CurrentSize:#,0}: a fixed disk has "
                    + $"the footer right behind its last byte",
                "move the footer there and cut the file",
                end - unused,
                Math.Max(1, unused / VpcGeometry.SectorSize));
        }
        bytes?.Report(Length);
        return new(new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            Leaks = findings.Leaks,
            ImageEndOffset = Length + VpcFooter.Length,
        });
    }

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => StagedRepair.RunAsync(
        this,
        File,
        mode,
        async (progress, stop) =>
        {
            await FlushAsync(stop).ConfigureAwait(false);
            return await CheckAsync(progress, stop).ConfigureAwait(false);
        },
        bytes,
        cancellationToken);

    long ITrialRepair.Grain => VpcGeometry.SectorSize;

    ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        => VpcDriver.OpenAloneAsync(file, _calculation, forRepair, cancellationToken);

    async ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken)
    {
        CheckReport before = await CheckAsync(null, cancellationToken).ConfigureAwait(false);
        if (mode == RepairMode.All && (_footers.EndLength != VpcFooter.Length || !_footers.IsSealed))
        {
            await File.WriteAsync(_footers.EndOffset(File.Length), Footer.ToBytes(), cancellationToken).ConfigureAwait(false);
            await File.FlushAsync(cancellationToken).ConfigureAwait(false);
            _footers = new VpcFooters(Footer, VpcFooter.Length, null);
        }
        if (before.Leaks > 0 && _footers.IsSealed)
        {
            long end = Binary.Round.Up(Math.Max(Footer.CurrentSize, Length), VpcGeometry.SectorSize);
            await PutAsync(end, Footer).ConfigureAwait(false);
            await File.ResizeAsync(end + VpcFooter.Length, cancellationToken: CancellationToken.None).ConfigureAwait(false);
        }
        return await CheckAsync(null, cancellationToken).ConfigureAwait(false);
    }

    ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken) => new([(0, Length)]);

    ValueTask ITrialRepair.RequireUsableAsync() => default;

    async ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken)
    {
        _footers = await VpcFooters.ReadAsync(File, forRepair: true, cancellationToken).ConfigureAwait(false);
        Volatile.Write(ref _length, VpcSize.Of(Footer, _calculation));
    }

    /// <summary>Changes the disk's identity: one write of a sector.</summary>
    public async ValueTask AmendAsync(VpcAmendOptions options)
    {
        Guid? id = options.UniqueId is { } text ? IdentifierOption.Parse(Name, VpcAmendOptions.UniqueIdName, text) : null;
        if (options.ParentPath is { } path)
        {
            _ = ParentNames.OfOption(Name, hasParent: false, path);
        }
        if (id is { } given)
        {
            await PutAsync(_footers.EndOffset(File.Length), Footer with { UniqueId = given }).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// At every moment the file ends in a footer, and one that the bytes before it bear out. Growing: the old footer is written to the new
    /// end, the space between is claimed, the first one's place is zeroed, then the last one says the new size. Shrinking: it says the new
    /// size, is written a second time behind that, and the rest is cut off.
    /// </summary>
    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        VpcSize.Require(length, isFixed: true, Name);
        length = Binary.Round.Up(length, VpcGeometry.SectorSize);
        (VpcGeometry geometry, string creator) = VpcSize.Exactly(length, Footer.CreatorApplication);
        VpcFooter footer = Footer with { CurrentSize = length, Geometry = geometry, CreatorApplication = creator };
        long end = _footers.EndOffset(File.Length);
        await RequireNothingBehindAsync(end, cancellationToken).ConfigureAwait(false);
        if (length > Length)
        {
            await GrowAsync(length, footer, end, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            Volatile.Write(ref _length, length);
            return;
        }
        await PutAsync(_footers.EndOffset(File.Length), footer).ConfigureAwait(false);
        if (length < _footers.EndOffset(File.Length))
        {
            await PutAsync(length, footer).ConfigureAwait(false);
            await File.ResizeAsync(length + VpcFooter.Length, cancellationToken: CancellationToken.None).ConfigureAwait(false);
        }
        Volatile.Write(ref _length, length);
        _footers = new VpcFooters(footer, VpcFooter.Length, null);
    }

    /// <summary>Refuses to resize a disk that ends with its geometry while there is data up to its current size.</summary>
    private async ValueTask RequireNothingBehindAsync(long end, CancellationToken cancellationToken)
    {
        byte[] buffer = new byte[1 << 20];
        for (long at = Length, stop = Math.Min(end, Footer.CurrentSize); at < stop;)
        {
            int count = (int)Math.Min(buffer.Length, stop - at);
            await File.ReadAsync(at, buffer.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            if (buffer.AsSpan(0, count).IndexOfAnyExcept((byte)0) is >= 0 and var first)
            {
                throw VpcSize.Behind(Name, "resized", Length, Footer.CurrentSize, at + first);
            }
            at += count;
        }
    }

    private async ValueTask PutAsync(long offset, VpcFooter footer)
    {
        await File.WriteAsync(offset, footer.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        if (offset + VpcFooter.Length == File.Length)
        {
            _footers = new VpcFooters(footer, VpcFooter.Length, null);
        }
    }

    /// <summary>
    /// Makes the bytes up to a length zeroes, with a footer behind them that says so. If that fails the file is as it was.
    /// </summary>
    private async ValueTask GrowAsync(
        long length,
        VpcFooter footer,
        long end,
        PreallocationMode preallocation,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        VpcFooters before = _footers;
        long fileLength = File.Length, claimFrom = Math.Max(Length, end + VpcFooter.Length);
        try
        {
            if (length > end)
            {
                await PutAsync(length, Footer).ConfigureAwait(false);
            }
            if (preallocation is PreallocationMode.Falloc or PreallocationMode.Full && claimFrom < length)
            {
                await ClaimAsync(claimFrom, length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            }
            await File.WriteZeroesAsync(
                Length, Math.Min(length, end) - Length, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
            await File.FlushAsync(cancellationToken).ConfigureAwait(false);
            await File.WriteAsync(
                end, new byte[Math.Clamp(length - end, 0, VpcFooter.Length)], CancellationToken.None).ConfigureAwait(false);
            await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            await PutAsync(_footers.EndOffset(File.Length), footer).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            try
            {
                await File.WriteAsync(end, before.Best.ToBytes(), CancellationToken.None).ConfigureAwait(false);
                await File.ResizeAsync(before.EndLength == VpcFooter.Length
                    ? fileLength
                    : end + VpcFooter.Length, cancellationToken: CancellationToken.None).ConfigureAwait(false);
                _footers = before with { EndLength = VpcFooter.Length };
            }
            catch (DiskImageException)
            {
                // What went wrong first is on its way to the caller; the file still ends in a footer.
            }
            throw;
        }
    }

    private async ValueTask ClaimAsync(
        long start, long end, PreallocationMode mode, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (mode == PreallocationMode.Falloc)
        {
            await File.WriteZeroesAsync(start, end - start, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
            return;
        }
        byte[] zeroes = new byte[1 << 20];
        for (long at = start; at < end; at += zeroes.Length)
        {
            int count = (int)Math.Min(zeroes.Length, end - at);
            await File.WriteAsync(at, zeroes.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            claimed?.Report(at + count - start);
        }
    }
}
