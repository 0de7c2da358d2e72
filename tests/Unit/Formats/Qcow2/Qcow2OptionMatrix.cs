using System.Globalization;
using System.Reflection;
using DiskImage.Formats.Qcow2;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// Combinations of create options, taken from the options record itself: an option with a closed set of values is in the matrix as
/// soon as it is in the record, one of another kind makes the matrix fail until values are chosen for it here.
/// </summary>
internal sealed class Qcow2OptionMatrix
{
    public const string BackingFile = "base.raw", DataFile = "disk.data";

    private const int DefaultSeed = 2024;

    /// <summary>Values of options whose values cannot be listed; null stands for "not given".</summary>
    private static readonly Dictionary<string, string?[]> s_chosen = new(StringComparer.Ordinal)
    {
        ["size"] = [null], // is chosen after the cluster size
        ["backing_file"] = [null, BackingFile],
        ["backing_fmt"] = [null, "raw"],
        ["data_file"] = [null, DataFile],
    };

    private static readonly OptionConflict[] s_conflicts =
    [
        new("compat", v => v is "0.10", "lazy_refcounts", v => v is "on"),
        new("compat", v => v is "0.10", "refcount_bits", v => v is not (null or "16")),
        new("compat", v => v is "0.10", "extended_l2", v => v is "on"),
        new("compat", v => v is "0.10", "compression_type", v => v is not (null or "zlib")),
        new("compat", v => v is "0.10", "data_file", v => v is not null),
        new("extended_l2", v => v is "on", "cluster_size", v => v is "512" or "1024" or "2048" or "4096" or "8192"),
        new("data_file", v => v is null, "data_file_raw", v => v is "on"),
        new("data_file", v => v is null, "keep_data_file", v => v is "on"),
        new("data_file_raw", v => v is not "on", "keep_data_file", v => v is "on"),
        new("data_file_raw", v => v is "on", "backing_file", v => v is not null),
        new("backing_file", v => v is not null, "preallocation", v => v is not (null or "off"), "extended_l2", v => v is not "on"),
        new("backing_file", v => v is null, "backing_fmt", v => v is not null),
    ];

    private readonly OptionMatrix _matrix = new(
        [.. OptionSchema.Of<Qcow2CreateOptions>().Options.Where(o => !IsOfEncryption(o)).Select(o => (o.Name, ValuesOf(o)))], s_conflicts);

    /// <summary>They have pairs of their own, in Qcow2EncryptionTests: QEMU takes seconds to make each such image.</summary>
    public static bool IsOfEncryption(OptionDescriptor option) => option.Name.StartsWith("encrypt", StringComparison.Ordinal);

    private static string?[] ValuesOf(OptionDescriptor option)
    {
        if (s_chosen.TryGetValue(option.Name, out string?[]? chosen))
        {
            return chosen;
        }
        if (option.AllowedValues.Count > 0)
        {
            return [.. option.AllowedValues];
        }
        DriverOptionAttribute mark =
            typeof(Qcow2CreateOptions).GetProperty(option.PropertyName)!.GetCustomAttribute<DriverOptionAttribute>()!;
        if (!mark.PowerOfTwo || mark.Minimum < 1 || mark.Maximum > 1 << 30)
        {
            Assert.Fail(
                $"The option '{option.Name}' ({option.AllowedText}) has no chosen values: choose some in {nameof(Qcow2OptionMatrix)}.");
        }
        var powers = new List<string?>();
        for (long value = mark.Minimum; value <= mark.Maximum; value *= 2)
        {
            powers.Add(value.ToString(CultureInfo.InvariantCulture));
        }
        return [.. powers];
    }

    /// <summary>The seed of all that is random; another is given with DISKIMAGE_TEST_SEED.</summary>
    public static int Seed
        => int.TryParse(
            Environment.GetEnvironmentVariable("DISKIMAGE_TEST_SEED"),
            NumberStyles.None,
            CultureInfo.InvariantCulture,
            out int given) ? given : DefaultSeed;

    /// <summary>The rows that are wanted, each with the seed: pairwise, or with DISKIMAGE_TEST_MATRIX=full all of them.</summary>
    public static TheoryData<string, int> Rows(Func<string, bool> keep)
    {
        var matrix = new Qcow2OptionMatrix();
        bool full = Environment.GetEnvironmentVariable("DISKIMAGE_TEST_MATRIX") is "full";
        var data = new TheoryData<string, int>();
        foreach (string row in full ? matrix.Full() : matrix.Pairwise(Seed))
        {
            if (keep(row))
            {
                data.Add(row, Seed);
            }
        }
        return data;
    }

    /// <summary>Rows of option text in which every pair of values that can stand together does, at least once.</summary>
    public List<string> Pairwise(int seed) => _matrix.Pairwise(seed);

    /// <summary>Every row that can stand.</summary>
    public IEnumerable<string> Full() => _matrix.Full();

    /// <summary>Pairs of values that no row can have: the options of each, and its text.</summary>
    public IEnumerable<(string First, string Second, string Options)> Refused() => _matrix.Refused();
}
