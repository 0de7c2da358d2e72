using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>What ssh said before it ended.</summary>
/// <param name="Kind">Of what kind the reason is.</param>
/// <param name="Text">Its words, on one line; never empty.</param>
internal sealed record SshWords(DiskImageErrorKind Kind, string Text)
{
    /// <summary>Characters that are kept of what a program says. Ours.</summary>
    public const int MostKept = 4096;

    private const int MostSaid = 600; // of them in a message. Ours

    // Parts of OpenSSH's messages, which it does not translate.
    private static readonly (string Part, DiskImageErrorKind Kind)[] s_reasons =
    [
        ("Host key verification failed", DiskImageErrorKind.Refused),
        ("host key is known for", DiskImageErrorKind.Refused),
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", DiskImageErrorKind.Refused),
        ("Permission denied", DiskImageErrorKind.AccessDenied),
        ("Too many authentication failures", DiskImageErrorKind.AccessDenied),
        ("Could not resolve hostname", DiskImageErrorKind.NotFound),
        ("subsystem request failed", DiskImageErrorKind.Unsupported),
    ];

    /// <summary>From what a program wrote to its errors, and how it ended.</summary>
    /// <param name="program">What it is called.</param>
    /// <param name="errors">What it wrote.</param>
    /// <param name="exitCode">Its exit code; null if it was ended by force or has not ended.</param>
    public static SshWords Of(string program, string errors, int? exitCode)
    {
        string[] lines = [.. errors.Split(['\r', '\n'], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
            .Where(l => l.Trim('@', ' ').Length > 0) // the frame around the warning of a changed key
            .Select(l => l.StartsWith($"{program}: ", StringComparison.Ordinal) ? l[(program.Length + 2)..] : l)];
        string said = string.Join("; ", lines);
        said = said.Length > MostSaid ? $"…{said[^MostSaid..]}" : said;
        DiskImageErrorKind kind = Array.Find(s_reasons, r => said.Contains(r.Part, StringComparison.Ordinal)) is { Part: not null } reason
            ? reason.Kind : DiskImageErrorKind.Io;
        return new SshWords(
            kind,
            said.Length > 0 ? $"{program} says: {said}"
                : exitCode is { } code ? $"{program} ended without a word, with exit code {code}" : $"{program} fell silent");
    }
}
