using System.Buffers;
using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>What names there can be on a volume. Spec: fatgen103, 6 and 7 (long names).</summary>
internal static class FatName
{
    /// <summary>UTF-16 units of a long name at most.</summary>
    public const int Longest = 255;

    /// <summary>UTF-16 units in one entry of a long name.</summary>
    public const int UnitsInEntry = 13;

    /// <summary>Characters of a label.</summary>
    public const int LabelLength = 11;

    private const int BaseLength = 8, EndingLength = 3;
    private const string Forbidden = "\"*/:<>?\\|", ForbiddenInShort = "+,;=[]";
    private const string ShortSigns = "!#$%&'()-@^_`{}~";

    private static readonly SearchValues<char> s_forbidden = SearchValues.Create(Forbidden);
    private static readonly SearchValues<char> s_forbiddenInLabel = SearchValues.Create(Forbidden + ForbiddenInShort + ".");

    /// <summary>Why a volume cannot have a name; null if it can.</summary>
    public static string? Objection(string name)
    {
        if (name.Length > Longest)
        {
            return $"it has {name.Length.ToString("#,0", CultureInfo.InvariantCulture)} UTF-16 units, and {Longest} are allowed";
        }
        int at = name.AsSpan().IndexOfAny(s_forbidden);
        if (at >= 0)
        {
            return $"'{name[at]}' is not allowed in it";
        }
        return name.Length == 0 || name is "." or ".." ? "it is none"
            : name.Any(c => c < ' ') ? "control characters are not allowed in it"
            : name[^1] is '.' or ' ' ? "it may not end in a dot or a space"
            : !IsText(name) ? "it is no text"
            : null;
    }

    /// <summary>
    /// What tells names apart on a volume: case does not. Invariant, as no two systems agree on more than that.
    /// </summary>
    public static StringComparer Comparer => StringComparer.OrdinalIgnoreCase;

    /// <summary>The 32-byte entries that a name takes.</summary>
    public static int EntriesOf(FatItem item) => 1 + LongEntriesOf(item.Name, item.ShortName);

    /// <summary>The entries before the short one; none if the short name says it all.</summary>
    public static int LongEntriesOf(string name, string shortName)
        => name.Equals(Shown(shortName), StringComparison.Ordinal) ? 0 : (name.Length + UnitsInEntry - 1) / UnitsInEntry;

    /// <summary>A short name as it is shown.</summary>
    public static string Shown(string shortName)
    {
        string ending = shortName[BaseLength..].TrimEnd(' ');
        return ending.Length == 0 ? shortName[..BaseLength].TrimEnd(' ') : $"{shortName[..BaseLength].TrimEnd(' ')}.{ending}";
    }

    /// <summary>Gives the items of a folder short names that no two have in common; the same for the same names.</summary>
    public static void GiveShortNames(IReadOnlyList<FatItem> items)
    {
        var taken = new HashSet<string>(StringComparer.Ordinal);
        foreach (FatItem item in items)
        {
            item.ShortName = Exact(item.Name) is { } exact && taken.Add(exact) ? exact : "";
        }
        var next = new Dictionary<string, int>(StringComparer.Ordinal); // behind which numbers those of a beginning go on
        foreach (FatItem item in items.Where(i => i.ShortName.Length == 0))
        {
            item.ShortName = Numbered(item.Name, taken, next);
        }
    }

    /// <summary>A label as it is stored.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static string Label(string label)
    {
        string upper = label.ToUpperInvariant();
        int at = upper.AsSpan().IndexOfAny(s_forbiddenInLabel);
        string? objection = upper.Length > LabelLength ? $"it has {upper.Length} characters"
            : at >= 0 ? $"it has the character '{upper[at]}'"
            : upper.Any(c => c is < ' ' or > '~') ? "it has a character that is not ASCII"
            : upper.Length > 0 && upper[0] == ' ' ? "it begins with a space"
            : null;
        return objection is null ? upper.PadRight(LabelLength) : throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"The label '{label}' cannot be a volume's: {objection}. Allowed: up to {LabelLength} letters, digits, spaces and "
                + $"{ShortSigns}");
    }

    private static bool IsText(string name)
    {
        for (int i = 0; i < name.Length; i++)
        {
            if (char.IsHighSurrogate(name[i]) && i + 1 < name.Length && char.IsLowSurrogate(name[i + 1]))
            {
                i++;
            }
            else if (char.IsSurrogate(name[i]) || name[i] == '\uFFFD') // so the runtime says bytes that are no text
            {
                return false;
            }
        }
        return true;
    }

    /// <summary>The short name that says all of a name but its case; null if none does.</summary>
    private static string? Exact(string name)
    {
        string[] parts = name.ToUpperInvariant().Split('.');
        return parts is [{ Length: > 0 and <= BaseLength } start] && start.All(IsShort) ? start.PadRight(LabelLength)
            : parts is [{ Length: > 0 and <= BaseLength } stem, { Length: > 0 and <= EndingLength } ending]
                && stem.All(IsShort) && ending.All(IsShort)
            ? stem.PadRight(BaseLength) + ending.PadRight(EndingLength)
            : null;
    }

    private static bool IsShort(char c)
        => char.IsAsciiLetterUpper(c) || char.IsAsciiDigit(c) || ShortSigns.Contains(c, StringComparison.Ordinal);

    /// <summary>What is left of a name, and the first number behind it that is free.</summary>
    private static string Numbered(string name, HashSet<string> taken, Dictionary<string, int> next)
    {
        string trimmed = name.TrimStart('.');
        int dot = trimmed.LastIndexOf('.');
        string stem = Left(dot > 0 ? trimmed[..dot] : trimmed, BaseLength);
        string ending = Left(dot > 0 ? trimmed[(dot + 1)..] : "", EndingLength);
        for (int digits = 1; ; digits++)
        {
            string start = stem[..Math.Min(stem.Length, BaseLength - 1 - digits)], key = $"{start}~{digits}.{ending}";
            int last = (int)Math.Pow(10, digits) - 1;
            for (int number = next.GetValueOrDefault(key, (last + 1) / 10); number <= last; number++)
            {
                next[key] = number + 1;
                string made = $"{start}~{number}".PadRight(BaseLength) + ending.PadRight(EndingLength);
                if (taken.Add(made))
                {
                    return made;
                }
            }
        }
    }

    private static string Left(string text, int length)
    {
        IEnumerable<char> kept = text.ToUpperInvariant().Where(c => c is not (' ' or '.') && !char.IsLowSurrogate(c));
        string left = string.Concat(kept.Select(c => IsShort(c) ? c : '_').Take(length));
        return left.Length == 0 && length == BaseLength ? "_" : left;
    }
}
