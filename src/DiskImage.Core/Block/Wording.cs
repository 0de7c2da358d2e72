using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace DiskImage.Block;

/// <summary>
/// What is said of an error or a finding, with its numbers as everybody reads them and not as the caller's culture has them: scripts match
/// on it, and people compare it. An interpolated string that is passed for one is put together so.
/// </summary>
[InterpolatedStringHandler]
public sealed class Wording
{
    private readonly StringBuilder? _text; // the last part, as far as it goes; null where it is not put together
    private readonly string _whole = ""; // all of it, then
    private List<object>? _parts; // text, and what can be done, in the order in which it is said; null for text alone

    /// <summary>Begins an interpolated string.</summary>
    /// <param name="literalLength">Characters of its constant parts.</param>
    /// <param name="formattedCount">Its holes.</param>
    public Wording(int literalLength, int formattedCount) => _text = new StringBuilder(literalLength + (formattedCount * 8));

    /// <summary>Begins one for a finding. Beyond those that are kept none is put together: a damaged table may have a million.</summary>
    internal Wording(int literalLength, int formattedCount, CheckFindings findings, out bool isWanted)
    {
        isWanted = findings.HasRoom;
        _text = isWanted ? new StringBuilder(literalLength + (formattedCount * 8)) : null;
    }

    private Wording(string text) => _whole = text;

    /// <summary>What it says can be done.</summary>
    public IEnumerable<Remedy> Remedies => _parts?.OfType<Remedy>() ?? [];

    /// <summary>A text as it is.</summary>
    public static implicit operator Wording(string text) => new(text);

    /// <summary>A constant part.</summary>
    public void AppendLiteral(string value) => _text!.Append(value);

    /// <summary>What can be done.</summary>
    public void AppendFormatted(Remedy value)
    {
        _parts ??= [];
        _parts.Add(_text!.ToString());
        _parts.Add(value);
        _ = _text.Clear();
    }

    /// <summary>What somebody else said, with what it says can be done.</summary>
    public void AppendFormatted(Wording value)
    {
        ArgumentNullException.ThrowIfNull(value);
        foreach (object part in value._parts ?? [])
        {
            if (part is Remedy remedy)
            {
                AppendFormatted(remedy);
            }
            else
            {
                _ = _text!.Append(part);
            }
        }
        _ = _text!.Append(value.Rest);
    }

    /// <summary>A hole.</summary>
    /// <typeparam name="T">The value's type.</typeparam>
    public void AppendFormatted<T>(T value) => AppendFormatted(value, format: null);

    /// <summary>A hole with a format.</summary>
    /// <typeparam name="T">The value's type.</typeparam>
    public void AppendFormatted<T>(T value, string? format)
        => _text!.Append(value is IFormattable formattable
            ? formattable.ToString(format, CultureInfo.InvariantCulture)
            : value?.ToString());

    /// <summary>The text in the words of a front end.</summary>
    public string Say(Func<Remedy, string> words)
    {
        ArgumentNullException.ThrowIfNull(words);
        return _parts is null ? Rest : string.Concat(_parts.Select(p => p is Remedy remedy ? words(remedy) : (string)p).Append(Rest));
    }

    /// <summary>The text.</summary>
    public override string ToString() => Say(r => r.ToString());

    /// <summary>What comes behind the last of the parts.</summary>
    private string Rest => _text?.ToString() ?? _whole;
}
