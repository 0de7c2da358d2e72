using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>The part of a file that holds a LUKS header and its key slots: a file's beginning, or a run of another format's.</summary>
/// <param name="File">The file.</param>
/// <param name="Start">Where in it the header begins.</param>
/// <param name="Length">Bytes that header and slots may take: to the data, or to the end of the run.</param>
internal sealed record LuksArea(BlockNode File, long Start, long Length)
{
    /// <summary>What the image is called.</summary>
    public string Name => File.Name;

    /// <summary>Reads; what lies past the end of the file is zero.</summary>
    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => File.ReadPaddedAsync(Start + offset, buffer, cancellationToken);

    /// <summary>Writes, and returns when it survives a power cut. Never cancelled: the order of writes is what keeps the key.</summary>
    public async ValueTask WriteDurablyAsync(long offset, ReadOnlyMemory<byte> bytes)
    {
        await File.WriteAsync(Start + offset, bytes, CancellationToken.None).ConfigureAwait(false);
        await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>A fault of the header.</summary>
    public DiskImageException Wrong(DiskImageErrorKind kind, Wording what, long offset)
        => new(kind, $"{Name}: LUKS header: {what}", Name, Start + offset);
}
