using System.Diagnostics;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.VirtualFat;

/// <summary>Folders as disks, and the programs that judge them: fsck.fat of dosfstools, and mtools.</summary>
internal static class FatTools
{
    /// <summary>Byte of a hard disk where its volume begins.</summary>
    public const int VolumeAt = 1 << 20;

    private static readonly string s_path = $"{Environment.GetEnvironmentVariable("PATH")}:/usr/sbin:/sbin";

    /// <summary>True if the judges are installed.</summary>
    public static bool AreThere { get; } = Array.TrueForAll(
        ["fsck.fat", "mcopy", "mdel"], n => s_path.Split(':').Any(d => File.Exists(Path.Combine(d, n))));

    /// <summary>Runs a program, which must succeed unless <paramref name="mayFail"/>; its output.</summary>
    public static string Run(string program, IEnumerable<string> arguments, bool mayFail = false)
    {
        string found = s_path.Split(':').Select(d => Path.Combine(d, program)).First(File.Exists);
        var start = new ProcessStartInfo(found, arguments)
        {
            UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true,
        };
        start.Environment["MTOOLS_SKIP_CHECK"] = "1";
        start.Environment["LC_ALL"] = "C.UTF-8";
        start.Environment["TZ"] = "UTC";
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        output += errors.Result;
        Assert.True(mayFail || process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {process.ExitCode}\n{output}");
        return output;
    }

    /// <summary>An image for mtools.</summary>
    public static string At(string image, bool isFloppy) => isFloppy ? image : $"{image}@@{VolumeAt}";

    /// <summary>Has fsck.fat look at the volume, which must be faultless.</summary>
    public static void Check(string image, bool isFloppy)
    {
        string volume = image;
        if (!isFloppy)
        {
            volume = $"{image}.volume";
            using FileStream from = File.OpenRead(image), to = File.Create(volume);
            byte[] start = new byte[512];
            from.ReadExactly(start);
            long sectors = BitConverter.ToUInt32(start, 446 + 12);
            from.Position = VolumeAt;
            Span<byte> buffer = new byte[1 << 16];
            for (long left = sectors * 512; left > 0;)
            {
                int count = from.Read(buffer[..(int)Math.Min(buffer.Length, left)]);
                Assert.NotEqual(0, count);
                if (buffer[..count].ContainsAnyExcept((byte)0))
                {
                    to.Write(buffer[..count]);
                }
                else
                {
                    to.Position += count;
                }
                left -= count;
            }
            to.SetLength(sectors * 512);
        }
        string said = Run("fsck.fat", ["-n", "-v", volume]);
        Assert.DoesNotContain("differences", said, StringComparison.Ordinal);
        if (!isFloppy)
        {
            File.Delete(volume);
        }
    }

    /// <summary>Copies all files of the volume out and compares them with a folder.</summary>
    public static void Compare(string image, bool isFloppy, string folder, string into)
    {
        _ = Directory.CreateDirectory(into);
        if (Directory.EnumerateFileSystemEntries(folder).Any())
        {
            _ = Run("mcopy", ["-s", "-Q", "-m", "-i", At(image, isFloppy), "::/*", into]);
        }
        // mtools shows two underscores for what lies beyond the first plane.
        string[] expected = [.. Listing(folder).Select(l => l.Replace("😀", "__", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
        Assert.Equal(expected, Listing(into));
    }

    /// <summary>Names and contents below a folder, a line each.</summary>
    public static string[] Listing(string folder) =>
    [
        .. Directory.EnumerateFileSystemEntries(folder, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0 })
            .Select(p => $"{Path.GetRelativePath(folder, p)} {(Directory.Exists(p) ? "folder" : Digest(p))}")
            .Order(StringComparer.Ordinal),
    ];

    /// <summary>Opens a folder and writes all of it to a raw file.</summary>
    public static async Task SaveAsync(string locator, string image)
    {
        await using BlockNode node = await Images.OpenAsync(locator);
        await SaveAsync(node, image);
    }

    /// <summary>Writes all of a node to a raw file, with holes.</summary>
    public static async Task SaveAsync(BlockNode node, string image)
    {
        await using FileStream file = File.Create(image);
        file.SetLength(node.Length);
        byte[] buffer = new byte[1 << 20];
        for (long at = 0; at < node.Length;)
        {
            BlockExtent extent = await node.GetExtentAsync(at, Math.Min(buffer.Length, node.Length - at));
            Memory<byte> part = buffer.AsMemory(0, (int)extent.Length);
            await node.ReadAsync(at, part);
            if (extent.IsZero)
            {
                Assert.False(part.Span.ContainsAnyExcept((byte)0), $"zeroes at {at}");
            }
            else
            {
                file.Position = at;
                await file.WriteAsync(part);
            }
            at += extent.Length;
        }
    }

    /// <summary>The text of a disk made of a folder in json:, with further options.</summary>
    public static string Json(string folder, params (string Name, object Value)[] options)
        => NodeSpec.Of("vvfat", [("dir", folder), .. options.Select(o => (o.Name, (object?)o.Value))]).ToString();

    private static string Digest(string path)
        => $"{new FileInfo(path).Length} {Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(path)))}";
}

/// <summary>Skips where the judges are not installed.</summary>
public sealed class FatToolsFactAttribute : FactAttribute
{
    public FatToolsFactAttribute() => Skip = FatTools.AreThere ? null : "needs dosfstools and mtools";
}

/// <summary>The same for several cases.</summary>
public sealed class FatToolsTheoryAttribute : TheoryAttribute
{
    public FatToolsTheoryAttribute() => Skip = FatTools.AreThere ? null : "needs dosfstools and mtools";
}
