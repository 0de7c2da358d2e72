using DiskImage.Formats.Luks;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>
/// How a volume can be encrypted, in pairs: every cipher, mode, generator, its hash and the header's hash of the options record, as far as
/// QEMU takes them. What is new in the record is in the matrix by itself.
/// </summary>
internal static class LuksOptionMatrix
{
    public const int Seed = 12;

    public static readonly string[] Names = ["cipher-alg", "cipher-mode", "ivgen-alg", "ivgen-hash-alg", "hash-alg"];

    /// <summary>QEMU 7.2 has none of these.</summary>
    private static readonly string[] s_unknown = ["sm4", "sm3"];

    private static readonly OptionConflict[] s_conflicts =
    [
        new("cipher-alg", v => v is "cast5-128", "cipher-mode", v => v is "xts"), // XTS is for blocks of 16 bytes
        new("cipher-alg", v => v is "cast5-128", "ivgen-alg", v => v is "essiv"), // and so is ESSIV in QEMU
        // slots of such keys are no whole sectors, and QEMU ends in an assertion
        new("cipher-alg", v => v!.EndsWith("-192", StringComparison.Ordinal), "cipher-mode", v => v is not "xts"),
        new("ivgen-alg", v => v is not "essiv", "ivgen-hash-alg", v => v is not null),
        // the hash of ESSIV is as long as a key of the cipher
        new("ivgen-alg", v => v is "essiv", "ivgen-hash-alg", v => v is not (null or "md5" or "sha256")),
    ];

    /// <summary>The options with all their values.</summary>
    public static (string Name, string?[] Values)[] Values { get; } =
    [
        .. OptionSchema.Of<LuksCreateOptions>().Options.Where(o => Names.Contains(o.Name, StringComparer.Ordinal)).Select(
            o => (o.Name, (string?[])[
                .. o.Name.Equals("ivgen-hash-alg", StringComparison.Ordinal) ? (string?[])[null] : [],
                .. o.AllowedValues.Where(v => !s_unknown.Contains(v, StringComparer.Ordinal)),
            ])),
    ];

    /// <summary>Rows that cover every pair, in an order that is always the same.</summary>
    public static IReadOnlyList<string> Rows { get; } = new OptionMatrix(Values, s_conflicts).Pairwise(Seed);

    /// <summary>Everything that QEMU takes.</summary>
    public static IEnumerable<string> Full() => new OptionMatrix(Values, s_conflicts).Full();

    /// <summary>Every <paramref name="step"/>th row; all with <c>DISKIMAGE_CAMPAIGN</c>.</summary>
    public static IEnumerable<string> Sample(int step)
        => Environment.GetEnvironmentVariable("DISKIMAGE_CAMPAIGN") is not null ? Rows : Rows.Where((_, i) => i % step == 0);
}
