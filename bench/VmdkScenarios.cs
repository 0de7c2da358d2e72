namespace DiskImage.Bench;

/// <summary>The comparisons for VMDK.</summary>
internal static class VmdkScenarios
{
    private const string Stream = "mix-stream.vmdk", Streamed = "subformat=streamOptimized";

    public static IReadOnlyList<Scenario> All { get; } =
    [
        new(
            "qcow2-vmdk", "qcow2 → vmdk", 0.35,
            folder => Scenario.ConvertAsync(Path.Combine(folder, Scenario.Qcow2), "qcow2", Path.Combine(folder, "ours.vmdk"), "vmdk"),
            folder => ["convert", "-f", "qcow2", "-O", "vmdk", Path.Combine(folder, Scenario.Qcow2), Path.Combine(folder, "theirs.vmdk")],
            "ours.vmdk",
            "theirs.vmdk"),
        new(
            "qcow2-vmdk-stream", "qcow2 → vmdk stream", 0.25,
            folder => Scenario.ConvertAsync(Path.Combine(folder, Scenario.Qcow2), "qcow2", Path.Combine(folder, "ours.vmdk"), "vmdk",
                Streamed),
            folder => ["convert", "-f", "qcow2", "-O", "vmdk", "-o", Streamed,
                Path.Combine(folder, Scenario.Qcow2), Path.Combine(folder, "theirs.vmdk")],
            "ours.vmdk",
            "theirs.vmdk")
        {
            MostRuns = 5,
        },
        new(
            "vmdk-stream-raw", "vmdk stream → raw", 0.5,
            folder => Scenario.ConvertAsync(Path.Combine(folder, Stream), "vmdk", Path.Combine(folder, "ours.raw"), "raw"),
            folder => ["convert", "-f", "vmdk", "-O", "raw", Path.Combine(folder, Stream), Path.Combine(folder, "theirs.raw")],
            "ours.raw",
            "theirs.raw")
        {
            PrepareAsync = folder => Comparison.RunQemuImgAsync(
                ["convert", "-f", "raw", "-O", "vmdk", "-o", Streamed, Path.Combine(folder, Scenario.Raw), Path.Combine(folder, Stream)]),
            MostRuns = 5,
        },
    ];
}
