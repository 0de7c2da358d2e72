using System.Runtime.InteropServices;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>The machine's own zstd library as a judge of what is read; null where there is none.</summary>
internal sealed unsafe class NativeZstd
{
    private readonly nint _context;
    private readonly delegate* unmanaged<nint, byte*, nuint, byte*, nuint, nuint> _decompress;
    private readonly delegate* unmanaged<byte*, nuint, nuint> _findFrameSize;
    private readonly delegate* unmanaged<nuint, uint> _isError;
    private readonly Lock _gate = new(); // one context for all tests

    private NativeZstd(nint library)
    {
        _context = ((delegate* unmanaged<nint>)NativeLibrary.GetExport(library, "ZSTD_createDCtx"))();
        _decompress = (delegate* unmanaged<nint, byte*, nuint, byte*, nuint, nuint>)NativeLibrary.GetExport(library, "ZSTD_decompressDCtx");
        _findFrameSize = (delegate* unmanaged<byte*, nuint, nuint>)NativeLibrary.GetExport(library, "ZSTD_findFrameCompressedSize");
        _isError = (delegate* unmanaged<nuint, uint>)NativeLibrary.GetExport(library, "ZSTD_isError");
    }

    public static NativeZstd? Instance { get; } = NativeLibrary.TryLoad("libzstd.so.1", out nint library) ? new(library) : null;

    /// <summary>As the codec's: frames that fill the output, rubbish behind them.</summary>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        lock (_gate)
        {
            do
            {
                fixed (byte* source = input)
                fixed (byte* target = output)
                {
                    nuint size = _findFrameSize(source, (nuint)input.Length);
                    if (_isError(size) != 0)
                    {
                        return false;
                    }
                    nuint written = _decompress(_context, target, (nuint)output.Length, source, size);
                    if (_isError(written) != 0)
                    {
                        return false;
                    }
                    input = input[(int)size..];
                    output = output[(int)written..];
                }
            }
            while (!output.IsEmpty);
            return true;
        }
    }
}
