using System.Collections.Concurrent;
using System.Management.Automation;
using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>What the cmdlets of this module share: drivers, the opening of images, errors per item, progress.</summary>
public abstract class DiskImageCmdlet : PipelineCmdlet, IFrontEnd
{
    private const int MostSteps = 20; // of -WhatIf; the rest is counted

    private readonly SharedParts _shared = new(); // of all that this call opens
    private readonly ConcurrentQueue<string> _warnings = new();
    private readonly HashSet<string> _warned = new(StringComparer.Ordinal); // an image may be opened several times
    private ItemsDisplay? _items; // of several images
    private string? _folder;
    private bool _yesToAll, _noToAll; // answers of the user to questions about losses

    /// <summary>The secrets that images are opened with, by name or path.</summary>
    private protected virtual IReadOnlyDictionary<string, SecureString> OpeningSecrets { get; }
        = new Dictionary<string, SecureString>(StringComparer.Ordinal);

    /// <summary>The secrets of images that are made, likewise.</summary>
    private protected virtual IReadOnlyDictionary<string, SecureString> NewSecrets { get; }
        = new Dictionary<string, SecureString>(StringComparer.Ordinal);

    /// <summary>The session's current folder when the cmdlet began.</summary>
    private protected string? Folder => _folder;

    /// <summary>All drivers.</summary>
    internal static DriverRegistry Registry { get; } = BuiltInDrivers.CreateRegistry();

    /// <summary>What references in images may make the cmdlet open.</summary>
    private protected virtual OpenPolicy Policy => OpenPolicy.Default;

    /// <summary>False for a cmdlet that tells of what is wrong with an image in its result.</summary>
    private protected virtual bool WarnsOfImages => true;

    /// <summary>Opens images within <see cref="Policy"/>.</summary>
    private protected ImageOpener Opener
        => new(Registry, Policy, text => _warnings.Enqueue(RemedyWords.Say(text))) { Shared = _shared };

    /// <inheritdoc/>
    protected override void BeginProcessing() => _folder = SessionPath.Folder(SessionState.Path);

    /// <summary>Gets a secret that is missing from somebody; true if it is worth trying again.</summary>
    private protected virtual Task<bool> AskSecretAsync(DiskImageException missing) => Task.FromResult(false);

    /// <summary>
    /// Runs work for one item. What goes wrong, whatever it is, becomes a non-terminating error about the item: the others go on. Only the
    /// end of the pipeline ends it.
    /// </summary>
    protected async Task RunItemAsync(object target, Func<Task> work)
    {
        ArgumentNullException.ThrowIfNull(work);
        try
        {
            await work().ConfigureAwait(false);
        }
        catch (Exception e) when (!IsStopping)
        {
            if (e is DiskImageException missing && await AskSecretAsync(missing).ConfigureAwait(false))
            {
                await RunItemAsync(target, work).ConfigureAwait(false);
                return;
            }
            await WarnPendingAsync().ConfigureAwait(false);
            await PostAsync(() => WriteError(DiskImageError.Record(e, target))).ConfigureAwait(false);
            return;
        }
        await WarnPendingAsync().ConfigureAwait(false);
    }

    /// <summary>Asks whether something may be changed (<c>-WhatIf</c>, <c>-Confirm</c>).</summary>
    protected Task<bool> ConfirmAsync(string target, string action)
        => AskAsync(() => ShouldProcess(Printable.Of(target), Printable.Of(action)));

    /// <summary>
    /// Like <see cref="ConfirmAsync(string, string)"/>, for the one way of using a cmdlet that loses data if it was a mistake: asked also
    /// where <c>$ConfirmPreference</c> has only what is of high impact asked about.
    /// </summary>
    private protected Task<bool> ConfirmLossAsync(string target, string action)
        => AskAsync(() => ShouldProcess(Printable.Of(target), Printable.Of(action))
            && (Confirmation != ConfirmImpact.High
            || ShouldContinue(Printable.Of($"{action}: {target}"), "Confirm", ref _yesToAll, ref _noToAll)));

    /// <summary>The impact from which on the user is asked; None for never. On the pipeline thread.</summary>
    private ConfirmImpact Confirmation => Switch("Confirm") switch
    {
        true => ConfirmImpact.Low,
        false => ConfirmImpact.None,
        null => LanguagePrimitives.TryConvertTo(GetVariableValue("ConfirmPreference"), out ConfirmImpact preference)
            ? preference
            : ConfirmImpact.High,
    };

    /// <summary>True if the user only wants to see what would be done. On the pipeline thread.</summary>
    private protected bool IsWhatIf => Switch("WhatIf") ?? LanguagePrimitives.IsTrue(GetVariableValue("WhatIfPreference"));

    /// <summary>A common parameter as it was given; null if it was not.</summary>
    private protected bool? Switch(string name)
        => MyInvocation.BoundParameters.TryGetValue(name, out object? given) && given is SwitchParameter value ? value.ToBool() : null;

    /// <summary>
    /// Asks whether something may be changed; <c>-WhatIf</c> tells the steps too, a line each, and of many the first and how many more.
    /// </summary>
    protected Task<bool> ConfirmAsync(string target, string action, IReadOnlyCollection<string> steps) => AskAsync(() =>
    {
        string line = Printable.Of($"{action} {target}");
        bool go = ShouldProcess(line, $"{line}?", "Confirm", out ShouldProcessReason reason);
        foreach (string step in reason == ShouldProcessReason.WhatIf ? ReadableText.First(steps, MostSteps).Select(Printable.Of) : [])
        {
            _ = ShouldProcess(step, step, "Confirm");
        }
        return go;
    });

    /// <summary>
    /// Makes an image, if the user agrees, and outputs what it is then. Unless it becomes complete nothing is left behind.
    /// </summary>
    /// <param name="path">Its full path or URI.</param>
    /// <param name="options">Its format and options.</param>
    /// <param name="mode">How it takes its place.</param>
    /// <param name="action">What the user is asked; gets the format's record of options.</param>
    /// <param name="fill">Puts the disk's contents in and completes it; tells what was copied, if anything was.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">As the options, the place or the work say.</exception>
    private protected async Task MakeAsync(
        string path,
        NewImageOptions options,
        TargetMode mode,
        Func<object, string> action,
        Func<NewImage, Task<DiskImageCopyStatistics?>> fill,
        CancellationToken cancellationToken)
    {
        object record = options.Bind();
        ImageOpener opener = Opener.Naming(record, path);
        var operation = new CreateOperation(
            this, opener, Creator(opener, path).With(options.BindStorage()), new CreateRequest(path, options.Format, record, mode));
        string target = await operation.LookAsync(cancellationToken).ConfigureAwait(false);
        if (!await ConfirmAsync(target, action(record)).ConfigureAwait(false))
        {
            return;
        }
        DiskImageCopyStatistics? statistics;
        DiskImageInfo? sent = null;
        NewImage image = await operation.RunAsync(cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            // it cannot be looked at afterwards
            sent = image.IsSent ? await DiskImageInfo.OfAsync(image.Node, cancellationToken).ConfigureAwait(false) : null;
            statistics = await fill(image).ConfigureAwait(false);
        }
        if (sent is not null)
        {
            sent.Statistics = statistics;
            await OutputSentAsync(sent).ConfigureAwait(false);
            return;
        }
        string place = ImageLocator.HasScheme(path) ? path : image.Path; // a URL may say who asks, which its shown form does not
        OpenedImage made = await opener.OpenAsync(
            new OpenRequest(place)
            {
                Format = options.Format.Name, WithBacking = false, Secrets = Creator(opener, path).PlaceSecrets,
            },
            cancellationToken).ConfigureAwait(false);
        await using (made.ConfigureAwait(false))
        {
            await OutputAsync(
                await DiskImageInfo.OfAsync(made.Node, cancellationToken, statistics).ConfigureAwait(false)).ConfigureAwait(false);
        }
    }

    /// <summary>Makes the images of this cmdlet.</summary>
    private protected virtual ImageCreator Creator(ImageOpener opener, string path)
        => new(opener) { Secrets = NewSecrets, SecretsBelow = OpeningSecrets, WithBacking = !IsBackingUnseen };

    /// <summary>What a new image stands on is not opened: it need not be there.</summary>
    private protected virtual bool IsBackingUnseen => false;

    /// <summary>Outputs what an image was that is somewhere else by now.</summary>
    private protected virtual ValueTask OutputSentAsync(DiskImageInfo info) => OutputAsync(info);

    /// <summary>How a new image takes its place, by the parameters of the cmdlets that make one.</summary>
    /// <exception cref="DiskImageException">InvalidOption: in place, but without consent.</exception>
    private protected static TargetMode HowToMake(string path, bool force, bool inPlace) => (force, inPlace) switch
    {
        (false, true) => throw new DiskImageException(
            DiskImageErrorKind.InvalidOption, $"{path}: -InPlace writes over what is there, so it needs -Force.", path),
        (true, true) => TargetMode.InPlace,
        (true, false) => TargetMode.Replace,
        _ => TargetMode.New,
    };

    ValueTask IFrontEnd.WarnAsync(Wording text) => WarnAsync(RemedyWords.Say(text));

    ValueTask IFrontEnd.ExplainAsync(Wording text) => VerboseAsync(RemedyWords.Say(text));

    Task<T> IFrontEnd.ShowAsync<T>(string activity, Func<IProgress<JobProgress>, Task<T>> job) => ShowAsync(activity, job);

    Task<OpenedImage> IFrontEnd.OpenAsync(OpenRequest request, CancellationToken cancellationToken)
        => OpenAsync(request, cancellationToken);

    /// <summary>Warns.</summary>
    protected ValueTask WarnAsync(string text) => PostAsync(() => WriteWarning(Printable.Of(text)));

    /// <summary>Says why what a profile stands for would refuse a new disk that holds so many bytes.</summary>
    private protected async Task WarnOfProfileAsync(string path, ImageProfile? profile, long length)
    {
        foreach (string objection in profile?.ObjectionsToSize(profile.SizeOf(length)) ?? [])
        {
            await WarnAsync($"{path}: {profile!.Name} would refuse it: {objection}.").ConfigureAwait(false);
        }
    }

    /// <summary>Runs a job with its progress shown.</summary>
    /// <typeparam name="T">What the job returns.</typeparam>
    /// <param name="activity">What is done to which image.</param>
    /// <param name="job">The work.</param>
    protected async Task<T> ShowAsync<T>(string activity, Func<IProgress<JobProgress>, Task<T>> job)
    {
        ArgumentNullException.ThrowIfNull(job);
        var display = new ProgressDisplay(Printable.Of(activity), _items?.Id ?? -1, record =>
        {
            _items?.Show();
            return Post(record);
        });
        try
        {
            return await job(display).ConfigureAwait(false);
        }
        finally
        {
            if (display.End() is { } end)
            {
                _ = TryPost(() => WriteProgress(end));
            }
        }
    }

    /// <summary>Does the same for each of several images, one after the other, and shows which of them it is.</summary>
    private protected async Task ForEachAsync(IReadOnlyList<string> images, Func<string, Task> work)
    {
        _items = images.Count < 2 ? null : new ItemsDisplay(MyInvocation.MyCommand.Name, images.Count, Post);
        try
        {
            foreach (string image in images)
            {
                _items?.Next(Leaf(image));
                await work(image).ConfigureAwait(false);
            }
        }
        finally
        {
            if (_items?.End() is { } end)
            {
                _ = Post(end);
            }
            _items = null;
        }
    }

    private bool Post(ProgressRecord record) => TryPost(() => WriteProgress(record));

    /// <inheritdoc cref="ByteText.Leaf"/>
    private protected static string Leaf(string path) => ByteText.Leaf(path);

    /// <summary>Opens an image and says how.</summary>
    private protected async Task<OpenedImage> OpenAsync(OpenRequest request, CancellationToken cancellationToken)
    {
        OpenedImage image = await Opener.OpenAsync(
            request with { Folder = _folder, Secrets = OpeningSecrets }, cancellationToken).ConfigureAwait(false);
        try
        {
            await WarnPendingAsync().ConfigureAwait(false);
            string how = image.WasProbed ? "recognised as" : "opened as";
            await VerboseAsync(
                $"{image.Path}: {how} {image.Format.Name}, {ReadableSize.WithBytes(image.Node.Length)}").ConfigureAwait(false);
            if (WarnsOfImages)
            {
                await WarnOfAsync(image.Node).ConfigureAwait(false);
            }
            return image;
        }
        catch
        {
            await image.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Tells, once, what an image and those below it say about themselves that a user should know.</summary>
    private protected async Task WarnOfAsync(BlockNode image)
    {
        for (BlockNode? node = image; node is not null; node = node.BackingNode())
        {
            foreach (string warning in node.As<IDescribed>()?.Describe().Warnings ?? [])
            {
                _warnings.Enqueue($"{node.Name}: {warning}.");
            }
        }
        await WarnPendingAsync().ConfigureAwait(false);
    }

    /// <summary>Says, once each, what is to be said of images.</summary>
    private async ValueTask WarnPendingAsync()
    {
        while (_warnings.TryDequeue(out string? warning))
        {
            if (_warned.Add(warning))
            {
                await WarnAsync(warning).ConfigureAwait(false);
            }
        }
    }
}
