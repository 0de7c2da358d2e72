using System.Globalization;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// A disk's descriptor: text of its own file or inside a sparse extent. Spec: Virtual Disk Format 5.0, "The Descriptor File".
/// </summary>
/// <remarks>
/// What it says is read from its lines, and a change replaces or adds a line: comments, unknown entries, their order, the encoding and the
/// line ends stay as they are.
/// </remarks>
internal sealed class VmdkDescriptor
{
    /// <summary>Bytes of a descriptor at most. Ours: as many extents as are taken have room.</summary>
    public const int MaxBytes = 2 << 20;

    /// <summary>Extents at most. Ours.</summary>
    public const int MaxExtents = 8192;

    /// <summary>The content identifier that stands for none.</summary>
    public const uint NoParent = 0xFFFF_FFFF;

    private const string CidKey = "CID", ParentCidKey = "parentCID", HintKey = "parentFileNameHint", TypeKey = "createType";
    private const string EncodingKey = "encoding";
    private const string LongIdKey = "ddb.longContentID";

    /// <summary>Ours: a parent's content identifier that is right as well, while a merge goes on.</summary>
    private const string ComingKey = "ddb.diskImage.comingParentCID";

    /// <summary>Entries that every descriptor has. Spec: "The Header".</summary>
    public static IReadOnlyList<string> RequiredEntries { get; } = [CidKey, ParentCidKey];

    private readonly string[] _lines;
    private readonly Encoding _encoding;
    private readonly string _newLine;
    private readonly Dictionary<string, (int Line, string Value)> _values = new(StringComparer.OrdinalIgnoreCase);
    private readonly List<int> _extentLines = [];

    private VmdkDescriptor(string[] lines, Encoding encoding, string newLine, string imageName)
    {
        (_lines, _encoding, _newLine, ImageName) = (lines, encoding, newLine, imageName);
        var extents = new List<VmdkExtentLine>();
        for (int i = 0; i < lines.Length; i++)
        {
            string line = lines[i].Trim(' ', '\t', '\uFEFF');
            if (line.Length == 0 || line[0] == '#')
            {
                continue;
            }
            if (VmdkExtentLine.TryParse(line, imageName) is { } extent)
            {
                if (extents.Count == MaxExtents)
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Corrupt, $"{imageName}: the descriptor lists more than {MaxExtents:#,0} extents,"
                            + " which is as many as are taken", imageName);
                }
                extents.Add(extent);
                _extentLines.Add(i);
            }
            else if (line.IndexOf('=', StringComparison.Ordinal) is > 0 and var at)
            {
                _ = _values.TryAdd(line[..at].TrimEnd(), (i, Unquoted(line[(at + 1)..])));
            }
        }
        Extents = extents;
        Sectors = 0;
        foreach (VmdkExtentLine extent in extents)
        {
            Sectors += extent.Sectors; // of at most MaxExtents numbers of at most MaxSectors
        }
        if (Sectors > VmdkHeader.MaxSectors)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{imageName}: the extents have {Sectors:#,0} sectors together; allowed: up to {VmdkHeader.MaxSectors:#,0}",
                imageName);
        }
        Cid = Hex(CidKey, 0);
        ParentCid = Hex(ParentCidKey, NoParent);
        ComingParentCid = Has(ComingKey) ? Hex(ComingKey, NoParent) : null;
    }

    /// <summary>The image, for errors.</summary>
    public string ImageName { get; }

    /// <summary>The extents in the order of the disk.</summary>
    public IReadOnlyList<VmdkExtentLine> Extents { get; }

    /// <summary>Sectors of all extents.</summary>
    public long Sectors { get; }

    /// <summary>The content identifier: changed whenever a session first changes the disk.</summary>
    public uint Cid { get; }

    /// <summary>The parent's content identifier when this disk was made on it; <see cref="NoParent"/> for none.</summary>
    public uint ParentCid { get; }

    /// <summary>Another one that is right, too; null for none.</summary>
    public uint? ComingParentCid { get; }

    /// <summary>True if the disk stands on another.</summary>
    public bool HasParent => ParentCid != NoParent;

    /// <summary>Where the parent is; null if that is not said.</summary>
    public string? ParentHint => Value(HintKey) is { Length: > 0 } hint ? hint : null;

    /// <summary>The kind of disk as it stands there; null if it does not.</summary>
    public string? CreateType => Value(TypeKey);

    /// <summary>The encoding's name as it stands there; null if it does not.</summary>
    public string? EncodingName => Value(EncodingKey);

    /// <summary>True if something else keeps track of which blocks change, and must not be passed by.</summary>
    public bool TracksChanges => Value("changeTrackPath") is { Length: > 0 };

    /// <summary>The value of an entry; null if there is none.</summary>
    public string? Value(string key) => _values.TryGetValue(key, out (int Line, string Value) entry) ? entry.Value : null;

    /// <summary>True if bytes begin like a descriptor: its first line that says something is the signature or the version.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> bytes)
    {
        bytes = bytes[..Math.Min(bytes.Length, 2048)];
        int zero = bytes.IndexOf((byte)0); // which ends it
        string start = Encoding.Latin1.GetString(zero < 0 ? bytes : bytes[..zero]).TrimStart('\u00EF', '\u00BB', '\u00BF');
        foreach (string part in start.Split('\n'))
        {
            string line = part.Trim(' ', '\t', '\r');
            if (line.StartsWith('#'))
            {
                string said = line.TrimStart('#', ' ', '\t').Replace(" ", "", StringComparison.Ordinal);
                if (said.StartsWith("DiskDescriptorFile", StringComparison.OrdinalIgnoreCase))
                {
                    return true;
                }
            }
            else if (line.Length > 0)
            {
                string[] pair = line.Split('=', 2);
                return pair.Length == 2 && pair[0].TrimEnd().Equals("version", StringComparison.OrdinalIgnoreCase)
                    && Unquoted(pair[1]) is "1" or "2" or "3" or "4"
                    && start.Contains(CidKey, StringComparison.OrdinalIgnoreCase);
            }
        }
        return false;
    }

    /// <summary>Reads a descriptor's bytes; zeroes at the end are none of it.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt, Unsupported.</exception>
    public static VmdkDescriptor Parse(ReadOnlySpan<byte> bytes, string imageName)
    {
        int end = bytes.IndexOf((byte)0);
        bytes = end < 0 ? bytes : bytes[..end];
        if (bytes.Length > MaxBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{imageName}: the descriptor has {bytes.Length:#,0} bytes; allowed: up to"
                    + $" {MaxBytes:#,0}", imageName);
        }
        Encoding encoding = EncodingOf(bytes, imageName);
        string text = encoding.GetString(bytes);
        string newLine = text.Contains("\r\n", StringComparison.Ordinal) ? "\r\n" : "\n";
        return new VmdkDescriptor([.. text.Split('\n').Select(l => l.TrimEnd('\r'))], encoding, newLine, imageName);
    }

    /// <summary>A descriptor of one's own lines, in UTF-8.</summary>
    public static VmdkDescriptor Of(IEnumerable<string> lines, string imageName) => new([.. lines], Strict(Encoding.UTF8), "\n", imageName);

    /// <summary>The bytes as they are to stand in a file.</summary>
    /// <exception cref="DiskImageException">InvalidOption: the encoding lacks a character.</exception>
    public byte[] ToBytes()
    {
        try
        {
            return _encoding.GetBytes(string.Join(_newLine, _lines));
        }
        catch (EncoderFallbackException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{ImageName}: the descriptor is written in {_encoding.WebName}, which lacks a character of a name that is to"
                    + " stand in it. Rename the file.",
                ImageName);
        }
    }

    /// <summary>The same with another content identifier; the long one, whose end it is, follows.</summary>
    public VmdkDescriptor WithCid(uint cid)
    {
        VmdkDescriptor changed = With(CidKey, Hex(cid), isQuoted: false);
        return changed.Value(LongIdKey) is { Length: 32 } old ? changed.With(LongIdKey, old[..24] + Hex(cid), isQuoted: true) : changed;
    }

    /// <summary>The same on another parent.</summary>
    /// <param name="cid">Its content identifier; <see cref="NoParent"/> for none.</param>
    /// <param name="hint">Where it is; null for none.</param>
    /// <param name="coming">Another identifier that is right, too; null for none.</param>
    public VmdkDescriptor WithParent(uint cid, string? hint, uint? coming = null)
    {
        VmdkDescriptor changed = With(ParentCidKey, Hex(cid), isQuoted: false).With(HintKey, hint, isQuoted: true);
        return changed.With(ComingKey, coming is { } also ? Hex(also) : null, isQuoted: true);
    }

    /// <summary>The same with another value of an entry.</summary>
    /// <param name="key">The entry; a new one comes behind the last of its section.</param>
    /// <param name="value">The value; null takes the entry out.</param>
    /// <param name="isQuoted">It stands in quotes.</param>
    public VmdkDescriptor With(string key, string? value, bool isQuoted)
    {
        if (value is not null && value.AsSpan().IndexOfAny('"', '\n', '\r') >= 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{ImageName}: '{value}' cannot stand in a descriptor, since it has a"
                    + " quotation mark or a line end in it.", ImageName);
        }
        bool isEntry = key.StartsWith("ddb.", StringComparison.Ordinal);
        string line = $"{key}{(isEntry ? " = " : "=")}{(isQuoted ? $"\"{value}\"" : value)}";
        var lines = new List<string>(_lines);
        if (_values.TryGetValue(key, out (int Line, string Value) old))
        {
            if (value is null)
            {
                lines.RemoveAt(old.Line);
            }
            else
            {
                lines[old.Line] = line;
            }
        }
        else if (value is not null)
        {
            bool IsAlike(KeyValuePair<string, (int Line, string Value)> e)
                => e.Key.StartsWith("ddb.", StringComparison.OrdinalIgnoreCase) == isEntry;
            int last = _values.Where(IsAlike).Select(e => e.Value.Line).DefaultIfEmpty(isEntry ? lines.Count - 1 : -1).Max();
            lines.Insert(last + 1, line);
        }
        return new VmdkDescriptor([.. lines], _encoding, _newLine, ImageName);
    }

    /// <summary>The same with other extents.</summary>
    public VmdkDescriptor WithExtents(IReadOnlyList<VmdkExtentLine> extents)
    {
        var lines = new List<string>(_lines);
        for (int i = _extentLines.Count - 1; i >= 0; i--)
        {
            lines.RemoveAt(_extentLines[i]);
        }
        lines.InsertRange(_extentLines.Count > 0 ? _extentLines[0] : lines.Count, extents.Select(e => e.Text));
        return new VmdkDescriptor([.. lines], _encoding, _newLine, ImageName);
    }

    private static string Hex(uint cid) => cid.ToString("x8", CultureInfo.InvariantCulture);

    private static string Unquoted(string value)
    {
        string trimmed = value.Trim();
        return trimmed.StartsWith('"') ? trimmed[1..].Split('"')[0] : trimmed;
    }

    private bool Has(string key) => _values.ContainsKey(key);

    private uint Hex(string key, uint none)
        => Value(key) is not { } text ? none
            : uint.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint value) ? value
            : throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{ImageName}: the descriptor's {key} is '{(text.Length > 40 ? text[..40] : text)}';"
                    + " allowed: 8 hexadecimal digits", ImageName);

    /// <summary>
    /// The encoding that the text names, if it can be that; else UTF-8, or the one of Western Windows if it cannot be UTF-8.
    /// </summary>
    private static Encoding EncodingOf(ReadOnlySpan<byte> bytes, string imageName)
    {
        string? named = null;
        foreach (string line in Encoding.Latin1.GetString(bytes[..Math.Min(bytes.Length, 4096)]).Split('\n'))
        {
            string[] pair = line.Split('=', 2);
            if (pair.Length == 2 && pair[0].Trim().Equals(EncodingKey, StringComparison.OrdinalIgnoreCase))
            {
                named = Unquoted(pair[1]);
                break;
            }
        }
        bool isAscii = !bytes.ContainsAnyInRange((byte)0x80, (byte)0xFF);
        foreach (string name in named is null ? ["utf-8", "windows-1252"] : new[] { named })
        {
            Encoding? encoding = Find(name);
            if (encoding is null && isAscii)
            {
                return Strict(Encoding.UTF8);
            }
            if (encoding is not null && CanBe(encoding, bytes))
            {
                return encoding;
            }
        }
        throw new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"{imageName}: the descriptor has characters that are not ASCII, and its encoding '{named}' is not known, or it is"
                + " not of that encoding",
            imageName);
    }

    private static Encoding? Find(string name)
    {
        string plain = name.Equals("Shift-JIS", StringComparison.OrdinalIgnoreCase) ? "shift_jis" : name;
        try
        {
            Encoding? found = CodePagesEncodingProvider.Instance.GetEncoding(plain) ?? Encoding.GetEncoding(plain);
            // what is no superset of ASCII would have been unreadable up to here
            return found.GetByteCount("a") == 1 ? Strict(found) : null;
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException)
        {
            return null;
        }
    }

    private static Encoding Strict(Encoding encoding)
    {
        if (encoding is UTF8Encoding)
        {
            return new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);
        }
        var strict = (Encoding)encoding.Clone();
        strict.DecoderFallback = DecoderFallback.ExceptionFallback;
        strict.EncoderFallback = EncoderFallback.ExceptionFallback;
        return strict;
    }

    private static bool CanBe(Encoding encoding, ReadOnlySpan<byte> bytes)
    {
        try
        {
            _ = encoding.GetCharCount(bytes);
            return true;
        }
        catch (DecoderFallbackException)
        {
            return false;
        }
    }
}
