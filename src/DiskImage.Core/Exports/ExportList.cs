using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Exports;

/// <summary>An export that a server says it has.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Description">What the server says of it.</param>
/// <param name="Uri">What leads to it.</param>
/// <param name="Length">Its bytes.</param>
/// <param name="IsReadOnly">Nobody may change it.</param>
/// <param name="AllowsSeveralConnections">Several connections see what each of them writes.</param>
/// <param name="Contexts">What block status can tell of.</param>
public sealed record ListedExport(
    string Name, string? Description, string Uri, long Length, bool IsReadOnly, bool AllowsSeveralConnections,
    IReadOnlyList<string> Contexts);

/// <summary>Asks servers what they have.</summary>
public static class ExportList
{
    /// <summary>The exports of a server.</summary>
    /// <param name="uri">The server: what would lead to one of its exports; which one does not matter.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">InvalidOption: it names no server; what the server says.</exception>
    public static async ValueTask<IReadOnlyList<ListedExport>> OfAsync(string uri, CancellationToken cancellationToken)
    {
        var driver = new NbdDriver();
        var options = (NbdOptions)driver.Bind(driver.Parse(uri));
        IReadOnlyList<NbdExportInfo> exports = await NbdDriver.ListAsync(options, cancellationToken).ConfigureAwait(false);
        return
        [
            .. exports.Select(e => new ListedExport(
                e.Name ?? "",
                e.Description,
                (options with { Export = e.Name ?? "" }).Uri,
                e.Length,
                e.Can(NbdExportFlags.ReadOnly),
                e.Can(NbdExportFlags.CanMultiConnect),
                [.. e.Contexts.Keys])),
        ];
    }
}
