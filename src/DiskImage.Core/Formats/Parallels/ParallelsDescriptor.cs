using System.Globalization;
using System.Xml;
using System.Xml.Linq;
using DiskImage.Block;

namespace DiskImage.Formats.Parallels;

/// <summary>An image of a storage: the layer that a snapshot has there.</summary>
/// <param name="Id">The snapshot.</param>
/// <param name="IsPlain">A raw file; else an expandable disk.</param>
/// <param name="File">Its path, from the descriptor's folder if relative.</param>
internal sealed record ParallelsImage(Guid Id, bool IsPlain, string File);

/// <summary>A part of the disk with files of its own.</summary>
/// <param name="Start">Its first sector.</param>
/// <param name="End">The sector behind its last.</param>
/// <param name="Images">Its layers, in the order of the file.</param>
internal sealed record ParallelsStorage(long Start, long End, IReadOnlyDictionary<Guid, ParallelsImage> Images)
{
    /// <summary>Bytes of the disk in it.</summary>
    public long Length => (End - Start) * ParallelsHeader.SectorSize;
}

/// <summary>What a bundle's DiskDescriptor.xml says. Spec: QEMU docs/interop/prl-xml; see SPEC.md.</summary>
/// <param name="Sectors">Sectors of the disk.</param>
/// <param name="Storages">The parts, in the order of the disk, without a gap between them.</param>
/// <param name="Parents">Of each snapshot the one that it stands on; the empty identifier for the root.</param>
/// <param name="Top">The layer that is written to.</param>
/// <param name="Source">All of it, with what only others read. Not to be changed.</param>
internal sealed record ParallelsDescriptor(
    long Sectors, IReadOnlyList<ParallelsStorage> Storages, IReadOnlyDictionary<Guid, Guid> Parents, Guid Top, XDocument Source)
{
    /// <summary>The file that opens a bundle.</summary>
    public const string FileName = "DiskDescriptor.xml";

    private const string Root = "Parallels_disk_image", OnlyVersion = "1.0";
    private const int MaximumBytes = 4 << 20, MaximumDepth = 32, MaximumChain = 200; // ours

    /// <summary>The top layer where the descriptor does not name it. Spec: "Snapshots element".</summary>
    public static readonly Guid UsualTop = new("5fbaabe3-6958-40ff-92a7-860e329aab41");

    private static readonly XmlReaderSettings s_settings = new()
    {
        CloseInput = false,
        DtdProcessing = DtdProcessing.Prohibit,
        XmlResolver = null,
        MaxCharactersInDocument = MaximumBytes,
        MaxCharactersFromEntities = 1024,
        IgnoreComments = true,
        IgnoreProcessingInstructions = true,
        IgnoreWhitespace = true,
    };

    /// <summary>True if a file's first bytes are such a descriptor's.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> file)
    {
        ReadOnlySpan<byte> text = file.StartsWith((ReadOnlySpan<byte>)[0xEF, 0xBB, 0xBF]) ? file[3..] : file;
        text = text.TrimStart(" \t\r\n"u8);
        return text.StartsWith("<"u8) && text.IndexOf("<Parallels_disk_image"u8) >= 0;
    }

    /// <summary>Reads a descriptor.</summary>
    /// <exception cref="DiskImageException">Corrupt or Unsupported.</exception>
    public static async ValueTask<ParallelsDescriptor> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        if (file.Length > MaximumBytes)
        {
            throw Wrong(file, $"it has {file.Length:#,0} bytes; allowed: up to {MaximumBytes:#,0}");
        }
        byte[] bytes = new byte[file.Length];
        await file.ReadAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        return Parse(file, bytes);
    }

    /// <summary>The same of its text.</summary>
    /// <exception cref="DiskImageException">Corrupt or Unsupported.</exception>
    public static ParallelsDescriptor Parse(BlockNode file, byte[] bytes)
    {
        try
        {
            RequireFlat(bytes);
            using var reader = XmlReader.Create(new MemoryStream(bytes), s_settings);
            var source = XDocument.Load(reader);
            XElement root = source.Root!;
            return root.Name.LocalName is Root && (string?)root.Attribute("Version") is OnlyVersion
                ? Read(file, source)
                : throw Wrong(
                    file, $"its root is {root.Name.LocalName} {(string?)root.Attribute("Version")}; supported: {Root} {OnlyVersion}");
        }
        catch (Exception e) when (e is XmlException or ArgumentException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{file.Name}: the disk descriptor cannot be read: {e.Message}", file.Name, cause: e);
        }
    }

    /// <summary>The layers beside the top one, each behind what it stands on.</summary>
    public IReadOnlyList<Guid> Snapshots()
    {
        return [.. Parents.Keys.Where(id => id != Top).OrderBy(Depth)];

        int Depth(Guid id)
        {
            int depth = 0;
            for (Guid at = id; depth < MaximumChain && Parents.TryGetValue(at, out Guid parent); at = parent)
            {
                depth++;
            }
            return depth;
        }
    }

    /// <summary>The snapshots from the root to one.</summary>
    /// <exception cref="DiskImageException">Corrupt: they do not lead to a root.</exception>
    public IReadOnlyList<Guid> ChainTo(BlockNode file, Guid snapshot)
    {
        var chain = new List<Guid>();
        var seen = new HashSet<Guid>();
        for (Guid at = snapshot; at != Guid.Empty; at = Parents[at])
        {
            if (!seen.Add(at) || chain.Count == MaximumChain || !Parents.ContainsKey(at))
            {
                throw Wrong(file, $"the snapshots above {snapshot:B} lead to no root within {MaximumChain} steps, but to {at:B}");
            }
            chain.Add(at);
        }
        chain.Reverse();
        return chain;
    }

    private static ParallelsDescriptor Read(BlockNode file, XDocument source)
    {
        XElement root = source.Root!;
        XElement parameters = Child(file, root, "Disk_Parameters"), snapshots = Child(file, root, "Snapshots");
        long sectors = Number(file, parameters, "Disk_size");
        if (parameters.Element("Padding") is { } padding && padding.Value.Trim() is not ("" or "0"))
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{file.Name}: the disk has padding; supported: none", file.Name);
        }
        if (parameters.Element("Encryption")?.Element("Engine") is { } engine && Guid.TryParse(engine.Value.Trim(), out Guid cipher)
            && cipher != Guid.Empty)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{file.Name}: the disk is encrypted, by the engine {cipher:B}", file.Name);
        }
        var storages = Child(file, root, "StorageData").Elements("Storage").Select(s => Storage(file, s)).OrderBy(s => s.Start).ToList();
        long end = 0;
        foreach (ParallelsStorage storage in storages)
        {
            if (storage.Start != end || storage.End <= storage.Start)
            {
                throw Wrong(
                    file, $"a storage has the sectors {storage.Start:#,0} to {storage.End:#,0}, where one from {end:#,0} on should be");
            }
            end = storage.End;
        }
        if (storages.Count == 0 || end != sectors || sectors > long.MaxValue / ParallelsHeader.SectorSize)
        {
            throw Wrong(file, $"the disk has {sectors:#,0} sectors, and its storages end at {end:#,0}");
        }
        var parents = new Dictionary<Guid, Guid>();
        foreach (XElement shot in snapshots.Elements("Shot"))
        {
            if (!parents.TryAdd(Identifier(file, shot, "GUID"), Identifier(file, shot, "ParentGUID")))
            {
                throw Wrong(file, $"the snapshot {Identifier(file, shot, "GUID"):B} is there twice");
            }
        }
        Guid top = snapshots.Element("TopGUID") is null ? UsualTop : Identifier(file, snapshots, "TopGUID");
        return new(sectors, storages, parents, top, source);
    }

    private static ParallelsStorage Storage(BlockNode file, XElement storage)
    {
        var images = new Dictionary<Guid, ParallelsImage>();
        foreach (XElement image in storage.Elements("Image"))
        {
            string type = Child(file, image, "Type").Value.Trim();
            var read = new ParallelsImage(Identifier(file, image, "GUID"), type is "Plain", Child(file, image, "File").Value.Trim());
            if (type is not ("Plain" or "Compressed"))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{file.Name}: an image is of the type '{type}'; supported: Plain, Compressed",
                    file.Name);
            }
            if (read.File.Length == 0 || !images.TryAdd(read.Id, read))
            {
                throw Wrong(file, $"the image {read.Id:B} is there twice, or has no file");
            }
        }
        return new(Number(file, storage, "Start"), Number(file, storage, "End"), images);
    }

    /// <summary>Refuses elements in elements far beyond what a descriptor has.</summary>
    private static void RequireFlat(byte[] bytes)
    {
        using var reader = XmlReader.Create(new MemoryStream(bytes), s_settings);
        while (reader.Read())
        {
            if (reader.Depth > MaximumDepth)
            {
                throw new XmlException($"it has more than {MaximumDepth} levels");
            }
        }
    }

    private static XElement Child(BlockNode file, XElement parent, string name)
        => parent.Element(name) ?? throw Wrong(file, $"the element {parent.Name.LocalName} has no {name}");

    private static long Number(BlockNode file, XElement parent, string name)
        => Child(file, parent, name).Value.Trim() is var text
            && long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
            ? number
            : throw Wrong(file, $"the element {name} has '{text}'; allowed: a number");

    private static Guid Identifier(BlockNode file, XElement parent, string name)
        => Child(file, parent, name).Value.Trim() is var text && Guid.TryParse(text, out Guid id)
            ? id
            : throw Wrong(file, $"the element {name} has '{text}'; allowed: a GUID");

    private static DiskImageException Wrong(BlockNode file, Wording what)
        => new(DiskImageErrorKind.Corrupt, $"{file.Name}: the disk descriptor cannot be used: {what}", file.Name);
}
