using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet about the snapshots inside images.</summary>
public abstract class SnapshotCmdlet : OpenImageCmdlet
{
    /// <summary>The ability, or an error that names the format.</summary>
    private protected static ISnapshots Snapshots(OpenedImage image) => image.Require<ISnapshots>("keep no snapshots");

    /// <summary>
    /// The snapshots of an image, oldest first, with the image's full path and the files that a change of it writes to.
    /// The image is closed again.
    /// </summary>
    private protected Task<(string Path, string Files, IReadOnlyList<DiskSnapshot> Snapshots)> ListAsync(
        string path, CancellationToken cancellationToken)
        => LookAsync(
            path,
            async image => (
                image.Path, WrittenFiles.Of(image), await Snapshots(image).GetSnapshotsAsync(cancellationToken).ConfigureAwait(false)),
            cancellationToken);

    /// <summary>The snapshots that names, identifiers or name patterns stand for.</summary>
    /// <param name="path">The image, for the error.</param>
    /// <param name="snapshots">Its snapshots.</param>
    /// <param name="names">Names, identifiers or patterns.</param>
    /// <param name="id">An identifier that must fit, too.</param>
    /// <param name="firstOfName">True if a name without wildcards stands for the first snapshot that has it, false for all of them.</param>
    /// <exception cref="DiskImageException">NotFound: one without wildcards stands for none.</exception>
    private protected static IReadOnlyList<DiskSnapshot> Select(
        string path, IReadOnlyList<DiskSnapshot> snapshots, string[] names, string? id = null, bool firstOfName = false)
    {
        var chosen = new HashSet<DiskSnapshot>(ReferenceEqualityComparer.Instance);
        foreach (string name in names)
        {
            DiskSnapshot[] found = [.. Find(snapshots, name).Where(s => id is null || s.Id.Equals(id, StringComparison.Ordinal))];
            if (found.Length == 0 && (id is not null || !WildcardPattern.ContainsWildcardCharacters(name)))
            {
                string known = snapshots.Count == 0
                    ? "It has none."
                    : $"It has: {string.Join(", ", snapshots.Take(20).Select(s => s.Name))}.";
                string which = id is null ? "" : $" with identifier {id}";
                throw new DiskImageException(
                    DiskImageErrorKind.NotFound, $"{path}: has no snapshot '{WildcardPattern.Unescape(name)}'{which}. {known}", path);
            }
            bool isName = found.Length > 0 && found[0].Name.Equals(name, StringComparison.Ordinal);
            chosen.UnionWith(firstOfName && isName ? found[..1] : found);
        }
        return [.. snapshots.Where(chosen.Contains)];
    }

    private static IEnumerable<DiskSnapshot> Find(IReadOnlyList<DiskSnapshot> snapshots, string name)
    {
        // A snapshot whose name has wildcard characters is found by its name.
        DiskSnapshot[] named = [.. snapshots.Where(s => s.Name.Equals(name, StringComparison.Ordinal))];
        if (named.Length > 0)
        {
            return named;
        }
        var pattern = WildcardPattern.Get(name, WildcardOptions.None);
        named = [.. snapshots.Where(s => pattern.IsMatch(s.Name))];
        return named.Length > 0 ? named : snapshots.Where(s => s.Id.Equals(name, StringComparison.Ordinal));
    }
}
