namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// The text form: <c>fat:</c>, then any of <c>floppy:</c>, <c>rw:</c>, <c>12:</c>, <c>16:</c> and <c>32:</c> in any order, then the
/// folder. Spec: QEMU's documentation of "virtual FAT disk images".
/// </summary>
/// <remarks>
/// QEMU takes what is behind the last colon for the folder, but for a drive's letter. Here the words end where none of them stands, so a
/// folder's name may have colons in it; a folder that is called like one of the words is written <c>./rw</c>.
/// </remarks>
internal static class VirtualFatText
{
    private const string Scheme = "fat:";

    /// <summary>The options that a text stands for.</summary>
    public static IEnumerable<KeyValuePair<string, object?>> Parse(string text)
    {
        string rest = text.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase) ? text[Scheme.Length..] : text;
        var options = new Dictionary<string, object?>(StringComparer.Ordinal);
        while (rest.IndexOf(':', StringComparison.Ordinal) is > 0 and int colon && Option(rest[..colon]) is var (name, value))
        {
            options[name] = value;
            rest = rest[(colon + 1)..];
        }
        options["dir"] = rest;
        return options;
    }

    /// <summary>The text of options, as far as there are words for them.</summary>
    public static string Of(VirtualFatOptions options)
    {
        string type = options.FatType == FatType.Auto ? "" : $"{(int)options.FatType}:";
        return $"{Scheme}{(options.Floppy ? "floppy:" : "")}{(options.ReadWrite ? "rw:" : "")}{type}{options.Dir}";
    }

    private static (string Name, object Value)? Option(string word) => word switch
    {
        "floppy" => ("floppy", true),
        "rw" => ("rw", true),
        "12" or "16" or "32" => ("fat-type", word),
        _ => null,
    };
}
