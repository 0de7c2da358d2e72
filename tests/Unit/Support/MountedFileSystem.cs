namespace DiskImage.Tests.Support;

/// <summary>A file system of its own, in a file that is gone when it is disposed.</summary>
internal sealed class MountedFileSystem : IDisposable
{
    private const long Size = 512L << 20; // sparse; xfs takes 300 MiB at least

    private readonly TestFolder _folder = new();

    private MountedFileSystem()
    {
    }

    /// <summary>Where it is mounted.</summary>
    public string Root => _folder["mounted"];

    public string this[string name] => Path.Combine(Root, name);

    /// <summary>Why a kind cannot be had here; null if it can.</summary>
    public static string? WhyNot(string kind)
        => LoopDevice.WhyNot
            ?? Programs.WhyMissing($"mkfs.{kind}")
            ?? (File.ReadLines("/proc/filesystems").Any(l => l.EndsWith($"\t{kind}", StringComparison.Ordinal)) ? null : $"this kernel has no {kind}");

    public static async Task<MountedFileSystem> OfAsync(string kind, params string[] options)
    {
        var made = new MountedFileSystem();
        try
        {
            await using (FileStream file = File.Create(made._folder["disk"]))
            {
                file.SetLength(Size);
            }
            _ = await Programs.RunAsync($"mkfs.{kind}", ["-q", .. options, made._folder["disk"]]);
            _ = Directory.CreateDirectory(made.Root);
            _ = await Programs.RunAsync("mount", "-o", "loop", made._folder["disk"], made.Root);
            return made;
        }
        catch
        {
            made._folder.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        _ = Programs.RunAsync("umount", Root).GetAwaiter().GetResult();
        _folder.Dispose();
    }
}
