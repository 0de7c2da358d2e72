using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Metadata;

/// <summary>
/// Bytes that are appended and then read and written at their places: in memory up to a number of bytes, beyond that in a temporary file of
/// the host, which goes with the store.
/// </summary>
/// <param name="name">The image that it works for, for messages.</param>
/// <param name="inMemory">Bytes that are kept in memory; a multiple of <see cref="ChunkBytes"/>.</param>
internal sealed class SpillStore(string name, long inMemory) : IDisposable
{
    public const int ChunkBytes = 1 << 20;

    private readonly List<byte[]> _chunks = [];
    private SafeFileHandle? _file;

    /// <summary>Bytes that were appended.</summary>
    public long Length { get; private set; }

    /// <summary>
    /// Makes room for <paramref name="count"/> bytes, which divides <see cref="ChunkBytes"/> and is always the same; returns their place.
    /// </summary>
    public long Append(int count)
    {
        long place = Length;
        Length += count;
        if (place < inMemory && place / ChunkBytes == _chunks.Count)
        {
            _chunks.Add(new byte[ChunkBytes]);
        }
        return place;
    }

    /// <summary>Reads what lies inside one appended run.</summary>
    public void Read(long place, Span<byte> bytes)
    {
        if (place < inMemory)
        {
            _chunks[(int)(place / ChunkBytes)].AsSpan((int)(place % ChunkBytes), bytes.Length).CopyTo(bytes);
            return;
        }
        try
        {
            int got = RandomAccess.Read(OpenFile(), bytes, place - inMemory);
            bytes[got..].Clear(); // appended, but not written to its end yet
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Failed(e);
        }
    }

    /// <summary>Writes inside one appended run.</summary>
    public void Write(long place, ReadOnlySpan<byte> bytes)
    {
        if (place < inMemory)
        {
            bytes.CopyTo(_chunks[(int)(place / ChunkBytes)].AsSpan((int)(place % ChunkBytes)));
            return;
        }
        try
        {
            RandomAccess.Write(OpenFile(), bytes, place - inMemory);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Failed(e);
        }
    }

    public void Dispose()
    {
        _chunks.Clear();
        _file?.Dispose();
    }

    private SafeFileHandle OpenFile() => _file ??= File.OpenHandle(
        Path.Combine(Path.GetTempPath(), Path.GetRandomFileName()),
        FileMode.CreateNew,
        FileAccess.ReadWrite,
        FileShare.None,
        FileOptions.DeleteOnClose);

    private DiskImageException Failed(Exception cause) => new(
        DiskImageErrorKind.Io,
        $"{name}: more than {inMemory:#,0} bytes of changes have to be kept in a temporary file in {Path.GetTempPath()}, and that fails: "
            + $"{cause.Message}. Nothing was changed.",
        name,
        cause: cause);
}
