using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Drops the bitmaps whose tables are broken or lie on something else; all of them where their directory cannot be read.</summary>
internal sealed class Qcow2BitmapMender(Qcow2RepairImage image)
{
    private Qcow2Header Header => image.Header;

    public async ValueTask RunAsync()
    {
        if (Header.Extension(Qcow2Extension.Bitmaps) is null)
        {
            return;
        }
        Qcow2Checker checker = await image.CountAsync().ConfigureAwait(false);
        IReadOnlySet<int> broken = checker.BrokenBitmaps;
        if (broken.Count == 0 && !checker.HasBrokenBitmapDirectory)
        {
            return;
        }
        byte[] directory = [];
        int count = 0;
        try
        {
            Qcow2BitmapDirectory found = await Qcow2BitmapDirectory.ReadAsync(
                image.File, Header, image.CancellationToken).ConfigureAwait(false);
            Qcow2BitmapEntry[] kept = [.. found.Entries.Where((_, number) => !broken.Contains(number))];
            (directory, count) = (Qcow2BitmapDirectory.ToBytes(kept), kept.Length);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
        {
            // Where one entry cannot be told from the next, none is kept.
        }
        long place = image.FileEnd;
        if (count > 0)
        {
            await image.File.WriteAsync(place, directory, image.CancellationToken).ConfigureAwait(false);
            await image.File.FlushAsync(image.CancellationToken).ConfigureAwait(false);
        }
        Qcow2Extension[] now = count == 0 ? [] : [Qcow2BitmapDirectory.ToExtension(count, place, directory.Length)];
        await image.WriteHeaderAsync(Header with
        {
            Extensions = [.. Header.Extensions.Where(e => e.Type != Qcow2Extension.Bitmaps), .. now],
            AutoClear = count == 0 ? Header.AutoClear & ~Qcow2AutoClear.Bitmaps : Header.AutoClear,
        }).ConfigureAwait(false);
    }
}
