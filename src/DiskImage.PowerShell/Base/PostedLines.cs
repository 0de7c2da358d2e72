using System.Text;

namespace DiskImage.PowerShell;

/// <summary>
/// Text that becomes lines, each handed on when it is whole. What a program writes over on its line, progress, is not handed on.
/// </summary>
/// <param name="post">Takes a line.</param>
internal sealed class PostedLines(Func<string, ValueTask> post) : TextWriter
{
    private readonly StringBuilder _line = new();

    public override Encoding Encoding => Encoding.Unicode;

    public override void Write(char value)
    {
        switch (value)
        {
            case '\n':
                End();
                break;
            case '\r':
                _ = _line.Clear().Append(value);
                break;
            default:
                _ = _line.Append(value);
                break;
        }
    }

    public override void Write(string? value)
    {
        foreach (char c in value ?? "")
        {
            Write(c);
        }
    }

    public override void WriteLine() => Write('\n');

    public override void WriteLine(string? value)
    {
        Write(value);
        Write('\n');
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing && _line.Length > 0)
        {
            End();
        }
        base.Dispose(disposing);
    }

    private void End()
    {
        string line = _line.ToString();
        _ = _line.Clear();
        if (!line.Equals("\r", StringComparison.Ordinal)) // a line of progress alone
        {
            // on the worker's thread, which may wait for the pipeline
            post(line.TrimStart('\r')).AsTask().GetAwaiter().GetResult();
        }
    }
}
