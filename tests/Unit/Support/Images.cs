using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;

namespace DiskImage.Tests.Support;

/// <summary>What an image is opened between.</summary>
internal enum Surroundings
{
    None,

    /// <summary>A filter that changes nothing stands on the disk.</summary>
    Filter,

    /// <summary>The file takes requests of whole 4 KiB only.</summary>
    AlignedChild,
}

/// <summary>Opens, makes and converts images the way a cmdlet does.</summary>
internal static class Images
{
    public static DriverRegistry Registry { get; } = BuiltInDrivers.CreateRegistry();

    public static ImageOpener Opener { get; } = new(Registry, OpenPolicy.Default);

    /// <summary>What stands around each image that is opened, where a test wants that.</summary>
    public static AsyncLocal<Surroundings> Around { get; } = new();

    /// <summary>The secrets of all images that are opened and made, by name or path, where a test wants some.</summary>
    public static AsyncLocal<IReadOnlyDictionary<string, SecureString>?> Secrets { get; } = new();

    private static readonly Dictionary<string, SecureString> s_noSecrets = new(StringComparer.Ordinal);

    /// <summary>A secret of a text.</summary>
    public static SecureString Secret(string text)
    {
        var secret = new SecureString();
        text.ToList().ForEach(secret.AppendChar);
        return secret;
    }

    /// <summary>One secret for everything that is opened or made from here on.</summary>
    public static void UseSecret(string text)
        => Secrets.Value = new Dictionary<string, SecureString>(StringComparer.Ordinal) { [""] = Secret(text) };

    public static async Task<BlockNode> OpenAsync(
        string path, string? format = null, bool writable = false, object? options = null, OpenPolicy? policy = null)
    {
        var opener = new ImageOpener(Registry, policy ?? OpenPolicy.Default);
        NodeSpec spec = ImageLocator.Parse(path).Spec;
        string locator = Around.Value switch
        {
            Surroundings.Filter => opener.Join(NodeSpec.Of("throttle"), spec).ToString(),
            Surroundings.AlignedChild => NodeSpec.Of(
                null, ("file", NodeSpec.Of("blkdebug", ("align", "4k"), ("image", spec.Child("file"))))).ToString(),
            _ => path,
        };
        return (await opener.OpenAsync(
            new OpenRequest(locator)
            {
                Format = format, Writable = writable, Options = options, Secrets = Secrets.Value ?? s_noSecrets,
            },
            CancellationToken.None)).Node;
    }

    /// <summary>A finished new image.</summary>
    public static async Task CreateAsync(string path, string format, string options, OpenPolicy? policy = null)
    {
        await using NewImage image = await BeginAsync(path, format, options, policy);
        await image.CompleteAsync(durable: false, CancellationToken.None);
    }

    public static async Task<NewImage> BeginAsync(string path, string format, string options, OpenPolicy? policy = null)
    {
        FormatDriver driver = Registry.Format(format);
        object record = ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split(options));
        ImageOpener opener = policy is null ? Opener : new ImageOpener(Registry, policy);
        return await new ImageCreator(opener.Naming(record, Path.GetFullPath(path)))
        {
            Secrets = Secrets.Value ?? s_noSecrets,
        }.CreateAsync(path, driver, record, replace: false, openOptions: null, CancellationToken.None);
    }

    public static async Task<ConvertResult> ConvertAsync(
        string source, string? sourceFormat, string target, string targetFormat, string options = "", ConvertOptions? how = null)
    {
        await using BlockNode node = await OpenAsync(source, sourceFormat);
        string size = $"size={node.Length}";
        await using NewImage image = await BeginAsync(target, targetFormat, options.Length == 0 ? size : $"{size},{options}");
        ConvertResult result = await new ConvertJob(node, image.Node, how ?? new ConvertOptions
        {
            TargetReadsZero = image.Node.As<INoiseWhenNew>() is not { IsNoiseWhenNew: true },
        }).RunAsync(null, CancellationToken.None);
        await image.CompleteAsync(durable: false, CancellationToken.None);
        return result;
    }

    /// <summary>Writes what is not zero, a random number of bytes at a time.</summary>
    public static async Task FillAsync(BlockNode node, byte[] contents)
    {
        var random = new Random(9);
        for (int at = 0; at < contents.Length;)
        {
            int length = Math.Min(random.Next(1, 300_000), contents.Length - at);
            if (contents.AsSpan(at, length).ContainsAnyExcept((byte)0))
            {
                await node.WriteAsync(at, contents.AsMemory(at, length));
            }
            at += length;
        }
    }

    /// <summary>A file with holes where the contents have whole blocks of zeroes.</summary>
    public static async Task WriteSparseAsync(string path, byte[] contents)
    {
        const int Block = 4096;
        await using FileStream file = File.Create(path);
        file.SetLength(contents.Length);
        for (int at = 0; at < contents.Length; at += Block)
        {
            int length = Math.Min(Block, contents.Length - at);
            if (contents.AsSpan(at, length).ContainsAnyExcept((byte)0))
            {
                file.Position = at;
                await file.WriteAsync(contents.AsMemory(at, length));
            }
        }
    }

    /// <summary>A raw file of mixed holes, zeroes, text and noise; the same for the same seed.</summary>
    public static async Task MakeRawAsync(string path, long length, int seed, int unit = 65536)
    {
        var random = new Random(seed);
        await using FileStream file = File.Create(path);
        file.SetLength(length);
        byte[] buffer = new byte[unit];
        for (long at = 0; at < length; at += unit)
        {
            int count = (int)Math.Min(unit, length - at);
            switch (random.Next(5))
            {
                case 0:
                    continue; // a hole
                case 1:
                    Array.Clear(buffer);
                    break;
                case 2:
                    random.NextBytes(buffer);
                    break;
                case 3:
                    Array.Clear(buffer);
                    random.NextBytes(buffer.AsSpan(random.Next(unit / 2), unit / 4));
                    break;
                default:
                    for (int i = 0; i < unit; i++)
                    {
                        buffer[i] = (byte)"the quick brown fox jumps over the lazy dog "[(i + seed) % 44];
                    }
                    break;
            }
            file.Position = at;
            await file.WriteAsync(buffer.AsMemory(0, count));
        }
    }
}
