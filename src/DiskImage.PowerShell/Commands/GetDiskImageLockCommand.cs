using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Locking;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageLock</c>: who has an image open, and what they do with it.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageLock", DefaultParameterSetName = nameof(Path))]
[OutputType(typeof(DiskImageLock))]
public sealed class GetDiskImageLockCommand : DiskImageCmdlet
{
    /// <summary>Images; wildcards are expanded.</summary>
    [Parameter(
        Mandatory = true, Position = 0, ParameterSetName = nameof(Path), ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("ImagePath", "FullName", "PSPath")]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Path { get; set; } = [];

    /// <summary>Images; nothing in the name is a wildcard.</summary>
    [Parameter(Mandatory = true, ParameterSetName = nameof(LiteralPath))]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach ((string path, bool isLiteral) in Path.Select(p => (p, false)).Concat(LiteralPath.Select(p => (p, true))))
        {
            Run(_ => RunItemAsync(path, async () =>
            {
                IReadOnlyList<string> images = await AskAsync(
                    () => isLiteral ? [SessionPath.Literal(SessionState.Path, path)] : SessionPath.Expand(SessionState.Path, path))
                    .ConfigureAwait(false);
                foreach (string image in images)
                {
                    await RunItemAsync(image, () => ShowAsync(image)).ConfigureAwait(false);
                }
            }));
        }
    }

    private async Task ShowAsync(string image)
    {
        ImageLocator locator = ImageLocator.Parse(image);
        if (!locator.IsFile)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{image}: only files of this machine are locked, and it is none.", image);
        }
        string file = locator.FullPath;
        if (Opener.IdentityOf(image) is null)
        {
            throw new DiskImageException(DiskImageErrorKind.NotFound, $"{file}: no such file", file);
        }
        foreach (ImageHolder holder in ImageHolder.Of(file))
        {
            await OutputAsync(DiskImageLock.Of(file, holder)).ConfigureAwait(false);
        }
    }
}
