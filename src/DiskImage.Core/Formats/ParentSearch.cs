using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats;

/// <summary>
/// The search for the parent that a differencing disk records under several names. A name that leads nowhere, is not admitted or cannot be
/// opened, or leads to another disk gives way to the next; if none is right, the error tells the most that was learnt.
/// </summary>
/// <param name="imageName">The differencing disk.</param>
/// <param name="format">The format that a parent has.</param>
/// <param name="open">Opens a name.</param>
/// <param name="folders">Where files of the names' last parts are looked for as well, after the names themselves; null for nowhere.</param>
internal sealed class ParentSearch(string imageName, string format, ReferenceOpener open, IReadOnlyList<string>? folders = null)
{
    private readonly List<string> _tried = [];
    private DiskImageException? _missing, _refused, _mismatch;
    private bool _isRefusedFirst; // the name that was meant first is there perhaps, and may not be opened

    /// <summary>Opens the first name that leads to the parent.</summary>
    /// <param name="names">The names to try, in order.</param>
    /// <param name="mismatch">The error that says why a disk is not the parent; null if it is.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <returns>The parent and its name; null if there is no name at all.</returns>
    /// <exception cref="DiskImageException">Corrupt: only other disks were found; NotFound, with all that was tried; Refused; what
    /// opening says.</exception>
    public async ValueTask<(BlockNode Parent, string Name)?> OpenAsync(
        IEnumerable<string> names, Func<BlockNode, DiskImageException?> mismatch, CancellationToken cancellationToken)
    {
        foreach (string name in Everywhere(names))
        {
            _tried.Add(WindowsPath.Shown(name));
            if (await TryOpenAsync(name, cancellationToken).ConfigureAwait(false) is not { } parent)
            {
                continue;
            }
            if (mismatch(parent) is not { } wrong)
            {
                return (parent, name);
            }
            _mismatch ??= wrong;
            await parent.DisposeAsync().ConfigureAwait(false);
        }
        return _tried.Count == 0 ? null
            : throw (_mismatch
            ?? (_missing is null || _isRefusedFirst ? _refused! : ParentMismatch.Missing(imageName, _tried, _missing, _refused)));
    }

    private IEnumerable<string> Everywhere(IEnumerable<string> names)
    {
        var files = new List<string>();
        foreach (string name in names)
        {
            yield return name;
            files.Add(Path.GetFileName(name));
        }
        foreach (string file in files.Where(f => f is not ("" or "." or "..")).Distinct(StringComparer.Ordinal))
        {
            foreach (string folder in folders ?? [])
            {
                yield return Path.Combine(folder, file);
            }
        }
    }

    private async ValueTask<BlockNode?> TryOpenAsync(string name, CancellationToken cancellationToken)
    {
        try
        {
            return await open(name, format, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind is DiskImageErrorKind.NotFound or DiskImageErrorKind.InvalidOption)
        {
            _missing ??= e; // the first name is the one that was meant
        }
        catch (DiskImageException e) when (e.Kind is DiskImageErrorKind.Refused or DiskImageErrorKind.AccessDenied or DiskImageErrorKind.Io)
        {
            _refused ??= e;
            _isRefusedFirst |= _missing is null;
        }
        catch (DiskImageException e) when (e.Kind is DiskImageErrorKind.InvalidFormat or DiskImageErrorKind.Corrupt)
        {
            _mismatch ??= e;
        }
        return null;
    }
}
