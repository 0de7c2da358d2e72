using System.Buffers;
using DiskImage.Block;

namespace DiskImage.Protocols.Gluster;

/// <summary>An open file of a volume: the library's calls with memory of their own, so that whoever waits for one may give up.</summary>
/// <param name="volume">The volume.</param>
/// <param name="handle">The file, as the library knows it.</param>
internal sealed class GlusterFile(GlusterVolume volume, nint handle)
{
    /// <summary>What a hole or data is looked for with. Source: lseek(2) on Linux.</summary>
    public const int SeekData = 3, SeekHole = 4;

    private const int ReadWrite = 2, CreateExclusive = 0x40 | 0x80; // O_RDWR, O_CREAT | O_EXCL

    private IGlusterLibrary Library => volume.Library;

    /// <summary>Opens a file that is there.</summary>
    /// <exception cref="DiskImageException">What the library says; InvalidOption for what is no regular file.</exception>
    public static async ValueTask<(GlusterFile File, GlusterStat Stat)> OpenAsync(
        GlusterVolume volume, string path, bool writable, CancellationToken cancellationToken)
    {
        GlusterStat there = await StatAsync(volume, path, cancellationToken).ConfigureAwait(false) ?? throw volume.Error(
            new GlusterResult(-1, 2), "open it", DiskImageErrorKind.NotFound);
        if (!there.IsRegular)
        {
            throw new DiskImageException( // a pipe would hang, a device act on being opened
                DiskImageErrorKind.InvalidOption, $"{volume.Name}: is no regular file, so it is no disk image", volume.Name);
        }
        nint handle = await HandleAsync(
            volume, fs => volume.Library.Open(fs, path, writable ? ReadWrite : 0), "open it", cancellationToken).ConfigureAwait(false);
        return (new GlusterFile(volume, handle), there);
    }

    /// <summary>Makes a file that is not there, open for writing; null if something of that name is.</summary>
    public static async ValueTask<GlusterFile?> TryCreateAsync(
        GlusterVolume volume, string path, uint mode, CancellationToken cancellationToken)
    {
        try
        {
            return new GlusterFile(volume, await HandleAsync(
                volume,
                fs => volume.Library.Create(fs, path, ReadWrite | CreateExclusive, mode),
                "create it",
                cancellationToken).ConfigureAwait(false));
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.AlreadyExists)
        {
            return null;
        }
    }

    /// <summary>What a path leads to; null for nothing.</summary>
    /// <param name="volume">The volume.</param>
    /// <param name="path">The path.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <param name="follows">False to look at a link itself.</param>
    public static async ValueTask<GlusterStat?> StatAsync(
        GlusterVolume volume, string path, CancellationToken cancellationToken, bool follows = true)
    {
        (GlusterResult result, GlusterStat stat) = await volume.CallAsync(
            fs => (volume.Library.Stat(fs, path, follows, out GlusterStat found), found), cancellationToken).ConfigureAwait(false);
        return result.IsGood ? stat
            : result.Error == 2 ? null
            : throw volume.Error(result, "look at it", DiskImageErrorKind.Io);
    }

    /// <summary>What it is like now.</summary>
    public async ValueTask<GlusterStat> StatAsync(CancellationToken cancellationToken)
    {
        (GlusterResult result, GlusterStat stat) = await volume.CallAsync(
            _ => (Library.Stat(handle, out GlusterStat found), found), cancellationToken).ConfigureAwait(false);
        return result.IsGood ? stat : throw volume.Error(result, "look at it", DiskImageErrorKind.Io);
    }

    /// <summary>Calls the library about this file.</summary>
    public Task<GlusterResult> CallAsync(Func<IGlusterLibrary, nint, GlusterResult> call, CancellationToken cancellationToken)
        => volume.CallAsync(_ => call(Library, handle), cancellationToken);

    /// <summary>Fills a buffer; less at the end of the file.</summary>
    public async ValueTask<int> ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        int length = buffer.Length;
        byte[] room = ArrayPool<byte>.Shared.Rent(length); // lost to the pool if nobody waits any more: the call still has it
        GlusterResult read = await CallAsync(
            (library, file) => library.Read(file, room.AsSpan(0, length), offset), cancellationToken).ConfigureAwait(false);
        if (!read.IsGood || read.Value > length)
        {
            throw volume.Error(read, $"read {length:#,0} bytes at offset {offset:#,0}", DiskImageErrorKind.Io, offset);
        }
        room.AsSpan(0, (int)read.Value).CopyTo(buffer.Span);
        ArrayPool<byte>.Shared.Return(room);
        return (int)read.Value;
    }

    /// <summary>Writes a buffer.</summary>
    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        int length = bytes.Length;
        byte[] room = ArrayPool<byte>.Shared.Rent(length);
        bytes.CopyTo(room);
        GlusterResult written = await CallAsync(
            (library, file) =>
            {
                GlusterResult last = default;
                for (int at = 0; at < length; at += (int)last.Value)
                {
                    last = library.Write(file, room.AsSpan(at, length - at), offset + at);
                    if (last.Value <= 0)
                    {
                        return last with { Value = -1 };
                    }
                }
                return last;
            },
            cancellationToken).ConfigureAwait(false);
        ArrayPool<byte>.Shared.Return(room);
        if (!written.IsGood)
        {
            throw volume.Error(
                written, $"write {length:#,0} bytes at offset {offset:#,0}", DiskImageErrorKind.WriteFailed, offset);
        }
    }

    /// <summary>Closes it.</summary>
    public async ValueTask<GlusterResult> CloseAsync()
        => await CallAsync((library, file) => library.Close(file), CancellationToken.None).ConfigureAwait(false);

    private static async ValueTask<nint> HandleAsync(
        GlusterVolume volume, Func<nint, GlusterResult> open, Wording doing, CancellationToken cancellationToken)
    {
        GlusterResult opened = await volume.CallAsync(open, CancellationToken.None).ConfigureAwait(false); // or the handle would be lost
        if (!opened.IsGood)
        {
            throw volume.Error(opened, doing, DiskImageErrorKind.Io);
        }
        if (cancellationToken.IsCancellationRequested)
        {
            _ = await new GlusterFile(volume, (nint)opened.Value).CloseAsync().ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
        }
        return (nint)opened.Value;
    }
}
