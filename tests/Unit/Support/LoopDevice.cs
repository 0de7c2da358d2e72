namespace DiskImage.Tests.Support;

/// <summary>A theory that needs loop devices: root, and a kernel that has them. Skipped, with the reason, where they are not to be had.</summary>
public sealed class LoopTheoryAttribute : TheoryAttribute
{
    public LoopTheoryAttribute() => Skip = LoopDevice.WhyNot;
}

/// <summary>A file that is a disk of the machine until it is disposed.</summary>
internal sealed class LoopDevice : IDisposable
{
    private LoopDevice(string path) => Path = path;

    public static string? WhyNot { get; } = !OperatingSystem.IsLinux() ? "loop devices are Linux's"
        : Programs.Find("losetup") is null ? "losetup is not installed"
        : Environment.UserName != "root" ? "loop devices take root"
        : !File.Exists("/dev/loop-control") ? "this kernel has no loop devices"
        : null;

    public string Path { get; }

    public static async Task<LoopDevice> OfAsync(string file, int sector)
        => new((await Programs.RunAsync("losetup", "--find", "--show", "--sector-size", $"{sector}", file)).Trim());

    public void Dispose() => Programs.RunAsync("losetup", "--detach", Path).GetAwaiter().GetResult();
}
