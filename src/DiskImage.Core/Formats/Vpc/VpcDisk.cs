using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// What an open dynamic or differencing disk is made of: footers, header, table, sector bitmaps, and the steps that change them. Spec:
/// "Dynamic Hard Disk Image", "Differencing Hard Disk Image".
/// </summary>
/// <remarks>
/// The session's lock guards all of it. Order of writes: the footer behind new space, data, bitmaps, batmap, table, each behind a flush of
/// the former. A block comes into the table with an empty bitmap, so the table may know it before it holds anything. A
/// crash leaks space at most.
/// </remarks>
internal sealed class VpcDisk
{
    private const long BitmapCacheBytes = 4 << 20; // the bitmaps of 16 GiB in blocks of 2 MiB. Ours
    private const int SectorsPerPiece = VpcGeometry.SectorSize * 8;

    private long _length;

    public VpcDisk(
        BlockNode file, BlockNode? backing, VpcFooters footers, VpcHeader header, VpcSizeCalculation calculation, string? parentName)
    {
        (File, Backing, Footers, Header, Calculation, ParentName) = (file, backing, footers, header, calculation, parentName);
        Session = new MetadataSession(file);
        Bitmaps = new MetadataCache(Session.Order, VpcGeometry.SectorSize, BitmapCacheBytes);
        Batmap = new VpcBatmap(Session.Order); // before the table: a bit goes before its block does
        Bat = new BlockTable<BigBlockEntry>(Session.Order);
        Layout = new VpcLayout(footers.Best, header, file.Length);
        Maintenance = new BlockMaintenance(Session, new VpcBlocks(this));
        _length = VpcSize.Of(footers.Best, calculation);
    }

    public BlockNode File { get; }

    public BlockNode? Backing { get; }

    public VpcSizeCalculation Calculation { get; }

    public MetadataSession Session { get; }

    public BlockMaintenance Maintenance { get; }

    public MetadataCache Bitmaps { get; }

    public VpcBatmap Batmap { get; }

    /// <summary>For each block the sector where it begins, with its bitmap. Spec: "Block Allocation Table and Data Blocks".</summary>
    public BlockTable<BigBlockEntry> Bat { get; }

    public VpcFooters Footers { get; private set; }

    public VpcHeader Header { get; private set; }

    public VpcLayout Layout { get; private set; }

    public VpcStaleEntries Stale { get; private set; } = VpcStaleEntries.None;

    public IReadOnlyList<VpcParentLocatorInfo> Locators { get; private set; } = [];

    /// <summary>What the disk calls its parent.</summary>
    public string? ParentName { get; private set; }

    /// <summary>Where the footer at the end is; the end of the file if there is none.</summary>
    public long FooterOffset { get; private set; }

    public VpcFooter Footer => Footers.Best;

    public bool HasParent => Footer.DiskType == VpcDiskType.Differencing;

    /// <summary>Bytes of the disk.</summary>
    public long Length => Volatile.Read(ref _length);

    public long BlockSize => Layout.BlockSize;

    /// <summary>Blocks of the disk; the table may have entries behind them.</summary>
    public int Blocks => (int)Header.Blocks(Length);

    /// <summary>Where the larger of the disk's two sizes ends: nothing before it is unused.</summary>
    public long ClaimedEnd => Math.Max(Length, Footer.CurrentSize);

    /// <summary>What the two sizes of the disk disagree on; null if nothing.</summary>
    public string? SizeWarning => VpcSize.Warning(Footer, Calculation);

    /// <summary>Reads what the footers and the header lead to.</summary>
    public async ValueTask LoadAsync(CancellationToken cancellationToken)
    {
        if (Length > VpcSize.LargestDynamic)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{File.Name}: a size of {Length:#,0} bytes; a dynamic VHD has up to {VpcSize.LargestDynamic:#,0} (2040 GiB)",
                File.Name);
        }
        Header.RequireTable(Length, File.Name);
        await Bat.LoadAsync(
            Header.TableOffset, (int)Math.Min(Header.MaxTableEntries, VpcHeader.MaxEntries), cancellationToken).ConfigureAwait(false);
        await Batmap.LoadAsync(
            File, VpcLayout.TableEnd(Header.TableOffset, Header.MaxTableEntries), cancellationToken).ConfigureAwait(false);
        Layout = new VpcLayout(Footer, Header, File.Length, Batmap);
        FooterOffset = Footers.EndOffset(File.Length);
        Stale = VpcStaleEntries.SetAside(Bat, Blocks, Layout, FooterOffset);
        if (HasParent)
        {
            Locators = await VpcParent.ReadLocatorsAsync(File, Header, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Reads the file again, which has changed below.</summary>
    public async ValueTask ReloadAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        Session.Require(held);
        Footers = await VpcFooters.ReadAsync(File, forRepair: true, cancellationToken).ConfigureAwait(false);
        Header = await VpcHeader.ReadAsync(File, Footer, cancellationToken).ConfigureAwait(false);
        Volatile.Write(ref _length, VpcSize.Of(Footer, Calculation));
        Bitmaps.Clear();
        Session.Space = null;
        await LoadAsync(cancellationToken).ConfigureAwait(false);
    }

    public int BlockOf(GuestOffset offset) => (int)(offset.Value / BlockSize);

    public long InBlock(GuestOffset offset) => offset.Value & (BlockSize - 1);

    /// <summary>Where a block begins in the file, with its bitmap; null if it is not there.</summary>
    public HostOffset? PlaceOf(int block) => Bat[block] is { Value: not BigBlockEntry.Nowhere } entry ? VpcLayout.PlaceOf(entry) : null;

    /// <summary>Where a byte of a block is, whose place is known.</summary>
    public HostOffset DataAt(HostOffset place, long within) => place + (Layout.BitmapBytes + within);

    /// <summary>Refuses a place that no block can have.</summary>
    public void RequireInside(int block, HostOffset place)
    {
        if (place.Value < VpcFooter.Length || Layout.Span > FooterOffset - place.Value)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{File.Name}: block {block:#,0} (guest offset {block * BlockSize:#,0}) is said to be at offset "
                    + $"{place.Value:#,0}, {Layout.Span:#,0} bytes long,"
                    + $" but the blocks end at {FooterOffset:#,0}, where the footer or the file's end is. Look at all of "
                    + $"it with {new Remedy(RemedyKind.Check)}.",
                File.Name,
                place.Value);
        }
    }

    /// <summary>
    /// Whether the sector at a byte of a block is in the file, and for how many bytes that stays so: at least what is asked, if it does.
    /// </summary>
    public async ValueTask<(bool IsSet, long Run)> RunAsync(HostOffset place, long within, long length, CancellationToken cancellationToken)
    {
        long first = within / VpcGeometry.SectorSize, sectors = BlockSize / VpcGeometry.SectorSize;
        long wanted = (within + length + VpcGeometry.SectorSize - 1) / VpcGeometry.SectorSize;
        bool isSet = false;
        long sector = first;
        do
        {
            CachedPiece piece = await Bitmaps.GetAsync(PieceOf(place, sector), cancellationToken).ConfigureAwait(false);
            int index = (int)(sector % SectorsPerPiece);
            isSet = sector == first ? VpcBits.Get(piece.Bytes, index) : isSet;
            int end = (int)Math.Min(SectorsPerPiece, sectors - sector + index);
            int run = VpcBits.Run(piece.Bytes, index, end, isSet);
            sector += run;
            if (index + run < end)
            {
                break;
            }
        }
        while (sector < sectors && sector < wanted);
        return (isSet, (sector * VpcGeometry.SectorSize) - within);
    }

    /// <summary>
    /// The allocator; made, after the headers were found sound and the copy of the footer was put right, before the first change.
    /// </summary>
    public async ValueTask<VpcSpace> SpaceAsync(MetadataSession.Held held)
    {
        Session.Require(held);
        if (Session.Space is VpcSpace known)
        {
            return known;
        }
        RequireSealed();
        FooterOffset = Footers.EndOffset(File.Length); // a footer may have been written behind the last one, and its flush failed
        (StoredBlock[] blocks, _) = await Maintenance.StoredAsync(CancellationToken.None).ConfigureAwait(false);
        Maintenance.RequireSound(blocks);
        long end = UsedEnd();
        if (Footers.EndLength != VpcFooter.Length || FooterOffset % VpcGeometry.SectorSize != 0 || FooterOffset < end)
        {
            long place = Round.Up(Math.Max(File.Length, end), VpcGeometry.SectorSize);
            await File.WriteAsync(place, Footer.ToBytes()).ConfigureAwait(false);
            await File.FlushAsync().ConfigureAwait(false);
            FooterOffset = place;
        }
        if (!Footers.IsCopyEqual)
        {
            await File.WriteAsync(0, Footer.ToBytes()).ConfigureAwait(false); // QEMU goes by the copy
        }
        Footers = new VpcFooters(Footer, VpcFooter.Length, Footer);
        var space = new VpcSpace(this, blocks);
        Session.Space = space;
        return space;
    }

    /// <summary>The allocator, made anew: what lies where has changed.</summary>
    public ValueTask<VpcSpace> NewSpaceAsync(MetadataSession.Held held)
    {
        Session.Space = null;
        return SpaceAsync(held);
    }

    /// <summary>Where everything that is used ends: a multiple of sectors.</summary>
    public long UsedEnd()
    {
        long end = Layout.StructuresEnd;
        for (int block = Bat.NextUsed(0); block < Bat.Count; block = Bat.NextUsed(block + 1))
        {
            end = Math.Max(end, VpcLayout.PlaceOf(Bat[block]).Value + Layout.Span);
        }
        return Round.Up(end, VpcGeometry.SectorSize);
    }

    /// <summary>Where a block is; it gets a place, with no bit set, if it has none.</summary>
    public async ValueTask<HostOffset> PlaceOfAsync(MetadataSession.Held held, VpcSpace space, int block)
    {
        if (PlaceOf(block) is { } present)
        {
            return present;
        }
        HostOffset place = await space.AllocateAsync(held).ConfigureAwait(false);
        Bitmaps.Forget(place.Value, Layout.BitmapBytes);
        Batmap.Clear(block);
        for (long at = 0; at < Layout.BitmapBytes; at += VpcGeometry.SectorSize)
        {
            _ = await Bitmaps.GetNewAsync((place + at).Value).ConfigureAwait(false);
        }
        Bat.Set(held, block, VpcLayout.EntryOf(place));
        return place;
    }

    /// <summary>Marks the sectors of a range, in one block that has a place, as held by this disk.</summary>
    public async ValueTask SetBitsAsync(MetadataSession.Held held, GuestOffset start, long length)
    {
        Session.Require(held);
        HostOffset place = PlaceOf(BlockOf(start))!.Value;
        long first = InBlock(start) / VpcGeometry.SectorSize, last = first + (length / VpcGeometry.SectorSize);
        while (first < last)
        {
            CachedPiece piece = await Bitmaps.GetAsync(PieceOf(place, first), CancellationToken.None).ConfigureAwait(false);
            int index = (int)(first % SectorsPerPiece), stop = (int)Math.Min(SectorsPerPiece, index + (last - first));
            VpcBits.Set(piece.Bytes, index, stop);
            Bitmaps.Changed(piece, 0, VpcGeometry.SectorSize);
            first += stop - index;
        }
        Session.Order.DataWritten(); // a bit that reaches the disk before its sector would put something else in place of the old contents
    }

    /// <summary>Takes a block out of the table and gives its place up.</summary>
    public void Drop(MetadataSession.Held held, VpcSpace space, int block)
    {
        HostOffset place = PlaceOf(block)!.Value;
        Forget(held, block);
        space.GiveUp(held, place);
    }

    /// <summary>Takes a block out of the table.</summary>
    public void Forget(MetadataSession.Held held, int block)
    {
        Bitmaps.Forget(VpcLayout.PlaceOf(Bat[block]).Value, Layout.BitmapBytes);
        Batmap.Clear(block);
        Bat.Set(held, block, new(BigBlockEntry.Nowhere));
    }

    /// <summary>Clears the entries behind the last block that cannot be blocks; with the next flush.</summary>
    public void ForgetStale(MetadataSession.Held held)
    {
        if (Stale.Count > 0)
        {
            Bat.Rewrite(held, Blocks);
            Stale = VpcStaleEntries.None;
        }
    }

    /// <summary>
    /// Refuses a change that would show or lose what is stored between the disk's end and another: its other size,
    /// or its table, may mean it.
    /// </summary>
    public async ValueTask RequireNothingBehindAsync(string what, long end, CancellationToken cancellationToken)
    {
        int block = Bat.NextUsed(Blocks);
        long? behind = block < Math.Min(Bat.Count, Header.Blocks(end))
            ? block * BlockSize
            : await DataInLastBlockAsync(cancellationToken).ConfigureAwait(false);
        if (behind is long offset)
        {
            throw VpcSize.Behind(File.Name, what, Length, Footer.CurrentSize, offset);
        }
    }

    /// <summary>
    /// Makes the blocks end at an offset, a multiple of sectors: the footer is written there and flushed before the old one goes. Where the
    /// file grows, what is new reads as zeroes.
    /// </summary>
    public async ValueTask MoveFooterAsync(long offset)
    {
        long old = FooterOffset;
        if (offset == old)
        {
            return;
        }
        await File.WriteAsync(offset, Footer.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        if (offset > old)
        {
            FooterOffset = offset;
            // the footer stood where a block is to be
            await File.WriteZeroesAsync(old, Math.Min(offset - old, VpcFooter.Length)).ConfigureAwait(false);
        }
        else
        {
            await File.ResizeAsync(offset + VpcFooter.Length).ConfigureAwait(false);
            FooterOffset = offset;
        }
    }

    /// <summary>Writes the footer at the end, which counts, and then its copy.</summary>
    public async ValueTask WriteFootersAsync(MetadataSession.Held held, VpcFooter footer, long length)
    {
        Session.Require(held);
        byte[] bytes = footer.ToBytes();
        await File.WriteAsync(FooterOffset, bytes).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        await File.WriteAsync(0, bytes).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        Footers = new VpcFooters(footer, VpcFooter.Length, footer);
        Volatile.Write(ref _length, length);
    }

    /// <summary>Writes footers that are damaged or missing from the one that is sound.</summary>
    public async ValueTask RepairFootersAsync(MetadataSession.Held held)
    {
        Session.Require(held);
        byte[] footer = Footer.ToBytes();
        if (Footers.EndLength != VpcFooter.Length || !Footers.IsSealed)
        {
            FooterOffset = Footers.EndLength != VpcFooter.Length ? Round.Up(File.Length, VpcGeometry.SectorSize) : FooterOffset;
            await File.WriteAsync(FooterOffset, footer).ConfigureAwait(false);
        }
        if (!Footers.IsCopyEqual || !Footers.IsSealed)
        {
            await File.WriteAsync(0, footer).ConfigureAwait(false);
        }
        await File.FlushAsync().ConfigureAwait(false);
        Footers = new VpcFooters(Footer, VpcFooter.Length, Footer);
    }

    public async ValueTask WriteHeaderAsync(MetadataSession.Held held, VpcHeader header)
    {
        Session.Require(held);
        await File.WriteAsync((long)Footer.DataOffset, header.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        Header = header with { IsChecksumRight = true };
        Layout = new VpcLayout(Footer, Header, File.Length, Batmap);
    }

    /// <summary>The header names another parent, or none.</summary>
    public void TakeParent(MetadataSession.Held held, IReadOnlyList<VpcParentLocatorInfo> locators, string? name)
    {
        Session.Require(held);
        (Locators, ParentName) = (locators, name);
    }

    /// <summary>Where the piece of the bitmap is that has a sector's bit.</summary>
    private static long PieceOf(HostOffset place, long sector) => (place + (sector / SectorsPerPiece * VpcGeometry.SectorSize)).Value;

    /// <summary>The first byte between the end of the disk and its current size that is not zero, in the disk's last block.</summary>
    private async ValueTask<long?> DataInLastBlockAsync(CancellationToken cancellationToken)
    {
        int last = Blocks - 1;
        long start = Length, end = Math.Min(ClaimedEnd, (last + 1) * BlockSize);
        return start < end && PlaceOf(last) is { } place
            && !await StoredBytes.IsZeroAsync(
                File, DataAt(place, InBlock(new(start))).Value, end - start, cancellationToken).ConfigureAwait(false) ? start : null;
    }

    private void RequireSealed()
    {
        if (Header.MaxTableEntries > VpcHeader.MaxEntries)
        {
            VpcHeader.RequireFew(Header.MaxTableEntries, BlockSize, File.Name);
        }
        if (!Footers.IsSealed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{File.Name}: the checksums of both footers are wrong, so the disk is read but not written to. Repair it "
                    + $"with {new Remedy(RemedyKind.Repair)}.",
                File.Name,
                0);
        }
        if (!Header.IsChecksumRight)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{File.Name}: the dynamic header's checksum is wrong, so the disk is read but not written to. Repair it "
                    + $"with {new Remedy(RemedyKind.Repair)}.",
                File.Name,
                (long)Footer.DataOffset);
        }
    }
}
