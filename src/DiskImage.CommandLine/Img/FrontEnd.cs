using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.CommandLine;

/// <summary>
/// The command line as the operations know it. It follows what images name, as qemu-img does; whoever does not trust an image uses the
/// cmdlets, or names what is to be opened.
/// </summary>
/// <param name="Io">Where words go.</param>
/// <param name="Program">What stands before messages.</param>
internal sealed record FrontEnd(ProgramIO Io, string Program) : IFrontEnd
{
    private const string Raw = "raw";
    private const int MostImages = 1000; // of a chain; ours

    private static DriverRegistry? s_registry;

    /// <summary>All drivers.</summary>
    public static DriverRegistry Registry => s_registry ??= BuiltInDrivers.CreateRegistry();

    /// <summary>What is opened, and how.</summary>
    public OpenPolicy Policy { get; init; } = OpenPolicy.Default with
    {
        References = ReferenceScope.Anywhere, AllowDeviceWrite = true, MaximumDepth = MostImages,
    };

    /// <summary>The secrets that were given, by identifier.</summary>
    public IReadOnlyDictionary<string, SecureString> Secrets { get; init; } = new Dictionary<string, SecureString>(StringComparer.Ordinal);

    /// <summary>Says nothing that is no error.</summary>
    public bool IsQuiet { get; init; }

    /// <summary>Shows how far work is.</summary>
    public bool ShowsProgress { get; init; }

    /// <summary>Opens within the policy.</summary>
    public ImageOpener Opener => new(Registry, Policy, Hear) { Shared = Shared };

    /// <summary>What nodes of this run share by names in their descriptions.</summary>
    public SharedParts Shared { get; init; } = new();

    /// <summary>The same with a cache mode.</summary>
    public FrontEnd With(CacheMode mode) => this with { Policy = Policy with { Cache = CachePolicy.Of(mode) } };

    /// <inheritdoc/>
    public ValueTask WarnAsync(Wording text)
    {
        Warn(RemedyOptions.Say(text));
        return default;
    }

    /// <summary>Warns, unless nothing is to be said.</summary>
    public void Warn(string text)
    {
        if (!IsQuiet)
        {
            Io.Error.WriteLine($"{Program}: warning: {text}");
        }
    }

    /// <inheritdoc/>
    public ValueTask ExplainAsync(Wording text) => default;

    /// <inheritdoc/>
    public async Task<T> ShowAsync<T>(string activity, Func<IProgress<JobProgress>, Task<T>> job)
    {
        ArgumentNullException.ThrowIfNull(job);
        if (!ShowsProgress)
        {
            return await job(new Unseen()).ConfigureAwait(false);
        }
        var line = new ProgressLine(Io.Output);
        T result = await job(line).ConfigureAwait(false);
        line.End();
        return result;
    }

    /// <summary>
    /// Opens an image. One that nobody recognises is raw; that is said if it is to be written to. What is wrong is said with the image's
    /// name as it was given.
    /// </summary>
    public async Task<OpenedImage> OpenAsync(OpenRequest request, CancellationToken cancellationToken)
    {
        request = request with { Locator = DebugName.Expand(request.Locator, Io), Folder = Io.Folder, Secrets = Secrets };
        OpenedImage image;
        bool isGuess = false;
        try
        {
            image = await Opener.OpenAsync(request, cancellationToken).ConfigureAwait(false);
            isGuess = image.WasProbed && image.Format.Name.Equals(Raw, StringComparison.Ordinal);
        }
        catch (DiskImageException e) when (request.Format is null
            && e.Wording.Remedies.Any(r => r is { Kind: RemedyKind.Format, Value: Raw }))
        {
            image = await Opener.OpenAsync(request with { Format = Raw }, cancellationToken).ConfigureAwait(false);
            isGuess = true;
        }
        if (isGuess && request.Writable)
        {
            Io.Error.WriteLine($"WARNING: Image format was not specified for '{request.Locator}' and probing guessed raw.");
            Io.Error.WriteLine("         Automatically detecting the format is dangerous for raw images, another format's bytes may be "
                + "written into it by a guest.");
            Io.Error.WriteLine("         Specify the 'raw' format explicitly to remove this warning.");
        }
        return image;
    }

    /// <summary>What is heard of files that are opened; that one may be no disk is not, since qemu-img takes any file for one.</summary>
    private void Hear(Wording text)
    {
        if (!text.Remedies.Any(r => r.Kind == RemedyKind.Format))
        {
            Warn(RemedyOptions.Say(text));
        }
    }

    private sealed class Unseen : IProgress<JobProgress>
    {
        public void Report(JobProgress value)
        {
        }
    }
}
