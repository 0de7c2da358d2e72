using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>
/// The <c>json:</c> form of a description, read and written. Of a member that is said twice, the last one counts, and text may stand
/// between single quotes, as in QEMU (qobject/json-lexer.c).
/// </summary>
internal static class NodeSpecJson
{
    /// <summary>What the text begins with.</summary>
    public const string Prefix = "json:";

    private static readonly JsonWriterOptions Readable = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Reads <c>json:{…}</c>.</summary>
    /// <exception cref="DiskImageException">InvalidOption: not JSON, or not an object.</exception>
    public static NodeSpec Read(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(
                DoubleQuoted(text[Prefix.Length..]).AsMemory(), new JsonDocumentOptions { MaxDepth = NodeSpec.MaximumDepth });
            return document.RootElement.ValueKind == JsonValueKind.Object
                ? NodeSpec.From(Members(document.RootElement))
                : throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{text}: no description of an image: after json: comes an object, {{\"driver\": …}}.");
        }
        // the latter two: halves of surrogate pairs
        catch (Exception e) when (e is JsonException or InvalidOperationException or ArgumentException)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{text}: not valid JSON: {e.Message}", cause: e);
        }
    }

    /// <summary>Writes <c>json:{…}</c> without blanks.</summary>
    public static string Write(NodeSpec spec)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, Readable))
        {
            Write(json, spec);
        }
        return Prefix + Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    /// <summary>The same with double quotes around all text.</summary>
    private static string DoubleQuoted(string json)
    {
        if (!json.Contains('\'', StringComparison.Ordinal))
        {
            return json;
        }
        var text = new StringBuilder(json.Length);
        char quote = '\0';
        for (int at = 0; at < json.Length; at++)
        {
            char c = json[at];
            if (quote != '\0' && c == '\\' && at + 1 < json.Length)
            {
                _ = json[++at] == '\'' ? text.Append('\'') : text.Append(c).Append(json[at]);
            }
            else if (quote == '\0' ? c is '\'' or '"' : c == quote)
            {
                quote = quote == '\0' ? c : '\0';
                _ = text.Append('"');
            }
            else
            {
                _ = c == '"' ? text.Append("\\\"") : text.Append(c);
            }
        }
        return text.ToString();
    }

    private static Dictionary<string, object?> Members(JsonElement element)
    {
        var last = new Dictionary<string, object?>(StringComparer.Ordinal);
        foreach (JsonProperty property in element.EnumerateObject())
        {
            last[property.Name] = Value(property.Value);
        }
        return last;
    }

    private static object? Value(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Object => Members(element),
        JsonValueKind.Array => element.EnumerateArray().Select(Value).ToArray(),
        JsonValueKind.String => element.GetString(),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        JsonValueKind.Null => null,
        _ => element.TryGetInt64(out long number) ? number : element.GetRawText(),
    };

    private static void Write(Utf8JsonWriter json, NodeSpec spec)
    {
        if (spec.IsList)
        {
            json.WriteStartArray();
            for (int i = 0; i < spec.Members.Count; i++)
            {
                WriteValue(json, spec.Members[i.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
            }
            json.WriteEndArray();
            return;
        }
        json.WriteStartObject();
        foreach ((string name, object? value) in spec.Members.OrderBy(m => !m.Key.Equals(NodeSpec.DriverKey, StringComparison.Ordinal)))
        {
            json.WritePropertyName(name);
            WriteValue(json, value);
        }
        json.WriteEndObject();
    }

    private static void WriteValue(Utf8JsonWriter json, object? value)
    {
        switch (value)
        {
            case NodeSpec inner:
                Write(json, inner);
                break;
            case bool on:
                json.WriteBooleanValue(on);
                break;
            case long number:
                json.WriteNumberValue(number);
                break;
            case null:
                json.WriteNullValue();
                break;
            default:
                json.WriteStringValue((string)value);
                break;
        }
    }
}
