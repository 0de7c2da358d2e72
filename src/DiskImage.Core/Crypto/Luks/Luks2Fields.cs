using System.Globalization;
using System.Text.Json.Nodes;
using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>Takes values out of a LUKS2 header's JSON text, and says which is missing or not what it should be.</summary>
/// <param name="area">Where the header is.</param>
/// <param name="node">The object.</param>
/// <param name="path">What it is called: <c>keyslots.0.kdf</c>.</param>
internal readonly struct Luks2Fields(LuksArea area, JsonObject node, string path)
{
    /// <summary>The objects in it, by name.</summary>
    public IEnumerable<(string Name, Luks2Fields Fields)> All
    {
        get
        {
            foreach ((string name, JsonNode? value) in node)
            {
                yield return (name, value is JsonObject inner
                    ? new Luks2Fields(area, inner, $"{path}.{name}")
                    : throw Wrong(name, "an object"));
            }
        }
    }

    public bool Has(string name) => node[name] is not null;

    public Luks2Fields Object(string name)
        => node[name] is JsonObject inner ? new(area, inner, path.Length == 0 ? name : $"{path}.{name}") : throw Wrong(name, "an object");

    public string Text(string name)
        => node[name] is JsonValue value && value.TryGetValue(out string? text) ? text : throw Wrong(name, "text");

    /// <summary>A number between two bounds; numbers of 64 bits stand there as text.</summary>
    public long Number(string name, long smallest, long largest)
    {
        long number = node[name] is not JsonValue value ? throw Missing(name)
            : value.TryGetValue(out long plain) ? plain
            : value.TryGetValue(out string? text)
                && long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long parsed) ? parsed
            : throw Wrong(name, "a number");
        return number >= smallest && number <= largest
            ? number
            : throw area.Wrong(
                DiskImageErrorKind.Corrupt,
                $"{path}.{name} is {number:#,0}; allowed: {smallest:#,0} to {largest:#,0}",
                Luks2Copy.FixedBytes);
    }

    public byte[] Bytes(string name, int largest)
    {
        byte[] bytes = new byte[largest];
        return Convert.TryFromBase64String(Text(name), bytes, out int count)
            ? bytes[..count]
            : throw Wrong(name, $"base64 text of up to {largest:#,0} bytes");
    }

    public IReadOnlyList<string> Texts(string name)
    {
        if (node[name] is not JsonArray list)
        {
            throw Wrong(name, "a list");
        }
        var texts = new List<string>();
        foreach (JsonNode? item in list)
        {
            texts.Add(item is JsonValue value && value.TryGetValue(out string? text) ? text : throw Wrong(name, "a list of texts"));
        }
        return texts;
    }

    public HashAlgorithm Hash(string name)
    {
        string text = Text(name);
        return Hashes.Find(text) ?? throw Unsupported(name, text);
    }

    public CipherSpec Cipher(string name, int keyLength)
    {
        string text = Text(name);
        string[] parts = text.Split('-', 2);
        return CipherSpec.Parse(parts[0], parts.Length == 2 ? parts[1] : "", keyLength, out string why)
            ?? throw area.Wrong(DiskImageErrorKind.Unsupported, $"{path}.{name} is '{text}': {why}", Luks2Copy.FixedBytes);
    }

    /// <summary>The value is of a kind that is not known here.</summary>
    public DiskImageException Unsupported(string name, string value)
        => area.Wrong(
            DiskImageErrorKind.Unsupported, $"{path}.{name} is '{value}', which this version does not have", Luks2Copy.FixedBytes);

    private DiskImageException Missing(string name) => Wrong(name, "a value");

    private DiskImageException Wrong(string name, string allowed)
        => area.Wrong(
            DiskImageErrorKind.Corrupt,
            $"{(path.Length == 0 ? "" : $"{path}.")}{name} is not what it should be: {allowed}",
            Luks2Copy.FixedBytes);
}
