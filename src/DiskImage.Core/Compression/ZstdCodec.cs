using System.Runtime.InteropServices;
using DiskImage.Block;
using ZstdSharp.Unsafe;

namespace DiskImage.Compression;

/// <summary>Zstandard blocks (RFC 8878) through ZstdSharp, the zstd library in C#: the same on every system.</summary>
/// <remarks>
/// A compressed block is one frame with its content size, without a checksum, at the library's default level: what QEMU writes.
/// What is read may be frames one behind another, skippable ones too, with rubbish behind the last; the library's decoder of one
/// buffer wants nothing behind a frame, so each is measured first.
///
/// Hostile input. The whole output is at hand, so it is its own window: no memory depends on what a frame asks for, and a decoder
/// keeps the size it was made with. A frame that names a dictionary is refused. The library is a line by line translation of the C
/// code, which checks every length before it uses it; the tests have it decode damaged frames between pages that nobody may touch.
///
/// A context is costly to make and cheap to use again, so each thread keeps one per direction until it ends.
/// </remarks>
internal sealed unsafe class ZstdCodec : IBlockDecompressor, IBlockCompressor
{
    [ThreadStatic]
    private static Compressor? _compressor;

    [ThreadStatic]
    private static Decompressor? _decompressor;

    private ZstdCodec()
    {
    }

    /// <summary>The codec; it has no state of its own.</summary>
    public static ZstdCodec Instance { get; } = new();

    /// <summary>The memory that this thread's decoder holds, in bytes.</summary>
    public static long DecompressorBytes => (long)Methods.ZSTD_sizeof_DCtx((_decompressor ??= new Decompressor()).Context);

    /// <inheritdoc/>
    /// <exception cref="DiskImageException">Io: no memory.</exception>
    public int? Compress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        try
        {
            Compressor compressor = _compressor ??= new Compressor();
            fixed (byte* source = input)
            fixed (byte* target = output)
            {
                nuint result = Methods.ZSTD_compress2(compressor.Context, target, (nuint)output.Length, source, (nuint)input.Length);
                if (!Methods.ZSTD_isError(result))
                {
                    return (int)result;
                }
                ZSTD_ErrorCode error = Methods.ZSTD_getErrorCode(result);
                return error == ZSTD_ErrorCode.ZSTD_error_dstSize_tooSmall ? null : throw Failed(error);
            }
        }
        catch (OutOfMemoryException e)
        {
            throw OutOfMemory(e);
        }
    }

    /// <inheritdoc/>
    /// <exception cref="DiskImageException">Io: no memory.</exception>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        try
        {
            Decompressor decompressor = _decompressor ??= new Decompressor();
            do
            {
                fixed (byte* source = input)
                fixed (byte* target = output)
                {
                    nuint size = Methods.ZSTD_findFrameCompressedSize(source, (nuint)input.Length);
                    if (Methods.ZSTD_isError(size))
                    {
                        return false;
                    }
                    nuint written = Methods.ZSTD_decompressDCtx(decompressor.Context, target, (nuint)output.Length, source, size);
                    if (Methods.ZSTD_isError(written))
                    {
                        ZSTD_ErrorCode error = Methods.ZSTD_getErrorCode(written);
                        return error == ZSTD_ErrorCode.ZSTD_error_memory_allocation ? throw Failed(error) : false;
                    }
                    input = input[(int)size..];
                    output = output[(int)written..];
                }
            }
            while (!output.IsEmpty);
            return true;
        }
        catch (OutOfMemoryException e)
        {
            throw OutOfMemory(e);
        }
    }

    private static DiskImageException Failed(ZSTD_ErrorCode error)
        => error == ZSTD_ErrorCode.ZSTD_error_memory_allocation ? OutOfMemory(null)
            : new(DiskImageErrorKind.Io, $"compressing with zstd failed: {Methods.ZSTD_getErrorString(error)}");

    private static DiskImageException OutOfMemory(Exception? cause)
        => new(DiskImageErrorKind.Io, "there is no memory left for zstd", cause: cause);

    /// <summary>A context in memory that the collector does not know, freed when the thread that owns it has ended.</summary>
    private sealed class Compressor : SafeHandle
    {
        public Compressor()
            : base(0, ownsHandle: true)
        {
            SetHandle((nint)Methods.ZSTD_createCCtx());
            if (IsInvalid)
            {
                throw OutOfMemory(null);
            }
        }

        public override bool IsInvalid => handle == 0;

        /// <summary>Good while this thread runs: the context stays with it.</summary>
        public ZSTD_CCtx_s* Context => (ZSTD_CCtx_s*)handle;

        protected override bool ReleaseHandle() => !Methods.ZSTD_isError(Methods.ZSTD_freeCCtx(Context));
    }

    /// <summary>As <see cref="Compressor"/>, the other way.</summary>
    private sealed class Decompressor : SafeHandle
    {
        public Decompressor()
            : base(0, ownsHandle: true)
        {
            SetHandle((nint)Methods.ZSTD_createDCtx());
            if (IsInvalid)
            {
                throw OutOfMemory(null);
            }
        }

        public override bool IsInvalid => handle == 0;

        /// <summary>Good while this thread runs: the context stays with it.</summary>
        public ZSTD_DCtx_s* Context => (ZSTD_DCtx_s*)handle;

        protected override bool ReleaseHandle() => !Methods.ZSTD_isError(Methods.ZSTD_freeDCtx(Context));
    }
}
