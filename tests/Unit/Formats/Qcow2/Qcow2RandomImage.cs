using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Images of any options that are filled at random, the same for the same seed.</summary>
internal static class Qcow2RandomImage
{
    private const int LeastBytes = 1_300_000;

    /// <summary>Makes the files that an image needs besides itself; the model of it, and its options with places and a size.</summary>
    public static async Task<(Qcow2GuestModel Model, string Options)> PrepareAsync(TestFolder folder, string options, int seed, bool byQemu)
    {
        Qcow2CreateOptions given = Bind(options);
        int cluster = (int)given.ClusterSize;

        // At small clusters several L2 tables, at large ones a few clusters; a multiple of neither.
        int size = (int)Math.Min(520L * cluster, Math.Max(LeastBytes, 2.3 * cluster)) / SectorModel.Bytes * SectorModel.Bytes;
        size += new Random(seed).Next(1, 7) * SectorModel.Bytes;
        byte[] below = [];
        if (given.BackingFile is not null || given.KeepDataFile)
        {
            int sectors = (given.KeepDataFile ? size : size * 5 / 8) / SectorModel.Bytes;
            below = SectorModel.Data(0, sectors, 1_000_000);
            below.AsSpan(below.Length / 3 / SectorModel.Bytes * SectorModel.Bytes, below.Length / 4).Clear();
            await File.WriteAllBytesAsync(folder[given.KeepDataFile ? Qcow2OptionMatrix.DataFile : Qcow2OptionMatrix.BackingFile], below);
        }
        var shape = new Qcow2Shape(
            (int)given.Compat,
            cluster,
            given.ExtendedL2 ? cluster / 32 : cluster,
            given.BackingFile is not null,
            given.DataFile is not null,
            given.DataFileRaw,
            byQemu);
        bool isPreallocated = given.Preallocation != PreallocationMode.Off || given.DataFileRaw;
        return (new Qcow2GuestModel(shape, size, below, isPreallocated), Placed(folder, $"size={size},{options}"));
    }

    /// <summary>What is then done to the image.</summary>
    public static Qcow2Script ScriptOf(IQcow2Actor actor, Qcow2GuestModel model, string options, int seed)
    {
        Qcow2CreateOptions given = Bind(options);
        Qcow2Shape shape = model.Shape;
        var can = new Qcow2Script.Abilities(
            Snapshots: !shape.HasDataFile && (!shape.ByQemu || given.RefcountBits >= 8),
            Compression: !shape.HasDataFile,
            Bitmaps: shape.Version >= 3,
            ResizeWithSnapshots: shape.Version >= 3 && !shape.ByQemu);
        int hash = options.Aggregate(17, (hash, c) => unchecked((hash * 31) + c)); // the same in every process
        return new(actor, model, new Random(hash ^ seed), can);
    }

    /// <summary>Option text with the data file in the folder.</summary>
    public static string Placed(TestFolder folder, string options)
        => options.Replace($"={Qcow2OptionMatrix.DataFile}", $"={folder[Qcow2OptionMatrix.DataFile]}", StringComparison.Ordinal);

    private static Qcow2CreateOptions Bind(string options)
        => (Qcow2CreateOptions)OptionSchema.Of<Qcow2CreateOptions>().Bind(OptionSchema.Split(options));
}
