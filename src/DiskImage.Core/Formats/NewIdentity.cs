using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Formats;

/// <summary>
/// The identifiers and times that formats give new images and new states of them: random and of now. Where the environment sets
/// <see cref="Variable"/>, both follow from it and from what is made, so that the same work gives the same bytes. Spec: SOURCE_DATE_EPOCH
/// 1.1 of reproducible-builds.org; RFC 9562, 5.8 (version 8: of one's own making).
/// </summary>
internal static class NewIdentity
{
    /// <summary>The environment variable: seconds since 1970-01-01 UTC.</summary>
    public const string Variable = "SOURCE_DATE_EPOCH";

    private const long LatestSecond = 253_402_300_799; // of the year 9999
    private const int GuidBytes = 16;

    /// <summary>The time to record.</summary>
    /// <exception cref="DiskImageException">InvalidOption: the variable is no number of seconds.</exception>
    public static DateTimeOffset Now => Epoch(Environment.GetEnvironmentVariable(Variable)) ?? DateTimeOffset.UtcNow;

    /// <summary>A new identifier.</summary>
    /// <param name="role">What it is for: identifiers of different roles differ.</param>
    /// <param name="facts">What it follows from if it is not to be random: what is made, or the identifier that it comes after.</param>
    /// <exception cref="DiskImageException">InvalidOption: the variable is no number of seconds.</exception>
    public static Guid Of(string role, params IEnumerable<object?> facts)
        => Epoch(Environment.GetEnvironmentVariable(Variable)) is { } epoch ? Derived(epoch, role, facts) : Guid.NewGuid();

    /// <summary>The time that a value of the variable says; null if it is not set.</summary>
    internal static DateTimeOffset? Epoch(string? value)
        => string.IsNullOrEmpty(value) ? null
            : long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out long seconds) && seconds <= LatestSecond
            ? DateTimeOffset.FromUnixTimeSeconds(seconds)
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"The environment variable {Variable} is '{value}'; allowed: whole seconds since 1970-01-01, up to {LatestSecond}. "
                    + "Set it right, or not at all.");

    /// <summary>A hash of everything, marked as what it is.</summary>
    internal static Guid Derived(DateTimeOffset epoch, string role, IEnumerable<object?> facts)
    {
        IEnumerable<object?> all = facts.Prepend(role).Prepend(epoch.ToUnixTimeSeconds());
        string text = string.Join('\n', all.Select(f => Convert.ToString(f, CultureInfo.InvariantCulture)));
        Span<byte> id = SHA256.HashData(Encoding.UTF8.GetBytes(text)).AsSpan(0, GuidBytes);
        id[6] = (byte)((id[6] & 0x0F) | 0x80);
        id[8] = (byte)((id[8] & 0x3F) | 0x80);
        return new Guid(id, bigEndian: true);
    }
}
