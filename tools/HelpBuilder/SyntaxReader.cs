namespace DiskImage.HelpBuilder;

/// <summary>
/// Reads a line in the notation of <c>Get-Command -Syntax</c>: <c>[-Name] &lt;type&gt;</c> may be given by position,
/// brackets around the whole make it optional, and a name without a type is a switch.
/// </summary>
internal ref struct SyntaxReader
{
    private readonly ReadOnlySpan<char> _text;
    private readonly string _file;
    private readonly int _line;
    private int _at;

    private SyntaxReader(string text, string file, int line)
    {
        _text = text;
        _file = file;
        _line = line;
    }

    public static SyntaxLine Read(string text, string cmdlet, string file, int line)
    {
        var reader = new SyntaxReader(text, file, line);
        return new SyntaxLine(line, reader.ReadLine(cmdlet));
    }

    private List<SyntaxParameter> ReadLine(string cmdlet)
    {
        if (ReadWord() != cmdlet)
        {
            throw Error($"A syntax line begins with '{cmdlet}'");
        }

        var parameters = new List<SyntaxParameter>();
        int position = 0;
        while (!AtEnd())
        {
            if (TryTake("[<CommonParameters>]"))
            {
                return AtEnd() ? parameters : throw Error("[<CommonParameters>] is the last word of a syntax line");
            }

            SyntaxParameter parameter = ReadParameter();
            if (parameters.Exists(p => p.Name == parameter.Name))
            {
                throw Error($"-{parameter.Name} appears twice in one syntax line");
            }

            parameters.Add(parameter.Position is null ? parameter : parameter with { Position = position++ });
        }

        throw Error("A syntax line ends with [<CommonParameters>]");
    }

    private SyntaxParameter ReadParameter()
    {
        // "[-Name] <type>" is required; "[[-Name] <type>]", "[-Name <type>]" and "[-Name]" are optional.
        bool outer = TryTake("[");
        bool inner = outer && TryTake("[");
        string name = ReadName();
        if (outer && !inner && TryTake("]"))
        {
            string? type = ReadType();
            return type is null ? new(name, null, Required: false, null) : new(name, type, Required: true, Position: 0);
        }

        if (inner)
        {
            Take("]");
        }

        string? valueType = ReadType();
        if (inner && valueType is null)
        {
            throw Error($"-{name} is given by position and so needs a <type>");
        }

        if (outer)
        {
            Take("]");
        }

        return new(name, valueType, Required: !outer, inner ? 0 : null);
    }

    private string ReadName()
    {
        Take("-");
        string name = ReadWord();
        return name.Length > 0 ? name : throw Error("A parameter name is missing after '-'");
    }

    private string? ReadType()
    {
        if (!TryTake("<"))
        {
            return null;
        }

        int end = _text[_at..].IndexOf('>');
        if (end < 1)
        {
            throw Error("A '<type>' is not closed");
        }

        string type = _text.Slice(_at, end).ToString();
        _at += end + 1;
        return type;
    }

    private string ReadWord()
    {
        SkipSpace();
        int start = _at;
        while (_at < _text.Length && (char.IsAsciiLetterOrDigit(_text[_at]) || (_text[_at] == '-' && _at > start)))
        {
            _at++;
        }

        return _text[start.._at].ToString();
    }

    private bool AtEnd()
    {
        SkipSpace();
        return _at == _text.Length;
    }

    private void SkipSpace()
    {
        while (_at < _text.Length && char.IsWhiteSpace(_text[_at]))
        {
            _at++;
        }
    }

    private bool TryTake(string token)
    {
        SkipSpace();
        if (!_text[_at..].StartsWith(token, StringComparison.Ordinal))
        {
            return false;
        }

        _at += token.Length;
        return true;
    }

    private void Take(string token)
    {
        if (!TryTake(token))
        {
            throw Error($"'{token}' is expected before '{_text[_at..]}'");
        }
    }

    private readonly HelpPageException Error(string problem) => new(_file, _line, problem);
}
