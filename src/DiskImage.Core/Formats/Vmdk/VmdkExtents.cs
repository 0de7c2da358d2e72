using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vmdk;

/// <summary>An extent of an open disk.</summary>
/// <param name="Line">How it is described.</param>
/// <param name="Start">Where on the disk it begins, in bytes.</param>
/// <param name="Node">Its contents; it borrows its file.</param>
/// <param name="File">Its file; null for none.</param>
internal sealed record VmdkExtent(VmdkExtentLine Line, long Start, BlockNode Node, BlockNode? File)
{
    /// <summary>The byte behind its last.</summary>
    public long End => Start + Node.Length;
}

/// <summary>
/// Opens the extents that a descriptor lists. Names pass the policy as names of data files do, and never lead to anything but files.
/// </summary>
internal sealed class VmdkExtents(FormatOpenContext context, VmdkDescriptor? descriptor, BlockNode? parent)
{
    private static readonly string[] s_deviceTypes = ["fullDevice", "partitionedDevice", "vmfsRaw", "vmfsRDM", "vmfsRDMP",
        "vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap"];

    private BlockNode Image => context.File;

    /// <summary>Refuses disks on devices.</summary>
    /// <exception cref="DiskImageException">Unsupported.</exception>
    public static void RequireFiles(VmdkDescriptor descriptor)
    {
        if (descriptor.CreateType is { } type && s_deviceTypes.Contains(type, StringComparer.OrdinalIgnoreCase))
        {
            throw VmdkExtentLine.Device(descriptor.ImageName, type);
        }
        if (descriptor.Extents.FirstOrDefault(e
            => e.Type == VmdkExtentType.Device || (e.FileName is { } name && IsDevice(name))) is { } line)
        {
            throw VmdkExtentLine.Device(descriptor.ImageName, line.FileName is { } name ? $"{line.TypeName} \"{name}\"" : line.TypeName);
        }
    }

    /// <summary>Opens the extents of a descriptor in a file of its own.</summary>
    /// <exception cref="DiskImageException">What opening says; then all that was opened is closed.</exception>
    public ValueTask<IReadOnlyList<VmdkExtent>> OpenListedAsync(CancellationToken cancellationToken)
        => OpenListedAsync(descriptor!.Extents, 0, cancellationToken);

    /// <summary>Opens the last extents of a disk.</summary>
    /// <param name="lines">How they are described.</param>
    /// <param name="start">Where on the disk the first one begins.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">What opening says; then all that was opened is closed.</exception>
    public async ValueTask<IReadOnlyList<VmdkExtent>> OpenListedAsync(IReadOnlyList<VmdkExtentLine> lines, long start,
        CancellationToken cancellationToken)
    {
        var extents = new List<VmdkExtent>();
        var files = new Dictionary<string, BlockNode>(StringComparer.Ordinal); // several flat extents may lie in one file
        try
        {
            foreach (VmdkExtentLine line in lines)
            {
                bool isLast = ReferenceEquals(line, lines[^1]);
                extents.Add(await OpenLineAsync(line, start, isLast, files, cancellationToken).ConfigureAwait(false));
                start += line.Length;
            }
            return extents;
        }
        catch
        {
            await CloseAsync(extents).ConfigureAwait(false);
            await Closing.FailedAsync(files.Values).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Opens the image's own file as the one extent.</summary>
    public async ValueTask<IReadOnlyList<VmdkExtent>> OpenOwnAsync(CancellationToken cancellationToken)
    {
        (BlockNode node, VmdkExtentType type, string name) = await OpenSparseAsync(Image, parent,
            new VmdkExtentTraits(HasParent, IsReadOnly: IsKept, IsDescribed: descriptor is not null || HasParent),
            cancellationToken).ConfigureAwait(false);
        VmdkExtentLine line = descriptor is { Extents: [var own] } ? own
            : new(VmdkAccess.ReadWrite, node.Length / VmdkHeader.SectorSize, type, name, Path.GetFileName(Image.Name), 0);
        return [new VmdkExtent(line, 0, node, Image)];
    }

    /// <summary>Closes the contents of extents, not their files.</summary>
    public static ValueTask CloseAsync(IEnumerable<VmdkExtent> extents) => Closing.FailedAsync(extents.Select(e => e.Node));

    private bool HasParent => descriptor?.HasParent == true || context.GivesBacking;

    private bool IsKept => descriptor?.TracksChanges == true; // what tracks the changes would not learn of ours

    private static bool IsDevice(string name)
    {
        string plain = name.Replace('\\', '/');
        return plain.StartsWith("/dev/", StringComparison.OrdinalIgnoreCase) || plain.StartsWith("//./", StringComparison.Ordinal)
            || plain.StartsWith("/vmfs/devices/", StringComparison.OrdinalIgnoreCase);
    }

    private async ValueTask<VmdkExtent> OpenLineAsync(
        VmdkExtentLine line, long start, bool isLast, Dictionary<string, BlockNode> files, CancellationToken cancellationToken)
    {
        if (line.Access == VmdkAccess.NoAccess || line.Type == VmdkExtentType.Zero)
        {
            return new(line, start, new VmdkEmptyExtent(Image.Name, line.Length, isReadable: line.Access != VmdkAccess.NoAccess), null);
        }
        BlockNode file = await OpenFileAsync(line, files, cancellationToken).ConfigureAwait(false);
        // opened to be described only
        bool isReadOnly = line.Access == VmdkAccess.ReadOnly || IsKept, isAbsent = file.Length == long.MaxValue;
        if (line.Type == VmdkExtentType.Flat || isAbsent)
        {
            return new(line, start, new VmdkFlatExtent(file, line.StartSector * VmdkHeader.SectorSize, line.Length, isReadOnly), file);
        }
        BlockNode? below = parent is null ? null : new VmdkParentWindow(parent, start, isLast ? long.MaxValue - start : line.Length);
        (BlockNode node, VmdkExtentType type, _) = await OpenSparseAsync(file, below, new(HasParent, line.Length, isReadOnly),
            cancellationToken).ConfigureAwait(false);
        if (type != line.Type || node.Length < line.Length)
        {
            long length = node.Length;
            await Closing.FailedAsync(node).ConfigureAwait(false);
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                type != line.Type
                    ? $"{Image.Name}: the descriptor says that '{line.FileName}' is {line.TypeName}, but it begins like {type}"
                    : $"{Image.Name}: the descriptor gives '{line.FileName}' {line.Length:#,0} bytes of the disk, and its header"
                        + $" says {length:#,0}",
                Image.Name);
        }
        return new(line, start, node, file);
    }

    private async ValueTask<BlockNode> OpenFileAsync(VmdkExtentLine line, Dictionary<string, BlockNode> files,
        CancellationToken cancellationToken)
    {
        string name = WindowsPath.ToLocalFile(line.FileName!) ?? throw new DiskImageException(
            DiskImageErrorKind.NotFound,
            $"{Image.Name}: its extent '{line.FileName}' is named by a drive or a share of Windows, which is not here. Put the"
                + " file into the image's folder and"
                + " name it without a folder in the descriptor, which is a text file.",
            Image.Name);
        if (files.TryGetValue(name, out BlockNode? known) && line.Type == VmdkExtentType.Flat)
        {
            return known;
        }
        BlockNode file = await context.OpenData(name, null, cancellationToken).ConfigureAwait(false);
        if (!files.TryAdd(name, file))
        {
            await Closing.FailedAsync(file).ConfigureAwait(false);
            throw new DiskImageException(DiskImageErrorKind.Corrupt,
                $"{Image.Name}: the descriptor names the sparse extent '{line.FileName}' twice", Image.Name);
        }
        if (file.Identity is { } identity
            && (identity == Image.Identity || files.Values.Any(f => !ReferenceEquals(f, file) && f.Identity == identity)))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{Image.Name}: its extent '{line.FileName}' is the descriptor itself, or another"
                    + " extent's file under another name", Image.Name);
        }
        return file;
    }

    /// <summary>Opens a sparse extent by what its file begins with.</summary>
    private async ValueTask<(BlockNode Node, VmdkExtentType Type, string Name)> OpenSparseAsync(
        BlockNode file, BlockNode? below, VmdkExtentTraits traits, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[VmdkHeader.SectorSize];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (VmdkSeSparseHeader.IsSigned(bytes))
        {
            return (await VmdkSeSparseExtent.OpenAsync(file, below, traits.Length, cancellationToken).ConfigureAwait(false),
                VmdkExtentType.SeSparse, "SESPARSE");
        }
        bool isCowd = VmdkCowdHeader.IsSigned(bytes);
        VmdkHeader header = isCowd
            ? await VmdkCowdHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false)
            : await VmdkFooter.ReadHeaderAsync(file, bytes, cancellationToken).ConfigureAwait(false);
        BlockNode node = await VmdkSparseExtent.OpenAsync(file, below, header, traits with { IsCowd = isCowd }, context.ForRepair,
            cancellationToken).ConfigureAwait(false);
        return (node, isCowd ? VmdkExtentType.Cowd : VmdkExtentType.Sparse, isCowd ? "VMFSSPARSE" : "SPARSE");
    }
}
