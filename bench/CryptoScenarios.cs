using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;

namespace DiskImage.Bench;

/// <summary>
/// Conversions from and to encrypted images, aes-256-xts. The images that are written to are made before the time counts, both by the same
/// code, so no side measures how long a key is to take; both open them with the fewest iterations there may be.
/// </summary>
internal static class CryptoScenarios
{
    private const string Secret = "benchmark", Luks = "luks", Qcow2 = "qcow2";
    private const string LuksOptions = "iter-time=1", Qcow2Options = "encrypt.format=luks,encrypt.iter-time=1";

    private static readonly string[] s_secret = ["--object", $"secret,id=s,data={Secret}"];

    public static IReadOnlyList<Scenario> All { get; } =
    [
        Decrypt("luks-raw", "luks → raw", 0.6, Luks, LuksOptions),
        Encrypt("raw-luks", "raw → luks", 0.6, Luks, LuksOptions, ["-n"]),
        Decrypt("qcow2luks-raw", "qcow2 luks → raw", 0.7, Qcow2, Qcow2Options),
        Encrypt("raw-qcow2luks", "raw → qcow2 luks", 0.7, Qcow2, Qcow2Options, ["-n", "--target-is-zero"]),
    ];

    private static Dictionary<string, SecureString> Secrets
    {
        get
        {
            var secret = new SecureString();
            foreach (char character in Secret)
            {
                secret.AppendChar(character);
            }
            return new(StringComparer.Ordinal) { [""] = secret };
        }
    }

    private static Scenario Decrypt(string name, string title, double target, string format, string options)
    {
        string source = $"encrypted.{format}";
        return new(
            name, title, target,
            folder => DecryptAsync(Path.Combine(folder, source), format, Path.Combine(folder, "ours.raw")),
            folder => ["convert", .. s_secret, "--image-opts", Described(format, Path.Combine(folder, source)), "-O", "raw", Path.Combine(
                folder, "theirs.raw")],
            "ours.raw",
            "theirs.raw")
        {
            PrepareAsync = async folder =>
            {
                await MakeAsync(folder, source, format, options);
                await EncryptAsync(Path.Combine(folder, Scenario.Raw), Path.Combine(folder, source), format);
            },
        };
    }

    private static Scenario Encrypt(string name, string title, double target, string format, string options, string[] how)
    {
        string ours = $"ours.{format}", theirs = $"theirs.{format}";
        return new(
            name, title, target,
            folder => EncryptAsync(Path.Combine(folder, Scenario.Raw), Path.Combine(folder, ours), format),
            folder => ["convert", .. how, .. s_secret, "-f", "raw", "--target-image-opts", Path.Combine(
                folder, Scenario.Raw), Described(format, Path.Combine(folder, theirs))],
            ours,
            theirs)
        {
            BeforeAsync = async folder =>
            {
                await MakeAsync(folder, ours, format, options);
                await MakeAsync(folder, theirs, format, options);
            },
        };
    }

    private static string Described(string format, string path) => format.Equals(Luks, StringComparison.Ordinal)
        ? $"driver=luks,key-secret=s,file.filename={path}"
        : $"driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename={path}";

    private static async Task MakeAsync(string folder, string name, string to, string how)
    {
        DriverRegistry registry = BuiltInDrivers.CreateRegistry();
        FormatDriver format = registry.Format(to);
        long size = new FileInfo(Path.Combine(folder, Scenario.Raw)).Length;
        object options = ((ICreatable)format).CreateOptions.Bind(OptionSchema.Split($"size={size},{how}"));
        var creator = new ImageCreator(new ImageOpener(registry, OpenPolicy.Default)) { Secrets = Secrets };
        await using NewImage made = await creator.CreateAsync(
            Path.Combine(folder, name), format, options, replace: true, openOptions: null, CancellationToken.None);
        await made.CompleteAsync(durable: false, CancellationToken.None);
    }

    private static async Task DecryptAsync(string source, string from, string target)
    {
        DriverRegistry registry = BuiltInDrivers.CreateRegistry();
        var opener = new ImageOpener(registry, OpenPolicy.Default);
        await using OpenedImage image = await OpenAsync(opener, source, from, writable: false);
        FormatDriver format = registry.Format("raw");
        object options = ((ICreatable)format).CreateOptions.Bind(OptionSchema.Split($"size={image.Node.Length}"));
        await using NewImage made = await new ImageCreator(opener).CreateAsync(
            target, format, options, replace: false, openOptions: null, CancellationToken.None);
        await new ConvertJob(image.Node, made.Node, new ConvertOptions()).RunAsync(null, CancellationToken.None);
        await made.CompleteAsync(durable: false, CancellationToken.None);
    }

    private static async Task EncryptAsync(string source, string target, string to)
    {
        var opener = new ImageOpener(BuiltInDrivers.CreateRegistry(), OpenPolicy.Default);
        await using OpenedImage image = await OpenAsync(opener, source, "raw", writable: false);
        await using OpenedImage made = await OpenAsync(opener, target, to, writable: true);
        bool isNoise = made.Node.As<INoiseWhenNew>() is { IsNoiseWhenNew: true };
        await new ConvertJob(image.Node, made.Node, new ConvertOptions { TargetReadsZero = !isNoise })
            .RunAsync(null, CancellationToken.None);
    }

    private static ValueTask<OpenedImage> OpenAsync(ImageOpener opener, string path, string format, bool writable)
        => opener.OpenAsync(new OpenRequest(path) { Format = format, Writable = writable, Secrets = Secrets }, CancellationToken.None);
}
