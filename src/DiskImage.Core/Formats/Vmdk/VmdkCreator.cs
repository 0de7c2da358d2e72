using System.Globalization;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vmdk;

/// <summary>Makes new disks.</summary>
internal static class VmdkCreator
{
    /// <summary>Bytes of the disk in each file of a split one. QEMU's and VMware's.</summary>
    public const long SplitBytes = 2L << 30;

    /// <summary>Sectors set aside for a descriptor inside a sparse extent, as VMware and QEMU do.</summary>
    public const int DescriptorSectors = 20;

    private const int DescriptorSector = 1;

    public static async ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        var options = (VmdkCreateOptions)context.Options;
        string name = context.File.Name;
        long length = LengthOf(options, context.Backing?.Length, name);
        Require(options, context, length);
        uint parentCid = ParentCidOf(options, context.Backing, name);
        switch (options.Subformat)
        {
            case VmdkSubformat.MonolithicSparse:
                await CreateSparseAsync(context.File, options, length, parentCid, cancellationToken).ConfigureAwait(false);
                break;
            case VmdkSubformat.StreamOptimized:
                await VmdkStreamWriter.BeginAsync(context.File, Describe(options, length, parentCid, name), length,
                    cancellationToken).ConfigureAwait(false);
                break;
            default:
                await CreateListedAsync(context, options, length, parentCid, cancellationToken).ConfigureAwait(false);
                break;
        }
    }

    /// <summary>The length that options ask for, in whole sectors.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static long LengthOf(VmdkCreateOptions options, long? other, string name)
    {
        long size = options.Size ?? other
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a new image needs a size.", name);
        return size <= VmdkHeader.MaxSectors * VmdkHeader.SectorSize ? Round.Up(size, VmdkHeader.SectorSize) : throw new DiskImageException(
            DiskImageErrorKind.InvalidOption, $"{name}: a VMDK cannot have {size:#,0} bytes; allowed: up to"
                + $" {VmdkHeader.MaxSectors * VmdkHeader.SectorSize:#,0}.", name);
    }

    /// <summary>
    /// The header of a new sparse extent: descriptor, redundant directory and tables, directory and tables, then the grains.
    /// </summary>
    public static VmdkHeader Plan(long length, bool hasDescriptor, bool zeroedGrains)
    {
        long directory = DirectorySectors(length), redundant = DescriptorSector + DescriptorSectors;
        long first = redundant + directory + TableSectors(length);
        return new VmdkHeader
        {
            Version = zeroedGrains ? 2u : 1u,
            Flags = VmdkFlags.NewLineTest | VmdkFlags.Redundant | (zeroedGrains ? VmdkFlags.ZeroedGrains : 0),
            Capacity = length / VmdkHeader.SectorSize,
            GrainSectors = VmdkHeader.DefaultGrainSectors,
            DescriptorSector = hasDescriptor ? DescriptorSector : 0,
            DescriptorSectors = hasDescriptor ? DescriptorSectors : 0,
            TableEntries = VmdkHeader.DefaultTableEntries,
            RedundantSector = (ulong)redundant,
            DirectorySector = (ulong)first,
            Overhead = Round.Up(first + directory + TableSectors(length), VmdkHeader.DefaultGrainSectors),
        };
    }

    /// <summary>The lengths of the extents of a disk.</summary>
    public static IEnumerable<long> Split(long length, VmdkSubformat subformat)
    {
        bool isSplit = subformat is VmdkSubformat.TwoGbMaxExtentFlat or VmdkSubformat.TwoGbMaxExtentSparse;
        long left = length;
        do
        {
            long part = isSplit ? Math.Min(left, SplitBytes) : left;
            yield return part;
            left -= part;
        }
        while (left > 0);
    }

    /// <summary>The name of an extent's file.</summary>
    public static string ExtentName(string imageName, VmdkSubformat subformat, int index)
    {
        string name = Path.GetFileNameWithoutExtension(imageName);
        if (HasForbidden(name))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{imageName}: a file name with a quotation mark or a control character cannot"
                    + " stand in a descriptor. Choose another name.", imageName);
        }
        return subformat switch
        {
            VmdkSubformat.TwoGbMaxExtentSparse => string.Create(CultureInfo.InvariantCulture, $"{name}-s{index + 1:000}.vmdk"),
            VmdkSubformat.TwoGbMaxExtentFlat => string.Create(CultureInfo.InvariantCulture, $"{name}-f{index + 1:000}.vmdk"),
            _ => $"{name}-flat.vmdk",
        };
    }

    /// <summary>The lines of a new disk's extents.</summary>
    public static IReadOnlyList<VmdkExtentLine> Lines(VmdkSubformat subformat, long length, string imageName)
    {
        if (subformat is VmdkSubformat.MonolithicSparse or VmdkSubformat.StreamOptimized)
        {
            // nobody goes by it
            string own = Path.GetFileName(imageName) is { Length: > 0 } given && !HasForbidden(given) ? given : "disk.vmdk";
            return [new(VmdkAccess.ReadWrite, length / VmdkHeader.SectorSize, VmdkExtentType.Sparse, "SPARSE", own, 0)];
        }
        bool isSparse = subformat == VmdkSubformat.TwoGbMaxExtentSparse;
        string type = isSparse ? "SPARSE" : subformat == VmdkSubformat.Vmfs ? "VMFS" : "FLAT";
        return
        [
            .. Split(length, subformat).Select((part, i) => new VmdkExtentLine(
                VmdkAccess.ReadWrite,
                part / VmdkHeader.SectorSize,
                isSparse ? VmdkExtentType.Sparse : VmdkExtentType.Flat,
                type,
                ExtentName(imageName, subformat, i),
                0)),
        ];
    }

    /// <summary>A new disk's descriptor.</summary>
    public static VmdkDescriptor Describe(VmdkCreateOptions options, long length, uint parentCid, string imageName)
        => VmdkText.New(options, length, Lines(options.Subformat, length, imageName), parentCid, imageName);

    private static bool HasForbidden(string name) => name.Any(c => c == '"' || char.IsControl(c));

    private static long DirectorySectors(long length)
        => Round.Units(Tables(length) * sizeof(uint), VmdkHeader.SectorSize);

    private static long TableSectors(long length) => Tables(length) * VmdkHeader.DefaultTableEntries * sizeof(uint) / VmdkHeader.SectorSize;

    private static long Tables(long length)
        => VmdkHeader.UnitsOf(length / VmdkHeader.SectorSize, (long)VmdkHeader.DefaultGrainSectors * VmdkHeader.DefaultTableEntries);

    private static void Require(VmdkCreateOptions options, FormatCreateContext context, long length)
    {
        string name = context.File.Name;
        _ = VmdkText.Hardware(options, name);
        bool isFlat = options.Subformat is VmdkSubformat.MonolithicFlat or VmdkSubformat.TwoGbMaxExtentFlat or VmdkSubformat.Vmfs;
        if (options.BackingFile is not null && (isFlat || options.Subformat == VmdkSubformat.StreamOptimized))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a {VmdkText.Of(options.Subformat)} disk holds all of its contents, so it cannot have a backing file."
                    + " Choose subformat=monolithicSparse or twoGbMaxExtentSparse.",
                name);
        }
        if (options.ZeroedGrain && options.Subformat is not (VmdkSubformat.MonolithicSparse or VmdkSubformat.TwoGbMaxExtentSparse))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: zeroed_grain is for sparse extents; a {VmdkText.Of(options.Subformat)} disk has none that are written"
                    + " to. Leave it out.",
                name);
        }
        if (options.Subformat is VmdkSubformat.MonolithicSparse or VmdkSubformat.StreamOptimized)
        {
            _ = VmdkHeader.Parse(Plan(length, hasDescriptor: true, zeroedGrains: false).ToBytes(), name, 0); // within the bounds
        }
        if (Split(length, options.Subformat).Count() > VmdkDescriptor.MaxExtents)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: {length:#,0} bytes would take more than {VmdkDescriptor.MaxExtents:#,0} files of {SplitBytes:#,0}."
                    + " Choose subformat=monolithicSparse or monolithicFlat.",
                name);
        }
    }

    private static uint ParentCidOf(VmdkCreateOptions options, BlockNode? backing, string name)
    {
        if (options.BackingFile is null)
        {
            return VmdkDescriptor.NoParent;
        }
        if (options.BackingFormat is { } format && !format.Equals(VmdkDriver.FormatName, StringComparison.OrdinalIgnoreCase))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{name}: backing_fmt={format} is not possible: what a VMDK stands on is"
                    + $" always a vmdk. Convert '{options.BackingFile}' to one.", name);
        }
        VmdkNode parent = VmdkParent.Of(backing) ?? throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{name}: the backing file '{options.BackingFile}' must be a VMDK that can be opened, since its content identifier"
                + " is recorded. Convert it to one.",
            name);
        return parent.Cid;
    }

    private static async ValueTask CreateSparseAsync(BlockNode file, VmdkCreateOptions options, long length, uint parentCid,
        CancellationToken cancellationToken)
    {
        byte[] text = Describe(options, length, parentCid, file.Name).ToBytes();
        if (text.Length > DescriptorSectors * VmdkHeader.SectorSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{file.Name}: the descriptor would have {text.Length:#,0} bytes; there is room for"
                    + $" {DescriptorSectors * VmdkHeader.SectorSize:#,0}. Use a shorter name.",
                file.Name);
        }
        await WriteSparseAsync(file, Plan(length, hasDescriptor: true, options.ZeroedGrain), cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(DescriptorSector * VmdkHeader.SectorSize, text, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Writes a new sparse extent, without a descriptor, into an empty file.</summary>
    public static async ValueTask WriteSparseAsync(BlockNode file, VmdkHeader header, CancellationToken cancellationToken)
    {
        // the tables are all zero
        await file.ResizeAsync(header.Overhead * VmdkHeader.SectorSize, cancellationToken: cancellationToken).ConfigureAwait(false);
        foreach (ulong place in new[] { header.RedundantSector, header.DirectorySector })
        {
            byte[] directory = new byte[DirectorySectors(header.Length) * VmdkHeader.SectorSize];
            for (int i = 0; i < header.DirectoryEntries; i++)
            {
                long table = (long)place + DirectorySectors(header.Length)
                    + ((long)i * header.TableEntries * sizeof(uint) / VmdkHeader.SectorSize);
                LittleEndian.U32(directory, i * sizeof(uint), (uint)table);
            }
            await file.WriteAsync((long)place * VmdkHeader.SectorSize, directory, cancellationToken).ConfigureAwait(false);
        }
        await file.WriteAsync(0, header.ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    private static async ValueTask CreateListedAsync(
        FormatCreateContext context, VmdkCreateOptions options, long length, uint parentCid, CancellationToken cancellationToken)
    {
        if (context.OpenCompanion is not { } open)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{context.File.Name}: a {VmdkText.Of(options.Subformat)} disk consists of several files, and only one can be"
                    + " made there. Choose subformat=monolithicSparse or streamOptimized.",
                context.File.Name);
        }
        VmdkDescriptor descriptor = Describe(options, length, parentCid, context.File.Name);
        foreach (VmdkExtentLine line in descriptor.Extents)
        {
            BlockNode file = await open(WindowsPath.ToLocalFile(line.FileName!)!, true, cancellationToken).ConfigureAwait(false);
            try
            {
                if (line.Type == VmdkExtentType.Sparse)
                {
                    await WriteSparseAsync(file, Plan(line.Length, hasDescriptor: false, options.ZeroedGrain),
                        cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    await file.ResizeAsync(line.Length, cancellationToken: cancellationToken).ConfigureAwait(false);
                }
            }
            finally
            {
                await file.DisposeAsync().ConfigureAwait(false);
            }
        }
        await context.File.WriteAsync(0, descriptor.ToBytes(), cancellationToken).ConfigureAwait(false);
    }
}
