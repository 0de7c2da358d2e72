using System.Globalization;
using System.Text;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary>What qemu-img says of the options of a new image: the line it says first, and the list of <c>-o help</c>.</summary>
internal static class CreateOptionLines
{
    private const string Size = "size";

    // In QEMU's order, with the defaults it prints; what is not here stands behind, in the order in which it was given.
    private static readonly Dictionary<string, (string Name, string? Default)[]> s_order = new(StringComparer.Ordinal)
    {
        ["raw"] = [(Size, null), ("nocow", null), ("preallocation", null)],
        ["qcow2"] =
        [
            ("encryption", null), ("encrypt.format", null), ("encrypt.key-secret", null), ("encrypt.cipher-alg", null),
            ("encrypt.cipher-mode", null), ("encrypt.ivgen-alg", null), ("encrypt.ivgen-hash-alg", null), ("encrypt.hash-alg", null),
            ("encrypt.iter-time", null), ("cluster_size", "65536"), ("extended_l2", "off"), ("preallocation", null),
            ("compression_type", "zlib"), (Size, null), ("compat", null), ("backing_file", null), ("backing_fmt", null),
            ("data_file", null), ("data_file_raw", null), ("lazy_refcounts", "off"), ("refcount_bits", "16"), ("nocow", null),
        ],
        ["vmdk"] =
        [
            (Size, null), ("adapter_type", null), ("backing_file", null), ("backing_fmt", null), ("compat6", "off"),
            ("hwversion", "undefined"), ("toolsversion", null), ("subformat", null), ("zeroed_grain", null),
        ],
        ["vdi"] = [(Size, null), ("static", "off"), ("preallocation", null)],
        ["vpc"] = [(Size, null), ("subformat", null), ("force_size", null)],
        ["vhdx"] = [(Size, null), ("log_size", "1048576"), ("block_size", "0"), ("subformat", null), ("block_state_zero", null)],
        ["qed"] = [(Size, null), ("backing_file", null), ("backing_fmt", null), ("cluster_size", "65536"), ("table_size", null)],
        ["parallels"] = [(Size, null), ("cluster_size", "1048576")],
        ["luks"] = [(Size, null), ("key-secret", null)],
    };

    /// <summary><c>Formatting 'a.qcow2', fmt=qcow2 size=… …</c>.</summary>
    /// <param name="path">As the image was named.</param>
    /// <param name="format">Its format.</param>
    /// <param name="schema">The format's options.</param>
    /// <param name="given">The values that are not defaults.</param>
    public static string Formatting(string path, string format, OptionSchema schema, IReadOnlyDictionary<string, string> given)
    {
        var line = new StringBuilder($"Formatting '{DiskImage.Block.Printable.Of(path)}', fmt={format}");
        (string Name, string? Default)[] order = s_order.GetValueOrDefault(format) ?? [(Size, null)];
        foreach ((string name, string? otherwise) in order)
        {
            if (given.TryGetValue(name, out string? value) || otherwise is not null)
            {
                _ = line.Append($" {name}={Shown(schema, name, value ?? otherwise!)}");
            }
        }
        foreach ((string name, string value) in given.Where(g => !order.Any(o => o.Name.Equals(g.Key, StringComparison.Ordinal))))
        {
            _ = line.Append($" {name}={Shown(schema, name, value)}");
        }
        return line.ToString();
    }

    /// <summary>The list of options.</summary>
    public static string Help(string heading, OptionSchema schema)
    {
        var text = new StringBuilder(heading);
        foreach (OptionDescriptor option in schema.Options.OrderBy(o => o.Name, StringComparer.Ordinal))
        {
            string type = option.Type == typeof(bool) ? "<bool (on/off)>" : option.IsSize ? "<size>"
                : option.Type == typeof(long) || option.Type == typeof(int) ? "<num>" : "<str>";
            _ = text.Append($"\n  {option.Name + "=" + type,-22} - {option.Help}");
        }
        return text.ToString();
    }

    private static string Shown(OptionSchema schema, string name, string value)
        => schema.Find(name) is { IsSize: true } && QemuSize.TryParse(value, out long bytes)
            ? bytes.ToString(CultureInfo.InvariantCulture)
            : value.Replace(",", ",,", StringComparison.Ordinal);
}
