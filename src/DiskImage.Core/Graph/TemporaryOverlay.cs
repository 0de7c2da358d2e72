using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>
/// A disk that takes what is written over another one, which it leaves as it is, and is gone when it is closed: QEMU's snapshot mode.
/// </summary>
internal static class TemporaryOverlay
{
    private const string Format = "qcow2", Storage = "file";

    /// <summary>Puts one over a disk, which is its own from then on; if that fails the disk stays the caller's.</summary>
    /// <exception cref="DiskImageException">There is no room for temporary files, or they may not be made.</exception>
    public static async ValueTask<OpenedDisk> OverAsync(DriverRegistry registry, OpenedDisk disk, CancellationToken cancellationToken)
    {
        FormatDriver format = registry.Format(Format);
        BlockNode file = ((ITemporaryStorage)registry.Protocol(Storage)).OpenTemporary($"temporary overlay of {disk.Node.Name}");
        try
        {
            // The name is never followed: the disk below is given.
            object options = ((ICreatable)format).CreateOptions.Bind(OptionSchema.Values(
                new Dictionary<string, object?>(StringComparer.Ordinal)
                {
                    ["size"] = disk.Node.Length, ["backing_file"] = "below", ["backing_fmt"] = registry.Formats[0].Name,
                }));
            var borrowed = new BorrowedNode(file, isReadOnly: false);
            await ((ICreatable)format).CreateAsync(new FormatCreateContext(borrowed, options), cancellationToken).ConfigureAwait(false);
            BlockNode overlay = await format.OpenAsync(
                new FormatOpenContext(
                    file,
                    format.OpenOptions.Defaults(),
                    (_, _, _) => new(disk.Node),
                    (name, _, _) => throw new InvalidOperationException(name)) { GivesBacking = true, Access = Access.Writing },
                cancellationToken).ConfigureAwait(false);
            return new OpenedDisk(overlay, format, WasProbed: false);
        }
        catch
        {
            await Closing.FailedAsync(file).ConfigureAwait(false);
            throw;
        }
    }
}
