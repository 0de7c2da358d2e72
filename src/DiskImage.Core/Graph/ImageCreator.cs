using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>
/// Makes new images. Until it is complete a new image bears a temporary name, which ends with <see cref="IncompleteSuffix"/>; then it takes
/// its place in one step. Only <see cref="TargetMode.InPlace"/> writes into a file that is there already.
/// </summary>
public sealed class ImageCreator(ImageOpener opener)
{
    /// <summary>The ending of an image that is being made, or was left by a process that died.</summary>
    public const string IncompleteSuffix = ".incomplete";

    /// <summary>Where the bytes of a new image go, if not to a place of its name. It stays open.</summary>
    public Stream? Sink { get; init; }

    /// <summary>How writes to what is made reach the medium. Nothing is flushed before it is complete unless each write is.</summary>
    public CachePolicy Cache { get; init; }

    /// <summary>The record of the place's <see cref="IStorage.CreateOptions"/>; null for their defaults.</summary>
    public object? StorageOptions { get; init; }

    /// <summary>Secrets of what is made, by name or path.</summary>
    public IReadOnlyDictionary<string, SecureString> Secrets { get; init; } = new Dictionary<string, SecureString>(StringComparer.Ordinal);

    /// <summary>Secrets of what it stands on, by name or path.</summary>
    public IReadOnlyDictionary<string, SecureString> SecretsBelow { get; init; }
        = new Dictionary<string, SecureString>(StringComparer.Ordinal);

    /// <summary>
    /// Secrets to open with what was made, by name or path: its own, and of the others those that are not for all, since its server may
    /// ask for one.
    /// </summary>
    public IReadOnlyDictionary<string, SecureString> PlaceSecrets
        => Secrets.Concat(SecretsBelow.Where(s => s.Key.Length > 0 && !Secrets.ContainsKey(s.Key))).ToDictionary(StringComparer.Ordinal);

    /// <summary>False for an image that is made and no more: what it stands on need not be there.</summary>
    public bool WithBacking { get; init; } = true;

    /// <summary>The same with a <see cref="Sink"/> and a cache mode.</summary>
    public ImageCreator Into(Stream? sink, CachePolicy cache) => Changed(sink, cache, StorageOptions);

    /// <summary>The same with <see cref="StorageOptions"/>.</summary>
    public ImageCreator With(object? storageOptions) => Changed(Sink, Cache, storageOptions);

    private ImageCreator Changed(Stream? sink, CachePolicy cache, object? storageOptions)
        => new(opener)
        {
            Sink = sink,
            Secrets = Secrets,
            SecretsBelow = SecretsBelow,
            WithBacking = WithBacking,
            Cache = cache,
            StorageOptions = storageOptions,
        };

    /// <summary>The same; a true <paramref name="replace"/> replaces an existing image once the new one is complete.</summary>
    /// <inheritdoc cref="CreateAsync(string, FormatDriver, object, TargetMode, object?, IProgress{long}, CancellationToken)"/>
    public ValueTask<NewImage> CreateAsync(
        string path, FormatDriver format, object options, bool replace, object? openOptions, CancellationToken cancellationToken)
        => CreateAsync(path, format, options, replace ? TargetMode.Replace : TargetMode.New, openOptions, cancellationToken);

    /// <summary>The same without a listener.</summary>
    /// <inheritdoc cref="CreateAsync(string, FormatDriver, object, TargetMode, object?, IProgress{long}, CancellationToken)"/>
    public ValueTask<NewImage> CreateAsync(
        string path, FormatDriver format, object options, TargetMode mode, object? openOptions, CancellationToken cancellationToken)
        => CreateAsync(path, format, options, mode, openOptions, claimed: null, cancellationToken);

    /// <summary>Starts a new image and opens it for writing, on its backing image if the options name one.</summary>
    /// <param name="path">Where it is to be.</param>
    /// <param name="format">Its format.</param>
    /// <param name="options">The record of the format's create options.</param>
    /// <param name="mode">How it takes its place.</param>
    /// <param name="openOptions">Open options for writing to it.</param>
    /// <param name="claimed">Told how many bytes of host space are claimed, where the options ask for that.</param>
    /// <param name="cancellationToken">Stops it; nothing is left behind.</param>
    /// <exception cref="DiskImageException">
    /// What <see cref="LookAsync(string, TargetMode, CancellationToken)"/> says; Unsupported if the format cannot be made; what it says.
    /// </exception>
    public async ValueTask<NewImage> CreateAsync(
        string path,
        FormatDriver format,
        object options,
        TargetMode mode,
        object? openOptions,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        ICreatable creatable = format as ICreatable
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{path}: images of format '{format.Name}' can be read but not made", path);
        (IStorage storage, StoragePlace place) = await TargetAsync(
            path, format.FolderFileOf(options), mode, cancellationToken).ConfigureAwait(false);
        if (place.Mode == TargetMode.Stream && !format.IsWrittenForward(options))
        {
            string forms = string.Join(", ", opener.Registry.Formats.Select(f => f.ForwardForm).OfType<string>());
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{path}: is written in one go, from front to back, and a {format.Name} image of these options is not. These are: "
                    + $"{forms}. Or make a file, and send that.",
                path);
        }
        ImageTarget target = await ImageTarget.BeginAsync(
            storage,
            place,
            TraitsOf(creatable, options) with
            {
                InNewFolder = format.FolderFileOf(options) is not null, Options = StorageOptions,
            },
            Cache,
            cancellationToken).ConfigureAwait(false);
        try
        {
            await CreateOnAsync(target, creatable, options, claimed, cancellationToken).ConfigureAwait(false);
            BlockNode node = await OpenAsync(target.File, writable: true, cancellationToken).ConfigureAwait(false);
            node = Cache.WriteThrough ? new WriteThroughNode(node) : node;
            try
            {
                if (node.As<IUnfinished>() is { } unfinished)
                {
                    await unfinished.SetUnfinishedAsync(true, cancellationToken).ConfigureAwait(false);
                }
                return new NewImage(
                    node,
                    target,
                    async token => await OpenAsync(
                        await target.OpenAsync(token).ConfigureAwait(false), writable: false, token).ConfigureAwait(false));
            }
            catch
            {
                await Closing.FailedAsync(node).ConfigureAwait(false);
                throw;
            }
        }
        catch
        {
            await target.DisposeAsync().ConfigureAwait(false);
            throw;
        }

        async ValueTask<BlockNode> OpenAsync(BlockNode file, bool writable, CancellationToken token)
        {
            try
            {
                return await opener.OpenOnAsync(
                    file,
                    new ChainLink(place.Locator, place.Present),
                    format,
                    openOptions,
                    async (reference, _, stop) =>
                    {
                        ImageLocator locator = opener.Policy.Admit(reference, place.Locator, OpenPolicy.DataRole);
                        return await target.TryOpenAsync(Full(locator), writable, stop).ConfigureAwait(false)
                            ?? await opener.OpenFileAsync(
                                locator, writable, Path.GetDirectoryName(place.Address), Cache, stop).ConfigureAwait(false);
                    },
                    Secrets,
                    SecretsBelow,
                    WithBacking,
                    token).ConfigureAwait(false);
            }
            catch
            {
                await Closing.FailedAsync(file).ConfigureAwait(false);
                throw;
            }
        }
    }

    /// <summary>
    /// Throws what
    /// <see cref="CreateAsync(string, FormatDriver, object, TargetMode, object?, IProgress{long}, CancellationToken)"/> would throw if an
    /// image cannot be made there, as far as that shows without changing anything.
    /// </summary>
    /// <param name="path">Where it is to be.</param>
    /// <param name="mode">How it takes its place.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">
    /// AlreadyExists; Unsupported for a protocol that makes nothing; InvalidOption for what is no regular file; AccessDenied or Locked for
    /// a file that cannot be replaced or written.
    /// </exception>
    public async ValueTask<StoragePlace> LookAsync(string path, TargetMode mode, CancellationToken cancellationToken)
        => (await TargetAsync(path, folderFile: null, mode, cancellationToken).ConfigureAwait(false)).Place;

    /// <summary>The same for an image of given options, which may be a folder.</summary>
    /// <inheritdoc cref="LookAsync(string, TargetMode, CancellationToken)"/>
    public async ValueTask<StoragePlace> LookAsync(
        string path, FormatDriver format, object options, TargetMode mode, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(format);
        return (await TargetAsync(path, format.FolderFileOf(options), mode, cancellationToken).ConfigureAwait(false)).Place;
    }

    private async ValueTask CreateOnAsync(
        ImageTarget target, ICreatable creatable, object options, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        string image = target.Place.Locator;
        async ValueTask<BlockNode> OpenCompanionAsync(string name, bool create, CancellationToken token)
        {
            ImageLocator locator = opener.Policy.Admit(name, image, OpenPolicy.DataRole);
            if (!create)
            {
                BlockNode existing = await opener.OpenFileAsync(
                    locator, writable: true, Path.GetDirectoryName(image), Cache, token).ConfigureAwait(false);
                if (existing.Identity is { } identity && identity == target.Place.Present)
                {
                    await existing.DisposeAsync().ConfigureAwait(false);
                    throw Itself();
                }
                return existing;
            }
            if (Full(locator).Equals(image, StringComparison.Ordinal))
            {
                throw Itself();
            }
            // what the user names is a file of its own, what the format names is the image's
            bool isNamed = options is ICreateOptions { DataFile: { } named } && named.Equals(name, StringComparison.Ordinal);
            TargetMode mode = target.Place.Mode == TargetMode.Replace && !isNamed ? TargetMode.Replace : TargetMode.New;
            (IStorage storage, StoragePlace place) = await PlaceAsync(locator.Target, mode, token).ConfigureAwait(false);
            return await target.AddAsync(storage, place, TraitsOf(creatable, options), Full(locator), token).ConfigureAwait(false);

            DiskImageException Itself() => new(
                DiskImageErrorKind.InvalidOption,
                $"{image}: cannot be its own data file (by way of '{name}'). Choose another name.",
                image);
        }

        OpenedImage? backing = creatable.RecordsBackingIdentity && options is ICreateOptions { BackingFile: { } backingName } named
            ? await opener.OpenReferenceAsync(
                image,
                backingName,
                named.BackingFormat,
                [new ChainLink(image, target.Place.Present)],
                cancellationToken).ConfigureAwait(false)
            : null;
        try
        {
            await creatable.CreateAsync(
                new FormatCreateContext(target.File, options, backing?.Node, OpenCompanionAsync, claimed) { Secrets = Secrets },
                cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            if (backing is not null)
            {
                await backing.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private StorageTraits TraitsOf(ICreatable creatable, object options)
        => new(creatable.AllowsSparseFile, options is ICreateOptions { NoCow: true }, Cache.Direct);

    private static string Full(ImageLocator locator) => locator.IsFile ? Path.GetFullPath(locator.Address) : locator.Text;

    private async ValueTask<(IStorage Storage, StoragePlace Place)> TargetAsync(
        string path, string? folderFile, TargetMode mode, CancellationToken cancellationToken)
    {
        if (Sink is null)
        {
            return folderFile is null ? await PlaceAsync(path, mode, cancellationToken).ConfigureAwait(false)
                : await FolderAsync(path, folderFile, cancellationToken).ConfigureAwait(false);
        }
        var storage = new StreamStorage(Sink);
        return (storage, await storage.LookAsync(path, mode, cancellationToken).ConfigureAwait(false));
    }

    /// <summary>The place of the file that opens a folder, which is new: of several files none can be replaced by one step.</summary>
    private async ValueTask<(IStorage Storage, StoragePlace Place)> FolderAsync(
        string path, string folderFile, CancellationToken cancellationToken)
    {
        if (!ImageLocator.Parse(path).IsFile)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{path}: an image that is a folder is made among files only", path);
        }
        (IStorage storage, StoragePlace folder) = await PlaceAsync(path, TargetMode.Replace, cancellationToken).ConfigureAwait(false);
        return folder.Present is null
            ? (storage, folder with
            {
                Locator = Path.Combine(folder.Locator, folderFile),
                Address = Path.Combine(folder.Address, folderFile),
                Mode = TargetMode.New,
            })
            : throw new DiskImageException(
                DiskImageErrorKind.AlreadyExists,
                $"{path}: exists already, and is not replaced by an image that is a folder: that would take more than one step. Remove it "
                    + $"first, or choose another name.",
                path);
    }

    private async ValueTask<(IStorage Storage, StoragePlace Place)> PlaceAsync(
        string path, TargetMode mode, CancellationToken cancellationToken)
    {
        ImageLocator locator = ImageLocator.Parse(path);
        string address = locator.Target;
        ProtocolDriver protocol = opener.Registry.Protocol(locator.Scheme);
        if (locator.IsFile)
        {
            protocol = opener.Registry.Owner(protocol, protocol.Bind(protocol.Parse(address)));
        }
        if (protocol.NeedsPermissionToWrite)
        {
            opener.Policy.RequireDeviceWrite(address);
        }
        return protocol is IStorage any && any.ForUser(SecretsBelow, opener.Warn) is var storage
            ? (storage, await storage.LookAsync(address, mode, cancellationToken).ConfigureAwait(false))
            : throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{path}: '{locator.Scheme}' cannot make new images", path);
    }
}
