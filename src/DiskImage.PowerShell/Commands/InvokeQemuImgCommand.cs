using System.Management.Automation;
using DiskImage.CommandLine;

namespace DiskImage.PowerShell;

/// <summary><c>Invoke-QemuImg</c>: runs a command line of qemu-img in this process.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "QemuImg")]
[OutputType(typeof(string))]
public sealed class InvokeQemuImgCommand : PipelineCmdlet
{
    private const string ExitStatus = "global:LASTEXITCODE";

    /// <summary>qemu-img's arguments, one by one, or all of them in one text.</summary>
    [Parameter(Position = 0, ValueFromRemainingArguments = true)]
    [AllowEmptyString]
    [AllowEmptyCollection]
    public string[] ArgumentList { get; set; } = [];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        string? folder = SessionPath.Folder(SessionState.Path);
        IReadOnlyList<string> arguments = ArgumentList is [string line] && line.Any(char.IsWhiteSpace) ? QemuImg.Words(line) : ArgumentList;
        int status = 1;
        Run(async cancellationToken =>
        {
            using var output = new PostedLines(line => PostAsync(() => WriteObject(line)));
            using var error = new PostedLines(line => PostAsync(() => WriteError(Record(line))));
            status = await QemuImg.RunAsync(arguments, new ProgramIO(output, error, folder), cancellationToken).ConfigureAwait(false);
        });
        SessionState.PSVariable.Set(ExitStatus, status);
    }

    private ErrorRecord Record(string line)
        => new(new InvalidOperationException(line), "QemuImg", ErrorCategory.FromStdErr, string.Join(' ', ArgumentList));
}
