using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Bench;

/// <summary>Merge, rebase and hash: images anew for each run, made before it and not timed.</summary>
internal static class JobScenarios
{
    private const string Top = "top.qcow2", TopTheirs = "top-theirs.qcow2", Base = "base.qcow2", BaseTheirs = "base-theirs.qcow2";

    public static IReadOnlyList<Scenario> All { get; } =
    [
        new(
            "merge", "merge into qcow2", 0.6, MergeAsync,
            folder => ["commit", "-d", "-f", "qcow2", Path.Combine(folder, TopTheirs)], null, null)
        {
            BeforeAsync = async folder =>
            {
                foreach ((string top, string below) in new[] { (Top, Base), (TopTheirs, BaseTheirs) })
                {
                    await MakeAsync(folder, below, backing: null);
                    await Comparison.RunQemuImgAsync(
                    [
                        "convert", "-O", "qcow2", "-B", Path.Combine(folder, below), "-F", "qcow2", Path.Combine(folder, Scenario.Raw),
                        Path.Combine(folder, top),
                    ]);
                }
            },
        },
        new(
            "rebase", "rebase onto nothing", 0.6, RebaseAsync,
            folder => ["rebase", "-f", "qcow2", "-b", "", Path.Combine(folder, TopTheirs)], null, null)
        {
            BeforeAsync = async folder =>
            {
                await MakeAsync(folder, Top, Scenario.Qcow2);
                await MakeAsync(folder, TopTheirs, Scenario.Qcow2);
            },
        },
        Hash("hash-raw", "SHA-256 of raw", Scenario.Raw, "raw"),
        Hash("hash-qcow2", "SHA-256 of qcow2", Scenario.Qcow2, "qcow2"),
    ];

    private static Scenario Hash(string name, string title, string image, string format)
        => new(
            name, title + ", by sha256sum", 1.0, folder => HashAsync(Path.Combine(folder, image), format),
            folder => [Path.Combine(folder, Scenario.Raw)], null, null) { Program = "sha256sum" };

    private static Task MakeAsync(string folder, string name, string? backing)
    {
        string[] below = backing is null ? [] : ["-b", Path.Combine(folder, backing), "-F", "qcow2"];
        long length = new FileInfo(Path.Combine(folder, Scenario.Raw)).Length;
        return Comparison.RunQemuImgAsync(["create", "-q", "-f", "qcow2", .. below, Path.Combine(folder, name), $"{length}"]);
    }

    private static async Task MergeAsync(string folder)
    {
        await using OpenedImage target = await OpenAsync(new OpenRequest(Path.Combine(folder, Base)) { Format = "qcow2", Writable = true });
        var shared = new Dictionary<NodeIdentity, BlockNode> { [target.Node.HolderIdentity()!.Value] = target.Node };
        await using OpenedImage top = await OpenAsync(
            new OpenRequest(Path.Combine(folder, Top)) { Format = "qcow2", Opened = shared });
        _ = await new CommitJob(top.Node, 1, target.Node).RunAsync(null, CancellationToken.None);
    }

    private static async Task RebaseAsync(string folder)
    {
        await using OpenedImage top = await OpenAsync(new OpenRequest(Path.Combine(folder, Top)) { Format = "qcow2", Writable = true });
        _ = await new RebaseJob(top.Node, null).RunAsync(null, CancellationToken.None);
        await top.Node.As<IRebasable>()!.SetBackingAsync(null, null, null, CancellationToken.None);
        await top.Node.FlushAsync();
    }

    private static async Task HashAsync(string path, string format)
    {
        await using OpenedImage image = await OpenAsync(new OpenRequest(path) { Format = format });
        _ = await new HashJob(image.Node, HashAlgorithmName.SHA256).RunAsync(null, CancellationToken.None);
    }

    private static ValueTask<OpenedImage> OpenAsync(OpenRequest request)
        => new ImageOpener(BuiltInDrivers.CreateRegistry(), OpenPolicy.Default).OpenAsync(request, CancellationToken.None);
}
