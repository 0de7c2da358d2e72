using System.Globalization;
using System.Text;
using System.Xml;
using System.Xml.Linq;
using DiskImage.Block;

namespace DiskImage.Formats.Parallels;

/// <summary>
/// Makes descriptors and changes them. What only other programs read stays as it is, comments excepted. Layout: see SPEC.md.
/// </summary>
internal static class ParallelsDescriptorEdit
{
    private const string IdName = "GUID", ParentName = "ParentGUID", FileName = "File", Type = "Type", Image = "Image", Shot = "Shot";
    private const string Expandable = "Compressed";
    private const int Heads = 16, TrackSectors = 32;

    /// <summary>The descriptor of a new disk of one expandable image.</summary>
    public static byte[] New(long sectors, uint tracks, string file)
    {
        string top = Text(ParallelsDescriptor.UsualTop);
        return ToBytes(new(new XElement(
            "Parallels_disk_image",
            new XAttribute("Version", "1.0"),
            new XElement(
                "Disk_Parameters",
                new XElement("Disk_size", sectors),
                new XElement("Cylinders", sectors / (Heads * TrackSectors)),
                new XElement("PhysicalSectorSize", 4096),
                new XElement("LogicSectorSize", ParallelsHeader.SectorSize),
                new XElement("Heads", Heads),
                new XElement("Sectors", TrackSectors),
                new XElement("Padding", 0)),
            new XElement(
                "StorageData",
                new XElement(
                    "Storage",
                    new XElement("Start", 0),
                    new XElement("End", sectors),
                    new XElement("Blocksize", tracks),
                    NewImage(ParallelsDescriptor.UsualTop, file))),
            new XElement(
                "Snapshots",
                new XElement("TopGUID", top),
                new XElement(Shot, new XElement(IdName, top), new XElement(ParentName, Text(Guid.Empty)))))));
    }

    /// <summary>With a snapshot of what the top layer holds, under an identifier of its own, and new files for the top layer.</summary>
    /// <param name="descriptor">The present one.</param>
    /// <param name="snapshot">The snapshot's identifier.</param>
    /// <param name="files">The top layer's new file in each storage, in their order.</param>
    public static XDocument Kept(ParallelsDescriptor descriptor, Guid snapshot, IReadOnlyList<string> files) => Changed(descriptor, root =>
    {
        Guid top = descriptor.Top;
        foreach ((XElement storage, string file) in Storages(root).Zip(files))
        {
            XElement kept = Images(storage).Single(i => Is(i, IdName, top));
            kept.SetElementValue(IdName, Text(snapshot));
            kept.AddAfterSelf(NewImage(top, file));
        }
        XElement shot = Shots(root).Single(s => Is(s, IdName, top));
        foreach (XElement child in Shots(root).Where(s => Is(s, ParentName, top)))
        {
            child.SetElementValue(ParentName, Text(snapshot));
        }
        shot.SetElementValue(IdName, Text(snapshot));
        shot.AddAfterSelf(new XElement(Shot, new XElement(IdName, Text(top)), new XElement(ParentName, Text(snapshot))));
    });

    /// <summary>With the top layer in new files, over a snapshot.</summary>
    public static XDocument Restored(ParallelsDescriptor descriptor, Guid snapshot, IReadOnlyList<string> files)
        => Changed(descriptor, root =>
    {
        foreach ((XElement storage, string file) in Storages(root).Zip(files))
        {
            XElement top = Images(storage).Single(i => Is(i, IdName, descriptor.Top));
            top.SetElementValue(Type, Expandable);
            top.SetElementValue(FileName, file);
        }
        Shots(root).Single(s => Is(s, IdName, descriptor.Top)).SetElementValue(ParentName, Text(snapshot));
    });

    /// <summary>Without a snapshot; what stands on it stands on what it stood on.</summary>
    public static XDocument Removed(ParallelsDescriptor descriptor, Guid snapshot) => Changed(descriptor, root =>
    {
        foreach (XElement child in Shots(root).Where(s => Is(s, ParentName, snapshot)))
        {
            child.SetElementValue(ParentName, Text(descriptor.Parents[snapshot]));
        }
        Shots(root).Single(s => Is(s, IdName, snapshot)).Remove();
        Storages(root).SelectMany(Images).Where(i => Is(i, IdName, snapshot)).ToList().ForEach(i => i.Remove());
    });

    /// <summary>With another size: storages behind the end go, the last one ends there.</summary>
    public static XDocument Resized(ParallelsDescriptor descriptor, long sectors) => Changed(descriptor, root =>
    {
        XElement parameters = root.Element("Disk_Parameters")!;
        parameters.SetElementValue("Disk_size", sectors);
        if (parameters.Element("Cylinders") is { } cylinders)
        {
            cylinders.Value = (sectors / (Heads * TrackSectors)).ToString(CultureInfo.InvariantCulture);
        }
        List<XElement> storages = [.. Storages(root)];
        foreach (XElement storage in storages.Skip(1).Where(s => StartOf(s) >= sectors))
        {
            storage.Remove();
        }
        storages.Last(s => s.Parent is not null).SetElementValue("End", sectors);
    });

    /// <summary>The text as it stands in a file.</summary>
    public static byte[] ToBytes(XDocument document)
    {
        using var stream = new MemoryStream();
        var settings = new XmlWriterSettings
        {
            Encoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false), Indent = true, NewLineChars = "\n",
        };
        using (var writer = XmlWriter.Create(stream, settings))
        {
            document.Save(writer);
        }
        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }

    /// <summary>
    /// Writes another descriptor in its place, in one request, durably: for what holds files and cannot rename them. White space makes it
    /// as long as the old one until the file is cut.
    /// </summary>
    public static async ValueTask WriteInPlaceAsync(BlockNode file, ReadOnlyMemory<byte> bytes)
    {
        byte[] padded = new byte[Math.Max(bytes.Length, file.Length)];
        padded.AsSpan().Fill((byte)'\n');
        bytes.CopyTo(padded);
        await file.WriteAsync(0, padded).ConfigureAwait(false);
        if (padded.Length > bytes.Length)
        {
            await file.ResizeAsync(bytes.Length).ConfigureAwait(false);
        }
        await file.FlushAsync().ConfigureAwait(false);
    }

    private static XElement NewImage(Guid layer, string file)
        => new(Image, new XElement(IdName, Text(layer)), new XElement(Type, Expandable), new XElement(FileName, file));

    private static XDocument Changed(ParallelsDescriptor descriptor, Action<XElement> change)
    {
        var copy = new XDocument(descriptor.Source);
        change(copy.Root!);
        return copy;
    }

    /// <summary>The storages in the order of the disk, as <see cref="ParallelsDescriptor.Storages"/> has them.</summary>
    private static IEnumerable<XElement> Storages(XElement root) => root.Element("StorageData")!.Elements("Storage").OrderBy(StartOf);

    private static long StartOf(XElement storage)
        => long.Parse(storage.Element("Start")!.Value.Trim(), NumberStyles.None, CultureInfo.InvariantCulture);

    private static IEnumerable<XElement> Images(XElement storage) => storage.Elements(Image);

    private static List<XElement> Shots(XElement root) => [.. root.Element("Snapshots")!.Elements(Shot)];

    private static bool Is(XElement parent, string name, Guid id) => Guid.Parse(parent.Element(name)!.Value.Trim()) == id;

    private static string Text(Guid id) => id.ToString("B");
}
