using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img rebase</c>.</summary>
internal sealed class RebaseCommand : ImgCommand
{
    public override string Name => "rebase";

    public override string Summary => "Put an image on another backing image, or on none";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        CacheOption,
        SourceCacheOption,
        new('b', "backing", "FILE", "the new backing image; empty for none"),
        new('F', "backing-format", "FMT", "its format"),
        new('u', "backing-unsafe", null, "change the name only"),
        new('c', "compress", null, "store compressed what is taken over"),
        ForceShareOption,
        ProgressOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string given = OneImage();
        bool isUnsafe = Arguments.Has("backing-unsafe");
        string named = Arguments.Last("backing") ?? "";
        string? format = Named(Arguments.Last("backing-format"), "");
        _ = Cache("source-cache", CacheMode.Writeback);
        FrontEnd front = Front.With(Cache("cache", CacheMode.Writeback));
        OpenRequest request = Request(given, Arguments.Last("format"));
        OpenedImage look = await OpenAsync(
            front, given, request with { WithBacking = !isUnsafe }, cancellationToken).ConfigureAwait(false);
        string path;
        await using (look.ConfigureAwait(false))
        {
            path = look.Path;
            if (look.Node.As<IRebasable>() is null)
            {
                throw new CommandException(
                    $"Could not change the backing file to '{Printable.Of(named)}': "
                        + $"images of format '{look.Format.Name}' {RebaseOperation.Lack}");
            }
            if (Arguments.Has("compress") && look.Node.As<ICompressedWritable>() is null)
            {
                throw new CommandException("Compression not supported for this file format");
            }
        }
        if (named.Length > 0 && format is null)
        {
            throw new CommandException(
                $"Could not change the backing file to '{Printable.Of(named)}': backing format must be specified");
        }
        await RebaseAsync(front, request, path, named, format, isUnsafe, cancellationToken).ConfigureAwait(false);
        return 0;
    }

    private async Task RebaseAsync(
        FrontEnd front,
        OpenRequest request,
        string path,
        string named,
        string? format,
        bool isUnsafe,
        CancellationToken cancellationToken)
    {
        BackingReference? backing = null;
        OpenedImage? below = null;
        try
        {
            if (named.Length > 0)
            {
                (backing, below) = await OpenBackingAsync(front, path, named, format!, isUnsafe, cancellationToken).ConfigureAwait(false);
            }
            var operation = new RebaseOperation(front, request, isUnsafe, Arguments.Has("compress"));
            await operation.RunAsync(backing, below?.Node, _ => default, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            if (below is not null)
            {
                await below.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>The new backing image, which must not stand on the image. An unsafe change takes one that is not there.</summary>
    private static async Task<(BackingReference Name, OpenedImage? Open)> OpenBackingAsync(
        FrontEnd front, string path, string named, string format, bool isUnsafe, CancellationToken cancellationToken)
    {
        try
        {
            ImageOpener opener = front.Opener.NamingBacking(named, path);
            BackingReference backing = await BackingReference.ResolveAsync(
                opener, path, named, format, front.Io.Folder, cancellationToken).ConfigureAwait(false);
            ImageLocator locator = opener.Policy.Admit(named, path);
            OpenedImage open = await opener.OpenAsync(
                new OpenRequest(locator.IsFile && !locator.IsDescription ? locator.Address : named)
                {
                    Format = format, Secrets = front.Secrets,
                },
                cancellationToken).ConfigureAwait(false);
            return (backing, open);
        }
        catch (DiskImageException) when (isUnsafe) // only the name is changed, whatever it leads to: QEMU does not look
        {
            return (BackingReference.Unseen(named, FrontEnd.Registry.Format(format).Name), null);
        }
        catch (DiskImageException e)
        {
            throw new CommandException($"Could not open new backing file '{Printable.Of(named)}': {RemedyOptions.Say(e)}");
        }
    }
}
