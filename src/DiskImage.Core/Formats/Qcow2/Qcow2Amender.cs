using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changes create options of an existing image. Every option is checked before the first change is made.</summary>
/// <param name="disk">The image.</param>
/// <param name="node">Its face.</param>
/// <param name="options">What is to be changed.</param>
internal sealed class Qcow2Amender(Qcow2Disk disk, Qcow2Node node, Qcow2AmendOptions options)
{
    private readonly Qcow2Compat _compat = options.Compat ?? (Qcow2Compat)disk.Header.Version;
    private readonly int _refcountOrder = options.RefcountBits is int bits ? Qcow2Geometry.Log2(bits) : disk.Header.RefcountOrder;

    private BlockNode File => disk.File;

    private Qcow2Header Header => disk.Header;

    private string Name => disk.Name;

    private bool IsLazy => options.LazyRefcounts
        ?? (_compat == Qcow2Compat.V3 && (Header.Compatible & Qcow2Compatible.LazyRefcounts) != Qcow2Compatible.None);

    private bool BecomesVersion2 => _compat == Qcow2Compat.V2 && Header.Version >= 3;

    public async ValueTask RunAsync(CancellationToken cancellationToken)
    {
        RequirePossible();
        if (BecomesVersion2)
        {
            await RequireFitsVersion2Async(Math.Max(disk.Length, options.Size ?? 0), cancellationToken).ConfigureAwait(false);
        }
        await node.AmendKeysAsync(options.Encrypt, cancellationToken).ConfigureAwait(false);
        if (options.Size is long size && size > disk.Length)
        {
            await node.ResizeAsync(size, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
        await node.ChangeAloneAsync(held => ChangeAsync(held, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    private void RequirePossible()
    {
        if (options.Size is long size && size < disk.Length)
        {
            throw Refused($"size={size} is smaller than the present {disk.Length:#,0} bytes;"
                + $" an image is made smaller with {new Remedy(RemedyKind.Shrink)}");
        }
        if (options.DataFileRaw == true && !disk.IsRawData)
        {
            throw Refused("data_file_raw can be turned off, not on: the data file may not read like the disk");
        }
        if (_compat == Qcow2Compat.V3)
        {
            return;
        }
        if (BecomesVersion2 && Header.CryptMethod != 0)
        {
            throw Refused("compat=0.10 has no zero clusters, and an encrypted image cannot store them otherwise without being converted");
        }
        if (_refcountOrder != 4)
        {
            throw Refused($"compat=0.10 needs refcount_bits=16, not {1 << _refcountOrder}");
        }
        if (IsLazy)
        {
            throw Refused("compat=0.10 needs lazy_refcounts=off");
        }
        Qcow2Incompatible features = Header.Incompatible & ~Qcow2Incompatible.Dirty;
        if (features != Qcow2Incompatible.None)
        {
            throw Refused($"compat=0.10 does not have what the image uses: {features}");
        }
        if (Header.Extension(Qcow2Extension.Bitmaps) is not null)
        {
            throw Refused("compat=0.10 does not have bitmaps; remove them first");
        }

        DiskImageException Refused(Wording why) => new(DiskImageErrorKind.InvalidOption, $"{Name}: {why}.", Name);
    }

    private async ValueTask RequireFitsVersion2Async(long size, CancellationToken cancellationToken)
    {
        CheckReport report = await node.CheckAsync(null, cancellationToken).ConfigureAwait(false);
        if (report.Corruptions > 0)
        {
            throw disk.Corrupt($"it has {report.Corruptions} corruptions, so it stays version 3", 0);
        }
        foreach (Qcow2Snapshot snapshot in await Qcow2Snapshot.ReadAllAsync(File, Header, cancellationToken).ConfigureAwait(false))
        {
            if (snapshot.VmStateSize != 0 || (snapshot.VirtualSize ?? size) != size)
            {
                string what = snapshot.VmStateSize != 0
                    ? FormattableString.Invariant($"a machine state of {snapshot.VmStateSize:#,0} bytes")
                    : FormattableString.Invariant($"{snapshot.VirtualSize:#,0} bytes and the disk {size:#,0}");
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{Name}: compat=0.10 cannot say that snapshot '{snapshot.Name}' has {what}. Remove the snapshot first.",
                    Name);
            }
        }
    }

    private async ValueTask ChangeAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await disk.SettleAsync(held, cancellationToken).ConfigureAwait(false);
        if (_compat == Qcow2Compat.V3 && Header.Version < 3)
        {
            await new Qcow2Snapshots(disk).LengthenEntriesAsync(held, cancellationToken).ConfigureAwait(false);
            await disk.SwitchHeaderAsync(
                held, Header with { Version = 3, HeaderLength = Qcow2Header.LengthWithCompressionType }).ConfigureAwait(false);
        }
        if (_refcountOrder != Header.RefcountOrder)
        {
            await ChangeRefcountWidthAsync(held, cancellationToken).ConfigureAwait(false);
        }
        Qcow2Compatible others = Header.Compatible & ~Qcow2Compatible.LazyRefcounts;
        Qcow2Compatible compatible = IsLazy ? others | Qcow2Compatible.LazyRefcounts : others;
        Qcow2AutoClear autoClear = options.DataFileRaw == false ? Header.AutoClear & ~Qcow2AutoClear.RawExternalData : Header.AutoClear;
        if (compatible != Header.Compatible || autoClear != Header.AutoClear)
        {
            await disk.UpdateHeaderAsync(held, Header with { Compatible = compatible, AutoClear = autoClear }).ConfigureAwait(false);
        }
        if (BecomesVersion2)
        {
            await MakeVersion2Async(held, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Builds the refcounts anew in another width and switches to them; the old structure becomes free.</summary>
    private async ValueTask ChangeRefcountWidthAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        var counted = new Qcow2Checker(File, Header, null, cancellationToken);
        await counted.CountWithoutRefcountsAsync().ConfigureAwait(false);
        if (counted.Findings.Corruptions > 0)
        {
            throw disk.Corrupt($"it has {counted.Findings.Corruptions} corruptions, so its refcounts are not converted", 0);
        }
        if (Qcow2RefcountBuilder.OrderFor(counted.References, _refcountOrder) > _refcountOrder)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: refcount_bits={1 << _refcountOrder} does not hold the refcounts there are;"
                    + $" remove snapshots first or choose more bits.",
                Name);
        }
        _ = await Qcow2RefcountBuilder.BuildAsync(
            File, Header, counted.References, _refcountOrder, cancellationToken).ConfigureAwait(false);
        await disk.ReloadAsync(held, forWriting: true).ConfigureAwait(false);
    }

    /// <summary>
    /// Version 2 has no zero clusters: without a backing file they become unallocated, else real zeroes at the end of the file. The
    /// tables of snapshots change with the active ones, in place; meanwhile the image is marked dirty.
    /// </summary>
    private async ValueTask MakeVersion2Async(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await disk.UpdateHeaderAsync(
            held, Header with { Incompatible = Header.Incompatible | Qcow2Incompatible.Dirty }).ConfigureAwait(false);
        try
        {
            await ExpandZeroesAsync(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            // Counts what was added, also if only some of it was, and clears the mark; there was no corruption before.
            _ = await Qcow2Repairer.RunAsync(
                File, Header, disk.DataFile, RepairMode.All, null, CancellationToken.None).ConfigureAwait(false);
            await disk.ReloadAsync(held, forWriting: true).ConfigureAwait(false);
        }
        Qcow2Header header = Header with
        {
            Version = 2,
            HeaderLength = Qcow2Header.V2Length,
            Compatible = default,
            AutoClear = default,
            UnknownFields = [],
            Extensions = [.. Header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)],
        };
        await disk.SwitchHeaderAsync(held, header).ConfigureAwait(false);
    }

    /// <summary>Replaces the zero clusters of every L2 table.</summary>
    private async ValueTask ExpandZeroesAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(File, Header, cancellationToken).ConfigureAwait(false);
        var done = new HashSet<HostOffset>();
        byte[] table = new byte[disk.Geometry.ClusterSize];
        PointerTable active = disk.Tables.L1;
        foreach ((long offset, int entries) in snapshots.Select(s => (s.L1Offset, s.L1Size)).Prepend((active.HostOffset, active.Count)))
        {
            byte[] l1 = new byte[entries * 8];
            await File.ReadPaddedAsync(offset, l1, cancellationToken).ConfigureAwait(false);
            for (int i = 0; i < entries; i++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                var l2 = new HostOffset(L2Entry.OffsetOf(BigEndian.U64(l1, i * 8)));
                if (l2.Value != 0 && done.Add(l2))
                {
                    disk.Tables.RequireAligned(l2, disk.Geometry.StartOf(i), "L1 entry");
                    await File.ReadPaddedAsync(l2.Value, table, cancellationToken).ConfigureAwait(false);
                    if (await ExpandZeroesAsync(table, cancellationToken).ConfigureAwait(false))
                    {
                        await File.WriteAsync(l2.Value, table, cancellationToken).ConfigureAwait(false);
                    }
                }
            }
        }
    }

    /// <summary>Replaces the zero clusters of an L2 table; true if there were any.</summary>
    private async ValueTask<bool> ExpandZeroesAsync(byte[] table, CancellationToken cancellationToken)
    {
        bool changed = false, hasBacking = Header.BackingFile is not null;
        var end = new HostOffset(Round.Up(File.Length, disk.Geometry.ClusterSize));
        for (int at = 0; at < table.Length; at += 8)
        {
            var entry = new L2Entry(BigEndian.U64(table, at));
            if (entry.KindOf(0, extended: false) == ClusterKind.Zero)
            {
                BigEndian.U64(table, at, hasBacking ? L2Entry.Normal(end, 0).Raw : 0);
                end += hasBacking ? disk.Geometry.ClusterSize : 0;
                changed = true;
            }
        }
        if (end.Value > File.Length)
        {
            await File.ResizeAsync(end.Value, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
        return changed;
    }
}
