using System.Globalization;
using System.Text;

namespace DiskImage.CommandLine;

/// <summary>Named values in their order: text, numbers, switches, further facts, lists. Null values are not there.</summary>
internal sealed class Facts
{
    private const int Step = 4; // columns of indentation, as QEMU has them

    private readonly List<(string Name, object Value)> _members = [];

    /// <summary>Adds a value; null adds nothing.</summary>
    public Facts Add(string name, object? value)
    {
        if (value is not null)
        {
            _members.Add((name, value));
        }
        return this;
    }

    /// <summary>A value as indented JSON.</summary>
    public static string Json(object value)
    {
        var text = new StringBuilder();
        WriteJson(text, value, 0);
        return text.ToString();
    }

    /// <summary>Text between quotes, all but ASCII escaped.</summary>
    public static string Quote(string text)
    {
        var quoted = new StringBuilder(text.Length + 2).Append('"');
        foreach (char c in text)
        {
            _ = c switch
            {
                '"' => quoted.Append("\\\""),
                '\\' => quoted.Append("\\\\"),
                '\b' => quoted.Append("\\b"),
                '\f' => quoted.Append("\\f"),
                '\n' => quoted.Append("\\n"),
                '\r' => quoted.Append("\\r"),
                '\t' => quoted.Append("\\t"),
                >= ' ' and < '\u007f' => quoted.Append(c),
                _ => quoted.Append("\\u").Append(((int)c).ToString("X4", CultureInfo.InvariantCulture)),
            };
        }
        return quoted.Append('"').ToString();
    }

    /// <summary>Lines for people: a name and a value each, with spaces for hyphens.</summary>
    public string Lines(int indentation)
    {
        var text = new StringBuilder();
        WriteLines(text, indentation);
        return text.ToString();
    }

    private void WriteLines(StringBuilder text, int indentation)
    {
        foreach ((string name, object value) in _members)
        {
            Line(text, indentation, name.Replace('-', ' '), value);
        }
    }

    private static void Line(StringBuilder text, int indentation, string name, object value)
    {
        _ = text.Append(' ', indentation).Append(name).Append(':');
        switch (value)
        {
            case Facts facts:
                _ = text.Append('\n');
                facts.WriteLines(text, indentation + Step);
                break;
            case IReadOnlyList<object> list:
                _ = text.Append('\n');
                for (int i = 0; i < list.Count; i++)
                {
                    Line(text, indentation + Step, $"[{i}]", list[i]);
                }
                break;
            default:
                _ = text.Append(' ').Append(Plain(value)).Append('\n');
                break;
        }
    }

    private static void WriteJson(StringBuilder text, object value, int indentation)
    {
        switch (value)
        {
            case Facts facts:
                Block(text, '{', '}', indentation, facts._members, member =>
                {
                    _ = text.Append(Quote(member.Name)).Append(": ");
                    WriteJson(text, member.Value, indentation + Step);
                });
                break;
            case IReadOnlyList<object> list:
                Block(text, '[', ']', indentation, list, item => WriteJson(text, item, indentation + Step));
                break;
            case string words:
                _ = text.Append(Quote(words));
                break;
            default:
                _ = text.Append(Plain(value));
                break;
        }
    }

    private static void Block<T>(StringBuilder text, char open, char close, int indentation, IReadOnlyList<T> items, Action<T> write)
    {
        _ = text.Append(open).Append('\n');
        for (int i = 0; i < items.Count; i++)
        {
            _ = text.Append(' ', indentation + Step);
            write(items[i]);
            _ = text.Append(i + 1 < items.Count ? ",\n" : "\n");
        }
        _ = text.Append(' ', indentation).Append(close);
    }

    private static string Plain(object value) => value switch
    {
        bool on => on ? "true" : "false",
        IFormattable number => number.ToString(null, CultureInfo.InvariantCulture),
        _ => value.ToString() ?? "",
    };
}
