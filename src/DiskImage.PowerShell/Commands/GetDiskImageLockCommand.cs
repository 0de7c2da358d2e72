using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Locking;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageLock</c>: who has an image open, and what they do with it.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageLock", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageLock))]
public sealed class GetDiskImageLockCommand : ImagePathCmdlet
{
    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        ImageLocator locator = ImageLocator.Parse(path);
        if (!locator.IsFile)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{path}: only files of this machine are locked, and it is none.", path);
        }
        string file = locator.FullPath;
        if (Opener.IdentityOf(path) is null)
        {
            throw new DiskImageException(DiskImageErrorKind.NotFound, $"{file}: no such file", file);
        }
        foreach (ImageHolder holder in ImageHolder.Of(file))
        {
            await OutputAsync(DiskImageLock.Of(file, holder)).ConfigureAwait(false);
        }
    }
}
