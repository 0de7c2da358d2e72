using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;

namespace DiskImage.Bench;

/// <summary>One line of the comparison: the same work by us and by qemu-img, on the files of one folder.</summary>
/// <param name="Name">A word for the command line.</param>
/// <param name="Title">What is printed.</param>
/// <param name="Target">The ratio ours / qemu-img to reach.</param>
/// <param name="OursAsync">Ours, in this process.</param>
/// <param name="QemuImg">The arguments of qemu-img.</param>
/// <param name="OursMakes">The file ours leaves; removed after each run.</param>
/// <param name="QemuMakes">The file qemu-img leaves.</param>
internal sealed record Scenario(
    string Name,
    string Title,
    double Target,
    Func<string, Task> OursAsync,
    Func<string, string[]> QemuImg,
    string? OursMakes,
    string? QemuMakes)
{
    /// <summary>Makes what the scenario needs besides the mix; once.</summary>
    public Func<string, Task>? PrepareAsync { get; init; }

    /// <summary>The program that the arguments are for, where it is another one.</summary>
    public string Program { get; init; } = "qemu-img";

    /// <summary>Untimed, before each pair of runs.</summary>
    public Func<string, Task>? BeforeAsync { get; init; }

    /// <summary>Untimed, after each pair of runs.</summary>
    public Func<string, Task>? AfterAsync { get; init; }

    /// <summary>Runs that count at the most, where one takes long.</summary>
    public int MostRuns { get; init; } = int.MaxValue;

    /// <summary>Whether it is run, by what was asked for; if it is part of its name, where nothing else is said.</summary>
    public Func<string, bool>? IsWanted { get; init; }

    /// <summary>False where this build lacks what the scenario is about.</summary>
    public Func<bool> IsPossible { get; init; } = () => true;

    public const string Raw = "mix.raw", Qcow2 = "mix.qcow2", Packed = "packed.qcow2";

    public static IReadOnlyList<Scenario> All { get; } =
    [
        Convert("raw-qcow2", "raw → qcow2", 0.75, Raw, "raw", "qcow2"),
        Convert("qcow2-raw", "qcow2 → raw", 0.75, Qcow2, "qcow2", "raw"),
        Convert("raw-raw", "raw → raw", 0.7, Raw, "raw", "raw"),
        Convert("packed-raw", "compressed qcow2 → raw", 0.25, Packed, "qcow2", "raw"),
        new(
            "compare", "compare raw, qcow2", 0.5, CompareAsync,
            folder => ["compare", "-f", "raw", "-F", "qcow2", Path.Combine(folder, Raw), Path.Combine(folder, Qcow2)], null, null),
        .. FeatureScenarios.All,
        .. OldFormatScenarios.All,
        .. CryptoScenarios.All,
        .. VmdkScenarios.All,
        .. NetworkScenarios.All,
        .. SshScenarios.All,
        .. SharingScenarios.All,
        .. IscsiScenarios.All,
    ];

    private static Scenario Convert(string name, string title, double target, string source, string from, string to)
        => new(
            name, title, target,
            folder => ConvertAsync(Path.Combine(folder, source), from, Path.Combine(folder, "ours." + to), to),
            folder => ["convert", "-f", from, "-O", to, Path.Combine(folder, source), Path.Combine(folder, "theirs." + to)],
            "ours." + to,
            "theirs." + to);

    public static async Task ConvertAsync(string source, string from, string target, string to, string more = "", bool compress = false)
    {
        DriverRegistry registry = BuiltInDrivers.CreateRegistry();
        var opener = new ImageOpener(registry, OpenPolicy.Default);
        await using OpenedImage image = await opener.OpenAsync(new OpenRequest(source) { Format = from }, CancellationToken.None);
        FormatDriver format = registry.Format(to);
        object options = ((ICreatable)format).CreateOptions.Bind(OptionSchema.Split($"size={image.Node.Length},{more}"));
        await using NewImage made = await new ImageCreator(opener).CreateAsync(
            target, format, options, replace: false, openOptions: null, CancellationToken.None);
        await new ConvertJob(image.Node, made.Node, new ConvertOptions { Compress = compress }).RunAsync(null, CancellationToken.None);
        await made.CompleteAsync(durable: false, CancellationToken.None);
    }

    private static async Task CompareAsync(string folder)
    {
        var opener = new ImageOpener(BuiltInDrivers.CreateRegistry(), OpenPolicy.Default);
        await using OpenedImage left = await opener.OpenAsync(
            new OpenRequest(Path.Combine(folder, Raw)) { Format = "raw" }, CancellationToken.None);
        await using OpenedImage right = await opener.OpenAsync(
            new OpenRequest(Path.Combine(folder, Qcow2)) { Format = "qcow2" }, CancellationToken.None);
        CompareResult result = await new CompareJob(left.Node, right.Node, strict: false).RunAsync(null, CancellationToken.None);
        if (!result.Identical)
        {
            throw new InvalidOperationException($"The disks differ at {result.FirstDifference}.");
        }
    }
}
