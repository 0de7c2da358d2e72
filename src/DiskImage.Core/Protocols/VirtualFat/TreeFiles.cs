using DiskImage.Block;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// Reads the files of a tree: opened when they are asked for, and only as long as they are what they were when the tree was listed.
/// </summary>
internal sealed class TreeFiles : IDisposable
{
    private const int MostOpen = 32; // ours: a program has some hundreds of handles

    private readonly LinkedList<OpenedFile> _open = new(); // the one used last first
    private readonly Dictionary<FatFile, LinkedListNode<OpenedFile>> _byFile = new(ReferenceEqualityComparer.Instance);
    private readonly Lock _lock = new(); // guards both and the uses

    /// <summary>Fills a buffer from a file.</summary>
    /// <exception cref="DiskImageException">Io: the file is not what it was; what the host says.</exception>
    public void Read(FatFile file, long offset, Span<byte> buffer)
    {
        OpenedFile opened = Take(file);
        try
        {
            CheckSame(file, opened.Handle);
            for (int done = 0; done < buffer.Length;)
            {
                int count = RandomAccess.Read(opened.Handle, buffer[done..], offset + done);
                done += count > 0 ? count : throw Changed(file, $"it ends at offset {offset + done:#,0}");
            }
            CheckSame(file, opened.Handle); // what was read meanwhile may be half old and half new
        }
        catch (Exception e) when (e is not DiskImageException and (IOException or UnauthorizedAccessException))
        {
            throw HostFile.Error(e, file.Path, "read it", offset);
        }
        finally
        {
            Return(opened);
        }
    }

    /// <summary>Throws if a file is not what it was when it was listed.</summary>
    public void Check(FatFile file)
    {
        OpenedFile opened = Take(file);
        try
        {
            CheckSame(file, opened.Handle);
        }
        finally
        {
            Return(opened);
        }
    }

    /// <summary>Tells whether a run of a file is stored or a hole, and where that ends.</summary>
    public (bool IsData, long End) Extent(FatFile file, long offset)
    {
        OpenedFile opened = Take(file);
        try
        {
            CheckSame(file, opened.Handle);
            return HostFile.Current.TryFindExtent(opened.Handle, offset, file.Length, out bool isData, out long end) && end > offset
                ? (isData, end)
                : (true, file.Length);
        }
        finally
        {
            Return(opened);
        }
    }

    /// <summary>Closes a file, which is to be replaced.</summary>
    public void Forget(FatFile file)
    {
        lock (_lock)
        {
            if (_byFile.Remove(file, out LinkedListNode<OpenedFile>? node))
            {
                _open.Remove(node);
                Close(node.Value);
            }
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            foreach (OpenedFile opened in _open)
            {
                HostFile.Current.Close(opened.Handle);
            }
            _open.Clear();
            _byFile.Clear();
        }
    }

    private OpenedFile Take(FatFile file)
    {
        lock (_lock)
        {
            if (_byFile.TryGetValue(file, out LinkedListNode<OpenedFile>? node))
            {
                _open.Remove(node);
                _open.AddFirst(node);
                node.Value.Uses++;
                return node.Value;
            }
            var opened = new OpenedFile(file, Open(file)) { Uses = 1 };
            _byFile.Add(file, _open.AddFirst(opened));
            if (_open.Count > MostOpen)
            {
                OpenedFile last = _open.Last!.Value;
                _open.RemoveLast();
                _ = _byFile.Remove(last.File);
                Close(last);
            }
            return opened;
        }
    }

    private void Return(OpenedFile opened)
    {
        lock (_lock)
        {
            if (--opened.Uses == 0 && opened.IsDropped)
            {
                HostFile.Current.Close(opened.Handle);
            }
        }
    }

    /// <summary>Closes a file as soon as nobody reads it.</summary>
    private static void Close(OpenedFile opened)
    {
        opened.IsDropped = true;
        if (opened.Uses == 0)
        {
            HostFile.Current.Close(opened.Handle);
        }
    }

    private static SafeFileHandle Open(FatFile file)
    {
        SafeFileHandle handle;
        try
        {
            handle = HostFile.Current.Open(file.Path, writable: false, HostSharing.Everybody); // never waits, whatever is there by now
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw Changed(file, "it is gone");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            DiskImageException error = HostFile.Error(e, file.Path, "open it");
            throw error.Kind == DiskImageErrorKind.NotFound ? Changed(file, "it is gone") : error;
        }
        if (HostNames.Current.IdentityOf(handle) != file.Identity)
        {
            HostFile.Current.Close(handle);
            throw Changed(file, "another one has its name");
        }
        return handle;
    }

    private static void CheckSame(FatFile file, SafeFileHandle handle)
    {
        long length = RandomAccess.GetLength(handle);
        DateTime changed = System.IO.File.GetLastWriteTimeUtc(handle);
        if (length != file.Length)
        {
            throw Changed(file, $"it has {length:#,0} bytes and had {file.Length:#,0}");
        }
        if (changed != file.HostChanged)
        {
            throw Changed(file, "it was written to");
        }
    }

    private static DiskImageException Changed(FatFile file, Wording what) => new(
        DiskImageErrorKind.Io,
        $"{file.Path}: is not what it was when its folder was opened as a disk: {what}. Open the folder again when nobody changes it.",
        file.Path);

    private sealed record OpenedFile(FatFile File, SafeFileHandle Handle)
    {
        public int Uses { get; set; }

        public bool IsDropped { get; set; }
    }
}
