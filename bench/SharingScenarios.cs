namespace DiskImage.Bench;

/// <summary>
/// Conversions on a file system that can share storage (the folder of the comparison is on xfs with reflinks, btrfs, or the like); elsewhere
/// they are ordinary ones.
/// </summary>
internal static class SharingScenarios
{
    public static IReadOnlyList<Scenario> All { get; } =
    [
        Row("raw", "qcow2"), Row("qcow2", "raw"), Row("raw", "vhdx"), Row("vhdx", "raw"), Row("qcow2", "vhdx"), Row("vhdx", "qcow2"),
    ];

    private static Scenario Row(string from, string to)
        => new(
            $"shared-{from}-{to}", $"sharing: {from} → {to}", 0.1,
            folder => Scenario.ConvertAsync(Path.Combine(folder, "mix." + from), from, Path.Combine(folder, "ours." + to), to),
            folder => ["convert", "-f", from, "-O", to, Path.Combine(folder, "mix." + from), Path.Combine(folder, "theirs." + to)],
            "ours." + to,
            "theirs." + to)
        {
            IsWanted = only => only.StartsWith("shared", StringComparison.Ordinal),
            PrepareAsync = async folder =>
            {
                string source = Path.Combine(folder, "mix." + from);
                if (!File.Exists(source))
                {
                    await Scenario.ConvertAsync(Path.Combine(folder, Scenario.Raw), "raw", source, from);
                }
            },
        };
}
