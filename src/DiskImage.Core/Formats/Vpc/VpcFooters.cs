using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// The footer at a file's end and the copy that dynamic disks have at offset 0. The end is the one that counts; the copy stands in when
/// it is damaged or missing (a disk whose last block was being added when its program died). Spec: "Hard Disk Footer Format".
/// </summary>
/// <param name="End">The footer at the end, if it is sound.</param>
/// <param name="EndLength">Its bytes: 512, or 511 from very old programs; 0 if there is none.</param>
/// <param name="Copy">The copy at offset 0, if it is sound and belongs to a dynamic disk.</param>
/// <param name="IsSealed">False if the checksums are wrong and the rest was believed, for a repair.</param>
internal sealed record VpcFooters(VpcFooter? End, int EndLength, VpcFooter? Copy, bool IsSealed = true)
{
    /// <summary>The one to go by.</summary>
    public VpcFooter Best => End ?? Copy!;

    /// <summary>True if the copy says the same as the end.</summary>
    public bool IsCopyEqual => Copy is { } copy && copy.ToBytes().AsSpan().SequenceEqual(Best.ToBytes());

    /// <summary>Where the footer at the end begins; the end of the file if there is none.</summary>
    public long EndOffset(long fileLength) => fileLength - EndLength;

    /// <summary>Reads both.</summary>
    /// <param name="file">The file.</param>
    /// <param name="forRepair">True to believe footers under wrong checksums if all else about them fits.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">InvalidFormat or Corrupt: neither is sound.</exception>
    public static async ValueTask<VpcFooters> ReadAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        byte[] end = new byte[VpcFooter.Length];
        byte[] start = new byte[VpcFooter.Length];
        if (file.Length < VpcFooter.ShortLength)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{file.Name}: {file.Length:#,0} bytes are too few for a VHD, which ends in a footer of 512",
                file.Name);
        }
        int tail = (int)Math.Min(VpcFooter.Length, file.Length);
        await file.ReadAsync(file.Length - tail, end.AsMemory(VpcFooter.Length - tail), cancellationToken).ConfigureAwait(false);
        await file.ReadPaddedAsync(0, start, cancellationToken).ConfigureAwait(false);
        var footers = Parse(end, start);
        if (footers is { End: null, Copy: null })
        {
            footers = Unsealed(end, start, file.Length) is { } believed
                ? forRepair ? believed : throw Neither(file, end, start, isRepairable: true)
                : throw Neither(file, end, start, isRepairable: false);
        }
        footers.Best.RequireKnown(file.Name);
        return footers;
    }

    private static VpcFooters Parse(byte[] end, byte[] start)
    {
        VpcFooter? copy = VpcFooter.Parse(start);
        copy = copy is { IsDynamic: true } ? copy : null;
        (VpcFooter? found, int length) = ParseEnd(end);
        return new VpcFooters(found, length, copy);
    }

    /// <summary>The footer in a file's last 512 bytes, and how long it is.</summary>
    public static (VpcFooter? Footer, int Length) ParseEnd(ReadOnlySpan<byte> end)
    {
        if (end.Length < VpcFooter.Length)
        {
            return (null, 0);
        }
        if (VpcFooter.Parse(end) is { } whole)
        {
            return (whole, VpcFooter.Length);
        }
        byte[] padded = new byte[VpcFooter.Length];
        end[1..].CopyTo(padded);
        return VpcFooter.Parse(padded) is { } cut ? (cut, VpcFooter.ShortLength) : (null, 0);
    }

    /// <summary>
    /// Footers of which only the checksums are wrong: those of a dynamic disk say the same, a fixed disk is as long as its file, and no
    /// field contradicts the specification. Null if there are none.
    /// </summary>
    private static VpcFooters? Unsealed(byte[] end, byte[] start, long fileLength)
    {
        if (VpcFooter.ParseUnsealed(end) is not { IsPlausible: true } footer)
        {
            return null;
        }
        bool fits = footer.IsDynamic
            ? VpcFooter.ParseUnsealed(start) is { } copy && copy.ToBytes().AsSpan().SequenceEqual(footer.ToBytes())
            : footer.CurrentSize == fileLength - VpcFooter.Length && VpcSize.Of(footer, VpcSizeCalculation.Auto) <= footer.CurrentSize;
        return fits ? new VpcFooters(footer, VpcFooter.Length, footer.IsDynamic ? footer : null, IsSealed: false) : null;
    }

    private static DiskImageException Neither(BlockNode file, byte[] end, byte[] start, bool isRepairable)
    {
        (byte[] bytes, long offset) = VpcFooter.HasCookie(end) ? (end, file.Length - VpcFooter.Length) : (start, 0);
        if (!VpcFooter.HasCookie(bytes))
        {
            return new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{file.Name}: no VHD: the footer's cookie 'conectix' is neither at the end nor at offset 0",
                file.Name);
        }
        (uint found, uint right) = VpcFooter.Checksums(bytes);
        Wording rest = isRepairable ? (Wording)$". All else about it fits: {new Remedy(RemedyKind.Repair)} writes the checksums anew." : "";
        return new DiskImageException(
            DiskImageErrorKind.Corrupt,
            found == right
                ? (Wording)($"{file.Name}: the footer at offset {offset:#,0} is of a fixed disk or has a size out of range, and no footer "
                    + $"is at the end. The file was cut off or extended.")
                : (Wording)($"{file.Name}: the footer at offset {offset:#,0} has the checksum 0x{found:X8} instead of "
                    + $"0x{right:X8}, and there is no sound copy{rest}"),
            file.Name,
            offset);
    }
}
