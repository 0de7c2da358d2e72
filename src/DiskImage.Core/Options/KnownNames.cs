namespace DiskImage.Options;

/// <summary>What to say of a name that is not known: which ones are, and which of them was meant, perhaps.</summary>
public static class KnownNames
{
    /// <summary><c>Did you mean 'a' or 'b'? Known: a, b, c.</c> Case makes no difference.</summary>
    /// <param name="name">The name that is not known.</param>
    /// <param name="known">Those that are.</param>
    public static string Hint(string name, IEnumerable<string> known)
    {
        ArgumentNullException.ThrowIfNull(name);
        string[] names = [.. known];
        string[] near = [.. names.Where(k => Distance(k, name) <= Math.Max(2, name.Length / 3)).OrderBy(k => Distance(k, name))];
        string meant = near.Length > 0 ? $"Did you mean {string.Join(" or ", near.Select(n => $"'{n}'"))}? " : "";
        return $"{meant}Known: {string.Join(", ", names)}.";
    }

    /// <summary>Levenshtein distance, ignoring case.</summary>
    private static int Distance(string a, string b)
    {
        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int substitute = diagonal + (char.ToUpperInvariant(a[i - 1]) == char.ToUpperInvariant(b[j - 1]) ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(substitute, Math.Min(row[j], row[j - 1]) + 1);
            }
        }
        return row[b.Length];
    }
}
