using System.Diagnostics;

namespace DiskImage.Bench;

/// <summary>
/// The comparisons over iSCSI, loopback: the Linux SCSI target serves the mix, and takes it, for both sides. It is started once and ends with
/// the program.
/// </summary>
internal static class IscsiScenarios
{
    private const int Port = 13260, Control = 1326;
    private const string Target = "iqn.2026-11.org.example:bench", Sink = "iscsi-sink.raw", Socket = "tgt";

    private static bool s_isThere;

    public static IReadOnlyList<Scenario> All { get; } =
    [
        new(
            "iscsi-raw", "iscsi → raw", 0.8,
            folder => Scenario.ConvertAsync(Url(1), "raw", Path.Combine(folder, "ours.raw"), "raw"),
            folder => ["convert", "-f", "raw", "-O", "raw", Url(1), Path.Combine(folder, "theirs.raw")],
            "ours.raw",
            "theirs.raw")
        {
            PrepareAsync = ServeAsync, IsPossible = () => NetworkScenarios.Has("tgtd"), MostRuns = 5,
        },
        new(
            "raw-iscsi", "raw → iscsi", 0.8,
            folder => NetworkScenarios.IntoAsync(folder, Url(2)),
            folder => ["convert", "-n", "-f", "raw", "-O", "raw", Path.Combine(folder, Scenario.Raw), Url(2)],
            null,
            null)
        {
            PrepareAsync = ServeAsync, IsPossible = () => NetworkScenarios.Has("tgtd"), MostRuns = 5,
        },
    ];

    private static string Url(int lun) => $"iscsi://127.0.0.1:{Port}/{Target}/{lun}";

    private static async Task ServeAsync(string folder)
    {
        if (s_isThere)
        {
            return;
        }
        s_isThere = true;
        string mix = Path.Combine(folder, Scenario.Raw), sink = Path.Combine(folder, Sink);
        await using (FileStream file = File.Create(sink))
        {
            file.SetLength(new FileInfo(mix).Length);
        }
        Environment.SetEnvironmentVariable("TGT_IPC_SOCKET", Path.Combine(folder, Socket)); // or it takes one in /var/run
        await NetworkScenarios.StartAsync(
            folder, $"{Socket}.{Control}", "tgtd", "-f", "--iscsi", $"portal=127.0.0.1:{Port}", "-C", $"{Control}");
        await AdminAsync("--op new --mode target --tid 1 -T " + Target);
        await AdminAsync($"--op new --mode logicalunit --tid 1 --lun 1 -b {mix}");
        await AdminAsync("--op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1");
        await AdminAsync($"--op new --mode logicalunit --tid 1 --lun 2 -b {sink}");
        await AdminAsync("--op update --mode logicalunit --tid 1 --lun 2 --params thin_provisioning=1");
        await AdminAsync("--op bind --mode target --tid 1 -I ALL");
    }

    private static async Task AdminAsync(string arguments)
    {
        for (int i = 0; ; i++)
        {
            using Process process = Process.Start("tgtadm", $"-C {Control} --lld iscsi {arguments}");
            await process.WaitForExitAsync();
            if (process.ExitCode == 0)
            {
                return;
            }
            if (i == 20)
            {
                throw new InvalidOperationException($"tgtadm {arguments}: exit code {process.ExitCode}");
            }
            await Task.Delay(100); // it may not listen yet
        }
    }
}
