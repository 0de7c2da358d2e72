using System.Buffers.Binary;
using System.Text;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Parallels;

/// <summary>
/// Writes bundles (.hdd folders) by the published layouts alone, with none of the library's code: QEMU docs/interop/parallels.rst for the
/// images, docs/interop/prl-xml.rst for the descriptor. Parallels Desktop, which makes them, is not to be had here.
/// </summary>
internal sealed class BundleMaker(TestFolder folder, string name)
{
    public const string Root = "{5fbaabe3-6958-40ff-92a7-860e329aab40}", Middle = "{11111111-2222-3333-4444-555555555555}";
    public const string Top = "{5fbaabe3-6958-40ff-92a7-860e329aab41}", Nothing = "{00000000-0000-0000-0000-000000000000}";

    public const int Cluster = 64 << 10;

    public string Folder => folder[name];

    public string Descriptor => Path.Combine(Folder, "DiskDescriptor.xml");

    /// <summary>An expandable image; a cluster that is null is nowhere.</summary>
    public void Image(string file, byte[]?[] clusters, long? sectors = null, bool isOriginal = false)
    {
        _ = Directory.CreateDirectory(Folder);
        int tableEnd = 64 + (clusters.Length * 4), dataStart = (tableEnd + Cluster - 1) / Cluster * Cluster, next = dataStart;
        byte[] head = new byte[dataStart];
        Encoding.ASCII.GetBytes(isOriginal ? "WithoutFreeSpace" : "WithouFreSpacExt").CopyTo(head, 0);
        uint[] fields = [2, 16, 1, Cluster / 512, (uint)clusters.Length];
        for (int i = 0; i < fields.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(head.AsSpan(16 + (i * 4)), fields[i]);
        }
        BinaryPrimitives.WriteInt64LittleEndian(head.AsSpan(36), sectors ?? (long)clusters.Length * Cluster / 512);
        BinaryPrimitives.WriteInt32LittleEndian(head.AsSpan(48), dataStart / 512);
        using FileStream stream = File.Create(Path.Combine(Folder, file));
        stream.Position = dataStart;
        for (int i = clusters.Length - 1; i >= 0; i--) // not in the disk's order
        {
            if (clusters[i] is { } bytes)
            {
                BinaryPrimitives.WriteInt32LittleEndian(head.AsSpan(64 + (i * 4)), next / (isOriginal ? 512 : Cluster));
                stream.Write(bytes);
                next += Cluster;
            }
        }
        stream.Position = 0;
        stream.Write(head);
    }

    /// <summary>The descriptor.</summary>
    public void Describe(
        long sectors, string storages, string snapshots, string more = "", string prolog = "<?xml version='1.0' encoding='UTF-8'?>\n")
    {
        _ = Directory.CreateDirectory(Folder);
        File.WriteAllText(Descriptor, $"""
            {prolog}<Parallels_disk_image Version="1.0">
              <Disk_Parameters><Disk_size>{sectors}</Disk_size><Cylinders>1</Cylinders><Heads>16</Heads><Sectors>32</Sectors>
                <Padding>0</Padding>{more}<Name>test</Name></Disk_Parameters>
              <StorageData>{storages}</StorageData>
              <Snapshots>{snapshots}</Snapshots>
            </Parallels_disk_image>
            """);
    }

    public static string Storage(long start, long end, params (string Id, string Type, string File)[] images)
        => $"<Storage><Start>{start}</Start><End>{end}</End><Blocksize>{Cluster / 512}</Blocksize>"
            + string.Concat(images.Select(i => $"<Image><GUID>{i.Id}</GUID><Type>{i.Type}</Type><File>{i.File}</File></Image>"))
            + "</Storage>";

    public static string Shot(string id, string parent) => $"<Shot><GUID>{id}</GUID><ParentGUID>{parent}</ParentGUID></Shot>";

    /// <summary>A disk of eight clusters with two snapshots: what it reads as, as the top and as the middle of it.</summary>
    public (byte[] Top, byte[] Middle) MakeChain(bool isRootPlain = false)
    {
        var random = new Random(11);
        byte[] Bytes(int length)
        {
            byte[] bytes = new byte[length];
            random.NextBytes(bytes);
            return bytes;
        }
        byte[]?[] root = [Bytes(Cluster), Bytes(Cluster), Bytes(Cluster), Bytes(Cluster), null, null, Bytes(Cluster), null];
        byte[]?[] middle = [null, Bytes(Cluster), null, Bytes(Cluster), null, Bytes(Cluster), null, null];
        byte[]?[] top = [null, null, Bytes(Cluster), Bytes(Cluster), Bytes(Cluster), null, null, null];
        byte[] atRoot = [.. root.SelectMany(c => c ?? new byte[Cluster])];
        byte[] atMiddle = Over(atRoot, middle), atTop = Over(atMiddle, top);
        if (isRootPlain)
        {
            _ = Directory.CreateDirectory(Folder);
            File.WriteAllBytes(Path.Combine(Folder, "root.hds"), atRoot);
        }
        else
        {
            Image("root.hds", root, isOriginal: true);
        }
        Image("middle.hds", middle);
        Image("top.hds", top);
        Describe(
            8 * Cluster / 512,
            Storage(
                0,
                8 * Cluster / 512,
                (Root, isRootPlain ? "Plain" : "Compressed", "root.hds"),
                (Middle, "Compressed", "middle.hds"),
                (Top, "Compressed", "top.hds")),
            Shot(Top, Middle) + Shot(Root, Nothing) + Shot(Middle, Root));
        return (atTop, atMiddle);
    }

    private static byte[] Over(byte[] below, byte[]?[] clusters)
    {
        byte[] all = [.. below];
        for (int i = 0; i < clusters.Length; i++)
        {
            clusters[i]?.CopyTo(all, i * Cluster);
        }
        return all;
    }
}
