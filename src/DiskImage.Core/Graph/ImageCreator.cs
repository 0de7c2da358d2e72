using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>Makes new images. Until it is complete a new image bears the name <c>NAME.incomplete</c>; then it takes its place in one step.</summary>
public sealed class ImageCreator(ImageOpener opener)
{
    /// <summary>The ending of an image that is being made, or was left by a process that died.</summary>
    public const string IncompleteSuffix = ".incomplete";

    /// <summary>Starts a new image and opens it for writing, on its backing image if the options name one.</summary>
    /// <param name="path">Where it is to be.</param>
    /// <param name="format">Its format.</param>
    /// <param name="options">The record of the format's create options.</param>
    /// <param name="replace">True to replace an existing image, once the new one is complete.</param>
    /// <param name="openOptions">Open options for writing to it.</param>
    /// <param name="cancellationToken">Stops it; nothing is left behind.</param>
    /// <exception cref="DiskImageException">AlreadyExists; Unsupported if the format cannot be made; what the format says.</exception>
    public async ValueTask<NewImage> CreateAsync(
        string path, FormatDriver format, object options, bool replace, object? openOptions, CancellationToken cancellationToken)
    {
        ICreatable creatable = format as ICreatable
            ?? throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{path}: images of format '{format.Name}' can be read but not made", path);
        (IStorage storage, string target) = FreeTarget(path, replace);
        string incomplete = target + IncompleteSuffix;
        if (storage.IsReplaceable(incomplete))
        {
            await RemoveLeftoverAsync(storage, incomplete, cancellationToken).ConfigureAwait(false);
        }

        var companions = new List<string>();
        var file = new DeferredFlushNode(await storage.CreateAsync(incomplete, TraitsOf(creatable, options), cancellationToken).ConfigureAwait(false), target);
        try
        {
            await CreateOnAsync(file, target, creatable, options, companions, cancellationToken).ConfigureAwait(false);
            BlockNode node = await opener.OpenOnAsync(file, target, format, openOptions, cancellationToken).ConfigureAwait(false);
            if (node is IUnfinished unfinished)
            {
                await unfinished.SetUnfinishedAsync(true, cancellationToken).ConfigureAwait(false);
            }
            return new NewImage(node, file, storage, [incomplete, .. companions], target, replace);
        }
        catch
        {
            await file.DisposeAsync().ConfigureAwait(false);
            foreach (string made in companions.Prepend(incomplete))
            {
                storage.Remove(made);
            }
            throw;
        }
    }

    private async ValueTask CreateOnAsync(
        BlockNode file, string target, ICreatable creatable, object options, List<string> companions, CancellationToken cancellationToken)
    {
        async ValueTask<BlockNode> OpenCompanionAsync(string name, bool create, CancellationToken token)
        {
            ImageLocator locator = opener.Policy.Admit(name, target);
            string path = Path.GetFullPath(locator.Address);
            if (!create)
            {
                return await opener.OpenFileAsync(locator, writable: true, token).ConfigureAwait(false);
            }
            (IStorage storage, _) = FreeTarget(path, replace: false);
            BlockNode companion = await storage.CreateAsync(path, TraitsOf(creatable, options), token).ConfigureAwait(false);
            companions.Add(path);
            return companion;
        }

        OpenedImage? backing = creatable.RecordsBackingIdentity && options is ICreateOptions { BackingFile: { } name } named
            ? await opener.OpenReferenceAsync(target, name, named.BackingFormat, [target], cancellationToken).ConfigureAwait(false)
            : null;
        try
        {
            await creatable.CreateAsync(new FormatCreateContext(file, options, backing?.Node, OpenCompanionAsync), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            if (backing is not null)
            {
                await backing.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>Throws what <see cref="CreateAsync"/> would throw if an image cannot be made there. Changes nothing.</summary>
    public void RequireFree(string path, bool replace) => _ = FreeTarget(path, replace);

    internal static void CheckTarget(IStorage storage, string target, bool replace)
    {
        if (!storage.Exists(target))
        {
            return;
        }
        if (!replace)
        {
            throw new DiskImageException(DiskImageErrorKind.AlreadyExists, $"{target}: already exists. Replace it with -Force, or choose another name.", target);
        }
        if (!storage.IsReplaceable(target))
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{target}: is not a regular file, so it cannot be replaced by an image", target);
        }
    }

    private static StorageTraits TraitsOf(ICreatable creatable, object options)
        => new(creatable.AllowsSparseFile, options is ICreateOptions { NoCow: true });

    private (IStorage Storage, string Target) FreeTarget(string path, bool replace)
    {
        ImageLocator locator = ImageLocator.Parse(path);
        if (opener.Registry.Protocol(locator.Scheme) is not IStorage storage)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{path}: '{locator.Scheme}' cannot make new images", path);
        }
        string target = Path.GetFullPath(locator.Address);
        CheckTarget(storage, target, replace);
        return (storage, target);
    }

    /// <summary>A leftover may belong to somebody who is still writing it: only one that can be opened for writing is removed.</summary>
    private async ValueTask RemoveLeftoverAsync(IStorage storage, string incomplete, CancellationToken cancellationToken)
    {
        BlockNode leftover = await opener.OpenFileAsync(ImageLocator.Parse(incomplete), writable: true, cancellationToken).ConfigureAwait(false);
        await leftover.DisposeAsync().ConfigureAwait(false);
        storage.Remove(incomplete);
    }
}

/// <summary>An image that is being made. Disposed before <see cref="CompleteAsync(bool, CancellationToken)"/>, it is removed without a trace.</summary>
public sealed class NewImage : IAsyncDisposable
{
    private readonly DeferredFlushNode _file;
    private readonly IStorage _storage;
    private readonly IReadOnlyList<string> _made; // the unfinished image first
    private readonly bool _replace;
    private bool _isDone;

    internal NewImage(BlockNode node, DeferredFlushNode file, IStorage storage, IReadOnlyList<string> made, string path, bool replace)
        => (Node, _file, _storage, _made, Path, _replace) = (node, file, storage, made, path, replace);

    /// <summary>The disk, open for writing.</summary>
    public BlockNode Node { get; }

    /// <summary>The full path it will have.</summary>
    public string Path { get; }

    /// <inheritdoc cref="CompleteAsync(bool, Func{string, ValueTask}, CancellationToken)"/>
    public ValueTask CompleteAsync(bool durable, CancellationToken cancellationToken) => CompleteAsync(durable, inspect: null, cancellationToken);

    /// <summary>Closes the image and gives it its name; an image of that name is replaced in the same step.</summary>
    /// <param name="durable">True to return only when all of it would survive a power cut.</param>
    /// <param name="inspect">Gets the path of the closed image before it has its name; what it throws keeps it from getting it.</param>
    /// <param name="cancellationToken">Stops it before the last step.</param>
    public async ValueTask CompleteAsync(bool durable, Func<string, ValueTask>? inspect, CancellationToken cancellationToken)
    {
        if (Node is IUnfinished unfinished)
        {
            await unfinished.SetUnfinishedAsync(false, cancellationToken).ConfigureAwait(false);
        }
        if (durable)
        {
            _file.IsDeferring = false;
            await Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        cancellationToken.ThrowIfCancellationRequested();
        await Node.DisposeAsync().ConfigureAwait(false);
        if (inspect is not null)
        {
            await inspect(_made[0]).ConfigureAwait(false);
        }
        ImageCreator.CheckTarget(_storage, Path, _replace);
        _storage.Replace(_made[0], Path);
        _isDone = true;
    }

    /// <summary>Removes the image unless it is complete.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_isDone)
        {
            return;
        }
        _isDone = true;
        try
        {
            await Node.DisposeAsync().ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // What could not be written back is about to be removed, and the failure that led here is already on its way.
        }
        foreach (string made in _made)
        {
            _storage.Remove(made);
        }
    }
}

/// <summary>
/// Holds flushes back while an image is being made: until it bears its name nobody relies on it, so write barriers inside it
/// would cost time and protect nothing.
/// </summary>
/// <param name="child">The file.</param>
/// <param name="name">The path it will have: errors speak of what the user asked for, and the file is gone by then.</param>
internal sealed class DeferredFlushNode(BlockNode child, string name) : FilterNode(child)
{
    public override string Name => name;

    /// <summary>True while flushes are held back.</summary>
    public bool IsDeferring { get; set; } = true;

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => IsDeferring ? default : base.FlushCoreAsync(cancellationToken);
}
