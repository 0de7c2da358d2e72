namespace DiskImage.Tests.Support;

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

/// <summary>Combinations of option values, of which some exclude each other: rows that cover every pair, or all rows there are.</summary>
/// <param name="options">The options with their values; null stands for "not given".</param>
/// <param name="conflicts">Which exclude each other.</param>
internal sealed class OptionMatrix((string Name, string?[] Values)[] options, OptionConflict[] conflicts)
{
    /// <summary>Rows of option text in which every pair of values that can stand together does, at least once.</summary>
    public List<string> Pairwise(int seed)
    {
        var random = new Random(seed);
        HashSet<(int, int, int, int)> uncovered = [.. Pairs()];
        var rows = new List<string>();
        while (uncovered.Count > 0)
        {
            (int first, int value, int second, int other) = uncovered.ElementAt(random.Next(uncovered.Count));
            int[] row = [.. Enumerable.Repeat(-1, options.Length)];
            (row[first], row[second]) = (value, other);
            if (Allowed(row) && Complete(row, [.. Enumerable.Range(0, options.Length).OrderBy(_ => random.Next())], 0, uncovered, random))
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
    public IEnumerable<string> Full() => Rows([.. Enumerable.Repeat(-1, options.Length)], 0);

    /// <summary>Pairs of values that no row can have: the options of each, and its text.</summary>
    public IEnumerable<(string First, string Second, string Options)> Refused()
    {
        foreach ((int first, int value, int second, int other) in Pairs())
        {
            int[] row = [.. Enumerable.Repeat(-1, options.Length)];
            (row[first], row[second]) = (value, other);
            bool hasBoth = options[first].Values[value] is not null && options[second].Values[other] is not null;
            if (hasBoth && !(Allowed(row) && Complete(row, [.. Enumerable.Range(0, options.Length)], 0, [], new Random(0))))
            {
                Array.Fill(row, -1);
                (row[first], row[second]) = (value, other);
                yield return (options[first].Name, options[second].Name, Text(row));
            }
        }
    }

    private IEnumerable<(int, int, int, int)> Pairs()
        => from first in Enumerable.Range(0, options.Length)
           from second in Enumerable.Range(first + 1, options.Length - first - 1)
           from value in Enumerable.Range(0, options[first].Values.Length)
           from other in Enumerable.Range(0, options[second].Values.Length)
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
            int value in Enumerable.Range(0, options[option].Values.Length).OrderByDescending(Gain).ThenBy(_ => random.Next()).ToArray())
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
        for (int value = 0; value < options[option].Values.Length; value++)
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
        return conflicts.All(c => !(Is(c.First, c.IsFirst) && Is(c.Second, c.IsSecond) && (c.Third is null || Is(c.Third, c.IsThird!))));

        bool Is(string name, Func<string?, bool> meant)
        {
            int option = Array.FindIndex(options, o => o.Name.Equals(name, StringComparison.Ordinal));
            return row[option] >= 0 && meant(options[option].Values[row[option]]);
        }
    }

    private string Text(int[] row)
        => string.Join(
            ',',
            Enumerable.Range(0, row.Length).Where(o => row[o] >= 0
                && options[o].Values[row[o]] is not null).Select(o => $"{options[o].Name}={options[o].Values[row[o]]}"));
}
