using System.Globalization;
using System.Reflection;
using DiskImage.Formats.Qcow2;
using DiskImage.Options;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Option values that exclude each other, by the specification or by QEMU.</summary>
/// <param name="First">An option.</param>
/// <param name="IsFirst">Which of its values are meant; null stands for "not given".</param>
/// <param name="Second">Another option.</param>
/// <param name="IsSecond">Which of its values they exclude.</param>
/// <param name="Third">An option without which the two can stand together; null if they never can.</param>
/// <param name="IsThird">Which values of it.</param>
internal sealed record OptionConflict(
    string First,
    Func<string?, bool> IsFirst,
    string Second,
    Func<string?, bool> IsSecond,
    string? Third = null,
    Func<string?, bool>? IsThird = null);

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

    private readonly (string Name, string?[] Values)[] _options;

    public Qcow2OptionMatrix()
        => _options = [.. OptionSchema.Of<Qcow2CreateOptions>().Options.Where(o => !IsOfEncryption(o)).Select(o => (o.Name, ValuesOf(o)))];

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
    public List<string> Pairwise(int seed)
    {
        var random = new Random(seed);
        HashSet<(int, int, int, int)> uncovered = [.. Pairs()];
        var rows = new List<string>();
        while (uncovered.Count > 0)
        {
            (int first, int value, int second, int other) = uncovered.ElementAt(random.Next(uncovered.Count));
            int[] row = [.. Enumerable.Repeat(-1, _options.Length)];
            (row[first], row[second]) = (value, other);
            if (Allowed(row) && Complete(row, [.. Enumerable.Range(0, _options.Length).OrderBy(_ => random.Next())], 0, uncovered, random))
            {
                uncovered.RemoveWhere(p => row[p.Item1] == p.Item2 && row[p.Item3] == p.Item4);
                rows.Add(Text(row));
            }
            else
            {
                _ = uncovered.Remove((first, value, second, other)); // cannot be: see Refused
            }
        }
        return rows;
    }

    /// <summary>Every row that can stand.</summary>
    public IEnumerable<string> Full() => Rows([.. Enumerable.Repeat(-1, _options.Length)], 0);

    /// <summary>Pairs of values that no row can have: the options of each, and its text.</summary>
    public IEnumerable<(string First, string Second, string Options)> Refused()
    {
        foreach ((int first, int value, int second, int other) in Pairs())
        {
            int[] row = [.. Enumerable.Repeat(-1, _options.Length)];
            (row[first], row[second]) = (value, other);
            bool hasBoth = _options[first].Values[value] is not null && _options[second].Values[other] is not null;
            if (hasBoth && !(Allowed(row) && Complete(row, [.. Enumerable.Range(0, _options.Length)], 0, [], new Random(0))))
            {
                Array.Fill(row, -1);
                (row[first], row[second]) = (value, other);
                yield return (_options[first].Name, _options[second].Name, Text(row));
            }
        }
    }

    private IEnumerable<(int, int, int, int)> Pairs()
        => from first in Enumerable.Range(0, _options.Length)
           from second in Enumerable.Range(first + 1, _options.Length - first - 1)
           from value in Enumerable.Range(0, _options[first].Values.Length)
           from other in Enumerable.Range(0, _options[second].Values.Length)
           select (first, value, second, other);

    /// <summary>Gives every option a value, those first that cover the most pairs; false if there is no way.</summary>
    private bool Complete(int[] row, int[] order, int at, HashSet<(int, int, int, int)> uncovered, Random random)
    {
        if (at == order.Length)
        {
            return true;
        }
        int option = order[at];
        if (row[option] >= 0)
        {
            return Complete(row, order, at + 1, uncovered, random);
        }
        foreach (
            int value in Enumerable.Range(0, _options[option].Values.Length).OrderByDescending(Gain).ThenBy(_ => random.Next()).ToArray())
        {
            row[option] = value;
            if (Allowed(row) && Complete(row, order, at + 1, uncovered, random))
            {
                return true;
            }
        }
        row[option] = -1;
        return false;

        int Gain(int value) => Enumerable.Range(0, row.Length).Count(o => o != option && row[o] >= 0
            && uncovered.Contains(o < option ? (o, row[o], option, value) : (option, value, o, row[o])));
    }

    private IEnumerable<string> Rows(int[] row, int option)
    {
        if (option == row.Length)
        {
            yield return Text(row);
            yield break;
        }
        for (int value = 0; value < _options[option].Values.Length; value++)
        {
            int[] next = [.. row];
            next[option] = value;
            foreach (string text in Allowed(next) ? Rows(next, option + 1) : [])
            {
                yield return text;
            }
        }
    }

    /// <summary>No conflict among the options that have a value already.</summary>
    private bool Allowed(int[] row)
    {
        return s_conflicts.All(c => !(Is(c.First, c.IsFirst) && Is(c.Second, c.IsSecond) && (c.Third is null || Is(c.Third, c.IsThird!))));

        bool Is(string name, Func<string?, bool> meant)
        {
            int option = Array.FindIndex(_options, o => o.Name.Equals(name, StringComparison.Ordinal));
            return row[option] >= 0 && meant(_options[option].Values[row[option]]);
        }
    }

    private string Text(int[] row)
        => string.Join(
            ',',
            Enumerable.Range(0, row.Length).Where(o => row[o] >= 0
                && _options[o].Values[row[o]] is not null).Select(o => $"{_options[o].Name}={_options[o].Values[row[o]]}"));
}
