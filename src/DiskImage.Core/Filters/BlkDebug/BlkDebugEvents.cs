using System.Text.Json;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Filters.BlkDebug;

/// <summary>The names of events, QEMU's: a member's words in small letters, with underscores between.</summary>
internal static class BlkDebugEvents
{
    private static readonly Dictionary<string, DebugEvent> s_byName = Enum.GetValues<DebugEvent>().ToDictionary(
        NameOf, e => e, StringComparer.Ordinal);

    /// <summary>An event's name.</summary>
    public static string NameOf(DebugEvent what) => JsonNamingPolicy.SnakeCaseLower.ConvertName($"{what}");

    /// <summary>The event of a name, or null.</summary>
    public static DebugEvent? Parse(string name) => s_byName.TryGetValue(name, out DebugEvent what) ? what : null;

    /// <summary>The event that a rule names.</summary>
    /// <exception cref="DiskImageException">InvalidOption: there is none of that name.</exception>
    public static DebugEvent Require(string name) => Parse(name) ?? throw new DiskImageException(
        DiskImageErrorKind.InvalidOption,
        $"blkdebug knows no event '{name}'. {KnownNames.Hint(name, s_byName.Keys)}");
}
