using DiskImage.Block;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.Ssh;

/// <summary>The system's OpenSSH.</summary>
/// <param name="ConfigFile">A configuration to use instead of the user's and the system's; null for theirs.</param>
/// <param name="Folder">Where the programs are; null to look for them where the system does.</param>
internal sealed record SshProgram(string? ConfigFile = null, string? Folder = null)
{
    /// <summary>The variable of the environment that names another configuration.</summary>
    public const string ConfigVariable = "DISKIMAGE_SSH_CONFIG";

    /// <summary>As the environment says.</summary>
    public static SshProgram FromEnvironment()
        => new(Environment.GetEnvironmentVariable(ConfigVariable) is { Length: > 0 } file ? Path.GetFullPath(file) : null);

    /// <summary>The path of one of its programs.</summary>
    /// <exception cref="DiskImageException">Unsupported: it is not there.</exception>
    public string Find(string program)
    {
        string name = OperatingSystem.IsWindows() ? $"{program}.exe" : program;
        string[] folders = Folder is not null ? [Folder]
            : (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries);
        return Array.Find(folders.Select(f => Path.Combine(f, name)).ToArray(), HostIO.Exists)
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"Images on SSH servers are reached by OpenSSH's '{program}', which is not found. Install OpenSSH's client, or put it into "
                    + "the search path.");
    }

    /// <summary>What ssh is told of where it goes, whatever it is to do there: the end of its arguments.</summary>
    public IEnumerable<string> Destination(SshPlace place)
    {
        if (ConfigFile is not null)
        {
            yield return "-F";
            yield return ConfigFile;
        }
        if (place.Port is { } port)
        {
            yield return "-p";
            yield return port.ToString(System.Globalization.CultureInfo.InvariantCulture);
        }
        if (place.User is { } user)
        {
            yield return "-l";
            yield return user;
        }
        yield return "--"; // what follows is no option, however it begins
        yield return place.Host;
    }
}
