using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Set-DiskImageBacking</c>: puts an image on another backing image, or on none.</summary>
[Cmdlet(VerbsCommon.Set, "DiskImageBacking", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class SetDiskImageBackingCommand : OpenImageCmdlet
{
    /// <summary>The new backing image, as it is to be named in the image: relative to the image's folder. Empty for none.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [Alias("ParentPath", "BackingFile")]
    [AllowEmptyString]
    public string BackingPath { get; set; } = "";

    /// <summary>Its format; probed and recorded if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? BackingFormat { get; set; }

    /// <summary>Changes the name only: for a backing image that was moved or converted and reads the same.</summary>
    [Parameter]
    public SwitchParameter Unsafe { get; set; }

    /// <summary>Stores what has to be copied into the image compressed.</summary>
    [Parameter]
    public SwitchParameter Compress { get; set; }

    /// <summary>Returns the image as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string name, string files, string? present) = await LookAsync(
            path,
            image =>
            {
                _ = image.Require<IRebasable>(RebaseOperation.Lack);
                if (Compress)
                {
                    _ = image.Require<ICompressedWritable>("store nothing compressed");
                }
                return new ValueTask<(string, string, string?)>((image.Path, WrittenFiles.Of(image), image.Describe().BackingFile));
            },
            cancellationToken,
            beforeWriting: true).ConfigureAwait(false);
        string named = await AskAsync(() => SessionPath.Backing(SessionState, BackingPath)).ConfigureAwait(false);
        BackingReference? backing = named.Length == 0 ? null : await ResolveAsync(name, named, cancellationToken).ConfigureAwait(false);
        string action = $"{(Unsafe ? "Rename the backing image, contents unchecked, from" : "Rebase from")} "
            + $"{present ?? "none"} to {backing?.Name ?? "none"}";
        if (!await ConfirmAsync(files, action).ConfigureAwait(false))
        {
            return;
        }
        OpenedImage? below = backing is null ? null : await OpenBackingAsync(name, backing, cancellationToken).ConfigureAwait(false);
        try
        {
            var operation = new RebaseOperation(this, Request(path), Unsafe, Compress);
            await operation.RunAsync(backing, below?.Node, disk => new(WarnOfAsync(disk)), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            if (below is not null)
            {
                await below.DisposeAsync().ConfigureAwait(false);
            }
        }
        if (PassThru)
        {
            await DescribeAsync(path, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// The new backing image, which must not stand on the image. An unsafe change takes one that is not there, if its format is told.
    /// </summary>
    private async Task<BackingReference> ResolveAsync(string image, string named, CancellationToken cancellationToken)
    {
        try
        {
            BackingReference backing = await BackingReference.ResolveAsync(
                Opener.NamingBacking(named, image), image, named, BackingFormat, Folder, cancellationToken).ConfigureAwait(false);
            await VerboseAsync(
                $"{image}: is to stand on {backing.Name} ({backing.Format}{(backing.WasProbed ? ", recognised" : "")}), "
                    + $"{ReadableSize.WithBytes(backing.Length)}").ConfigureAwait(false);
            return backing;
        }
        catch (DiskImageException e) when (Unsafe && e.Kind == DiskImageErrorKind.NotFound)
        {
            return BackingFormat is { } format
                ? BackingReference.Unseen(named, DiskImageCmdlet.Registry.Format(format).Name)
                : throw new DiskImageException(
                    e.Kind, $"{e.Wording}; to name it all the same, say its format with -BackingFormat", e.Path, cause: e);
        }
    }

    private async Task<OpenedImage?> OpenBackingAsync(string image, BackingReference backing, CancellationToken cancellationToken)
    {
        try
        {
            ImageOpener opener = Opener.NamingBacking(backing.Name, image);
            string locator = opener.Policy.Admit(backing.Name, image) is { IsFile: true } file ? file.Address : backing.Name;
            OpenedImage opened = await opener.OpenAsync(
                new OpenRequest(locator) { Format = backing.Format }, cancellationToken).ConfigureAwait(false);
            try
            {
                BackingReference.RequireOther(Opener, image, backing.Name, opened);
                return opened;
            }
            catch
            {
                await opened.DisposeAsync().ConfigureAwait(false);
                throw;
            }
        }
        catch (DiskImageException e) when (Unsafe && e.Kind == DiskImageErrorKind.NotFound)
        {
            return null;
        }
    }
}
