using System.Text;
using System.Xml;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Dmg;

/// <summary>Finds the tables: in the property list, or in a resource fork of classic Mac OS. Layout: see SPEC.md.</summary>
internal static class DmgLists
{
    private const int MaxDepth = 32, MaxValues = 1 << 20; // of a property list. Ours

    private static readonly XmlReaderSettings s_settings = new()
    {
        Async = false,
        CloseInput = false,
        DtdProcessing = DtdProcessing.Ignore, // every property list names Apple's; passed over, so there are no entities to resolve
        XmlResolver = null,
        MaxCharactersInDocument = DmgTrailer.MaxListBytes,
        MaxCharactersFromEntities = 1024,
        IgnoreComments = true,
        IgnoreProcessingInstructions = true,
        IgnoreWhitespace = true,
    };

    /// <summary>The tables in a property list, each with its partition's name.</summary>
    /// <exception cref="DiskImageException">Corrupt.</exception>
    public static IReadOnlyList<(string Name, byte[] Table)> FromPropertyList(byte[] bytes, string path)
    {
        try
        {
            using var reader = XmlReader.Create(new MemoryStream(bytes), s_settings);
            int values = 0;
            object? root = reader.ReadToFollowing("plist") && reader.Read() ? ReadValue(reader, 0, ref values) : null;
            return root is Dictionary<string, object?> list && list.GetValueOrDefault("resource-fork") is Dictionary<string, object?> fork
                && fork.GetValueOrDefault("blkx") is List<object?> tables
                ? [.. tables.OfType<Dictionary<string, object?>>().Where(
                    t => t.GetValueOrDefault("Data") is byte[]).Select(t => (NameOf(t), (byte[])t["Data"]!))]
                : throw new XmlException("there is no dictionary 'resource-fork' with an array 'blkx' in it");
        }
        catch (Exception e) when (e is XmlException or FormatException or DecoderFallbackException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{path}: the property list cannot be read: {e.Message}", path, cause: e);
        }
    }

    /// <summary>The tables in a resource fork, each with its partition's name.</summary>
    /// <exception cref="DiskImageException">Corrupt.</exception>
    public static IReadOnlyList<(string Name, byte[] Table)> FromResourceFork(byte[] bytes, string path)
    {
        try
        {
            return ReadResources(bytes);
        }
        catch (Exception e) when (e is ArgumentOutOfRangeException or OverflowException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{path}: the resource fork of {bytes.Length:#,0} bytes leads out of itself", path, cause: e);
        }
    }

    private static string NameOf(Dictionary<string, object?> table)
        => table.GetValueOrDefault("Name") as string is { Length: > 0 } name ? name : table.GetValueOrDefault("CFName") as string ?? "";

    /// <summary>Reads the value that the reader stands on and goes behind it.</summary>
    private static object? ReadValue(XmlReader reader, int depth, ref int values)
    {
        if (depth > MaxDepth || ++values > MaxValues)
        {
            throw new XmlException($"it has more than {MaxDepth} levels or {MaxValues:#,0} values");
        }
        if (reader.NodeType != XmlNodeType.Element)
        {
            throw new XmlException($"'{reader.Name}' stands where a value should");
        }
        string kind = reader.Name;
        if (kind is not ("dict" or "array"))
        {
            string text = reader.ReadElementContentAsString();
            return kind is "data" ? Convert.FromBase64String(text) : text;
        }
        bool isDictionary = kind is "dict";
        var list = new List<object?>();
        var dictionary = new Dictionary<string, object?>(StringComparer.Ordinal);
        bool isEmpty = reader.IsEmptyElement;
        _ = reader.Read();
        while (!isEmpty && reader.NodeType != XmlNodeType.EndElement)
        {
            if (isDictionary)
            {
                string key = reader.ReadElementContentAsString();
                dictionary[key] = ReadValue(reader, depth + 1, ref values);
            }
            else
            {
                list.Add(ReadValue(reader, depth + 1, ref values));
            }
        }
        if (!isEmpty)
        {
            reader.ReadEndElement();
        }
        return isDictionary ? dictionary : list;
    }

    /// <summary>Source: Inside Macintosh, "Resource File Format". A place outside throws.</summary>
    private static List<(string Name, byte[] Table)> ReadResources(ReadOnlySpan<byte> fork)
    {
        const int ReferenceBytes = 12, TypeBytes = 8;
        var tables = new List<(string, byte[])>();
        ReadOnlySpan<byte> data = fork.Slice(checked((int)BigEndian.U32(fork, 0)), checked((int)BigEndian.U32(fork, 8)));
        ReadOnlySpan<byte> map = fork.Slice(checked((int)BigEndian.U32(fork, 4)), checked((int)BigEndian.U32(fork, 12)));
        ReadOnlySpan<byte> types = map[BigEndian.U16(map, 24)..], names = map[Math.Min(BigEndian.U16(map, 26), map.Length)..];
        for (int type = 0, count = BigEndian.U16(types, 0) + 1; type < count && count <= short.MaxValue; type++)
        {
            ReadOnlySpan<byte> entry = types.Slice(2 + (type * TypeBytes), TypeBytes);
            if (!entry.StartsWith("blkx"u8))
            {
                continue;
            }
            ReadOnlySpan<byte> references = types[BigEndian.U16(entry, 6)..];
            for (int i = 0; i <= BigEndian.U16(entry, 4); i++)
            {
                ReadOnlySpan<byte> reference = references.Slice(i * ReferenceBytes, ReferenceBytes);
                int name = BigEndian.U16(reference, 2), at = (int)(BigEndian.U32(reference, 4) & 0xFF_FFFF);
                int length = checked((int)BigEndian.U32(data, at));
                tables.Add((
                    name == ushort.MaxValue ? "" : Encoding.Latin1.GetString(names.Slice(name + 1, names[name..][0])),
                    data.Slice(at + 4, length).ToArray()));
            }
        }
        return tables;
    }
}
