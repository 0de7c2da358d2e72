using System.Text.Json;
using System.Text.RegularExpressions;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>
/// Where an image is: a path, a URI (<c>scheme://…</c>, <c>file:…</c>) or a <c>json:{…}</c> description of a node.
/// </summary>
/// <param name="Text">The locator as it was given.</param>
/// <param name="Scheme">The protocol; "file" for plain paths.</param>
/// <param name="Address">What the protocol gets: a path, or the rest of the URI.</param>
public sealed partial record ImageLocator(string Text, string Scheme, string Address)
{
    private const string JsonPrefix = "json:";

    /// <summary>The format that a <c>json:</c> locator names.</summary>
    public string? Format { get; private init; }

    /// <summary>The open options that a <c>json:</c> locator gives.</summary>
    public IReadOnlyDictionary<string, object?> Options { get; private init; } = new Dictionary<string, object?>(StringComparer.Ordinal);

    /// <summary>False if a <c>json:</c> locator says <c>"backing": null</c>.</summary>
    public bool WithBacking { get; private init; } = true;

    /// <summary>True for a plain path or a <c>file:</c> URI.</summary>
    public bool IsFile => Scheme.Equals("file", StringComparison.OrdinalIgnoreCase);

    /// <summary>True if the text is a plain path, with neither scheme nor json.</summary>
    public bool IsPlainPath => ReferenceEquals(Text, Address);

    /// <summary>Tells the parts of a locator. A single letter before a colon is a Windows drive, not a scheme.</summary>
    /// <exception cref="DiskImageException">InvalidOption: empty, with a NUL, or <c>json:</c> text that is not understood.</exception>
    public static ImageLocator Parse(string text)
    {
        if (string.IsNullOrWhiteSpace(text))
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, "An image's path is empty.");
        }
        if (text.Contains('\0', StringComparison.Ordinal))
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"An image's path has a NUL character: '{text.Replace('\0', '?')}'.");
        }
        if (text.StartsWith(JsonPrefix, StringComparison.Ordinal))
        {
            return ParseJson(text);
        }
        Match uri = SchemePattern().Match(text);
        if (!uri.Success)
        {
            return new ImageLocator(text, "file", text);
        }
        string scheme = uri.Groups["scheme"].Value;
        string rest = text[(scheme.Length + 1)..];
        if (!scheme.Equals("file", StringComparison.OrdinalIgnoreCase))
        {
            return new ImageLocator(text, scheme, rest);
        }
        string address = !rest.StartsWith("//", StringComparison.Ordinal) ? rest : FileUrl.ToPath(text, hasDrives: OperatingSystem.IsWindows())
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"'{text}' names no file. A URL of a file has the form file:///folder/name.");
        return new ImageLocator(text, "file", address);
    }

    /// <summary>This locator, with a relative path taken from <paramref name="folder"/>.</summary>
    public ImageLocator From(string folder)
        => IsFile && !Path.IsPathFullyQualified(Address) ? this with { Address = Path.Combine(folder, Address) } : this;

    private static ImageLocator ParseJson(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text.AsMemory(JsonPrefix.Length), new JsonDocumentOptions { MaxDepth = 16 });
            var flat = new Dictionary<string, JsonElement>(StringComparer.Ordinal);
            Flatten(document.RootElement, "", flat);
            string? Take(string key) => flat.Remove(key, out JsonElement value) ? value.ToString() : null;

            string? format = Take("driver");
            string? protocol = Take("file.driver");
            string? address = Take("file.filename") ?? Take("file") ?? Take("filename");
            bool withBacking = !(flat.Remove("backing", out JsonElement backing) && backing.ValueKind == JsonValueKind.Null);
            if (format is "file")
            {
                (protocol, format) = (format, null);
            }
            if (string.IsNullOrEmpty(address))
            {
                throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{text}: no file.filename says where the image is.");
            }
            return new ImageLocator(text, protocol ?? "file", address)
            {
                Format = format,
                WithBacking = withBacking,
                Options = flat.ToDictionary(p => p.Key, p => (object?)p.Value.ToString(), StringComparer.Ordinal),
            };
        }
        catch (JsonException e)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{text}: not valid JSON: {e.Message}", cause: e);
        }
    }

    private static void Flatten(JsonElement element, string prefix, Dictionary<string, JsonElement> into)
    {
        if (element.ValueKind != JsonValueKind.Object)
        {
            into[prefix] = element.Clone();
            return;
        }
        foreach (JsonProperty property in element.EnumerateObject())
        {
            Flatten(property.Value, prefix.Length == 0 ? property.Name : $"{prefix}.{property.Name}", into);
        }
    }

    [GeneratedRegex(@"^(?<scheme>file(?=:)|[A-Za-z][A-Za-z0-9+.\-]+(?=://))", RegexOptions.ExplicitCapture | RegexOptions.IgnoreCase, matchTimeoutMilliseconds: 1000)]
    private static partial Regex SchemePattern();
}
