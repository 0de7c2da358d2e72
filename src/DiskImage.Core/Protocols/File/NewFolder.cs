namespace DiskImage.Protocols.File;

/// <summary>A folder that was made for an image.</summary>
internal sealed class NewFolder
{
    private readonly string _path;

    private NewFolder(string path, string parent) => (_path, Parent) = (path, parent);

    /// <summary>The folder that it is in.</summary>
    public string Parent { get; }

    /// <summary>Makes a folder; null if it is there already, or the one is missing that it would be in.</summary>
    /// <exception cref="IOException">It cannot be made; a file has its name.</exception>
    public static NewFolder? Make(string path)
    {
        string? parent = Path.GetDirectoryName(path);
        if (parent is null || Directory.Exists(path) || !Directory.Exists(parent))
        {
            return null;
        }
        _ = Directory.CreateDirectory(path);
        return new NewFolder(path, parent);
    }

    /// <summary>Removes it unless something else is in it by now.</summary>
    public void Remove()
    {
        try
        {
            Directory.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Somebody put something there; and an empty folder is no image.
        }
    }
}
