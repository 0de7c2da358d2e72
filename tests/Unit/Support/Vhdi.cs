namespace DiskImage.Tests.Support;

/// <summary>A theory that mounts a VHD or VHDX with libyal's vhdimount; skipped, with the reason, where that cannot be.</summary>
public sealed class VhdiTheoryAttribute : TheoryAttribute
{
    public VhdiTheoryAttribute() => Skip = Vhdi.WhyNot();
}

/// <summary>A fact that mounts a VHD or VHDX with libyal's vhdimount; skipped, with the reason, where that cannot be.</summary>
public sealed class VhdiFactAttribute : FactAttribute
{
    public VhdiFactAttribute() => Skip = Vhdi.WhyNot();
}

/// <summary>libvhdi as a reader of whole disks, chains included.</summary>
internal static class Vhdi
{
    /// <summary>What a mount lacks here, if anything: the one list of its needs.</summary>
    public static string? WhyNot()
        => Programs.WhyMissing("vhdimount") ?? Programs.WhyMissing("vhdiinfo") ?? Programs.WhyMissing("fusermount")
            ?? (CanOpenFuse() ? null : "/dev/fuse cannot be opened here");

    /// <summary>What the disk reads as, its parents taken from the same folder.</summary>
    public static async Task<byte[]> ReadAsync(string path, string mountPoint)
    {
        Directory.CreateDirectory(mountPoint);
        // the mount stays behind and would hold the pipes
        await Programs.RunAsync("sh", "-c", "vhdimount \"$0\" \"$1\" >/dev/null 2>&1 </dev/null", path, mountPoint);
        try
        {
            string last = Directory.GetFiles(mountPoint).OrderBy(f => f.Length).ThenBy(f => f, StringComparer.Ordinal).Last();
            return await File.ReadAllBytesAsync(last);
        }
        finally
        {
            await Programs.RunAsync("fusermount", "-u", mountPoint);
        }
    }

    private static bool CanOpenFuse()
    {
        try
        {
            using FileStream fuse = File.Open("/dev/fuse", FileMode.Open, FileAccess.ReadWrite);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
