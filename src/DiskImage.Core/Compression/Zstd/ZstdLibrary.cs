using System.Runtime.InteropServices;
using DiskImage.Block;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// The zstd library of the machine, found at run time; nothing links to it.
/// </summary>
/// <remarks>
/// Of its interface only what has been stable since 1.4.0 is used. A context is costly to make and cheap to use again, so each
/// thread keeps one per direction until it ends. The library's own decoder of one buffer wants nothing behind the frame, so each
/// frame is measured first; skippable frames are passed over here, and a frame's magic number is looked at here, because some
/// builds also know the formats from before 0.8.
/// </remarks>
internal sealed unsafe class ZstdLibrary
{
    /// <summary>What to look for, in words.</summary>
    public const string Wanted = "(libzstd 1.4.0 or newer)";

    private const uint OldestVersion = 10400; // ZSTD_compress2 became stable
    private const int DestinationTooSmall = 70, OutOfMemory = 64; // ZSTD_ErrorCode

    [ThreadStatic]
    private static Context? _compressor;

    [ThreadStatic]
    private static Context? _decompressor;

    private readonly delegate* unmanaged[Cdecl]<nint> _createCompressor, _createDecompressor;
    private readonly delegate* unmanaged[Cdecl]<nint, nuint> _freeCompressor, _freeDecompressor;
    private readonly delegate* unmanaged[Cdecl]<nint, byte*, nuint, byte*, nuint, nuint> _compress, _decompress;
    private readonly delegate* unmanaged[Cdecl]<byte*, nuint, nuint> _findFrameSize;
    private readonly delegate* unmanaged[Cdecl]<nuint, uint> _isError;
    private readonly delegate* unmanaged[Cdecl]<nuint, int> _errorCode;

    /// <summary>Looks up what is needed.</summary>
    /// <exception cref="EntryPointNotFoundException">A function is missing.</exception>
    private ZstdLibrary(nint library)
    {
        Version = ((delegate* unmanaged[Cdecl]<uint>)NativeLibrary.GetExport(library, "ZSTD_versionNumber"))();
        _createCompressor = (delegate* unmanaged[Cdecl]<nint>)NativeLibrary.GetExport(library, "ZSTD_createCCtx");
        _createDecompressor = (delegate* unmanaged[Cdecl]<nint>)NativeLibrary.GetExport(library, "ZSTD_createDCtx");
        _freeCompressor = (delegate* unmanaged[Cdecl]<nint, nuint>)NativeLibrary.GetExport(library, "ZSTD_freeCCtx");
        _freeDecompressor = (delegate* unmanaged[Cdecl]<nint, nuint>)NativeLibrary.GetExport(library, "ZSTD_freeDCtx");
        _compress = (delegate* unmanaged[Cdecl]<nint, byte*, nuint, byte*, nuint, nuint>)NativeLibrary.GetExport(library, "ZSTD_compress2");
        _decompress = (delegate* unmanaged[Cdecl]<nint, byte*, nuint, byte*, nuint, nuint>)NativeLibrary.GetExport(library, "ZSTD_decompressDCtx");
        _findFrameSize = (delegate* unmanaged[Cdecl]<byte*, nuint, nuint>)NativeLibrary.GetExport(library, "ZSTD_findFrameCompressedSize");
        _isError = (delegate* unmanaged[Cdecl]<nuint, uint>)NativeLibrary.GetExport(library, "ZSTD_isError");
        _errorCode = (delegate* unmanaged[Cdecl]<nuint, int>)NativeLibrary.GetExport(library, "ZSTD_getErrorCode");
    }

    /// <summary>Major × 10000 + minor × 100 + release.</summary>
    public uint Version { get; }

    /// <summary>The library, or null where there is none or it is too old.</summary>
    public static ZstdLibrary? TryLoad()
    {
        string[] names = OperatingSystem.IsWindows() ? ["libzstd.dll", "zstd.dll"]
            : OperatingSystem.IsMacOS() ? ["libzstd.1.dylib", "libzstd.dylib", "/opt/homebrew/lib/libzstd.1.dylib"]
            : ["libzstd.so.1"];
        foreach (string name in names)
        {
            // Never from the working directory: it may be as untrusted as the image in it.
            if (!NativeLibrary.TryLoad(name, typeof(ZstdLibrary).Assembly, DllImportSearchPath.AssemblyDirectory | DllImportSearchPath.SafeDirectories, out nint library))
            {
                continue;
            }
            try
            {
                var found = new ZstdLibrary(library);
                if (found.Version >= OldestVersion)
                {
                    return found; // and stays loaded
                }
            }
            catch (EntryPointNotFoundException)
            {
                // Another library of that name, or an old one.
            }
            NativeLibrary.Free(library);
        }
        return null;
    }

    /// <summary>Compresses into one frame; the bytes written, or null if they do not fit.</summary>
    public int? Compress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        Context context = _compressor ??= new Context(_createCompressor(), _freeCompressor);
        fixed (byte* source = input)
        fixed (byte* target = output)
        {
            nuint result = _compress(context.Pointer, target, (nuint)output.Length, source, (nuint)input.Length);
            if (_isError(result) == 0)
            {
                return (int)result;
            }
            int error = _errorCode(result);
            return error == DestinationTooSmall ? null : throw Failed(error);
        }
    }

    /// <summary>As <see cref="ZstdDecoder.TryDecompress"/>.</summary>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        Context context = _decompressor ??= new Context(_createDecompressor(), _freeDecompressor);
        do
        {
            if (!FrameHeader.TrySkip(ref input) || !FrameHeader.TryRead(input, out _))
            {
                return false;
            }
            fixed (byte* source = input)
            fixed (byte* target = output)
            {
                nuint size = _findFrameSize(source, (nuint)input.Length);
                if (_isError(size) != 0)
                {
                    return false;
                }
                nuint written = _decompress(context.Pointer, target, (nuint)output.Length, source, size);
                if (_isError(written) != 0)
                {
                    int error = _errorCode(written);
                    return error == OutOfMemory ? throw Failed(error) : false;
                }
                input = input[(int)size..];
                output = output[(int)written..];
            }
        }
        while (!output.IsEmpty);
        return true;
    }

    private static DiskImageException Failed(int error)
        => new(DiskImageErrorKind.Io, error == OutOfMemory ? "the zstd library ran out of memory" : $"the zstd library failed with error {error}");

    /// <summary>A context of the library, freed when the thread that owns it has ended.</summary>
    private sealed class Context : SafeHandle
    {
        private readonly delegate* unmanaged[Cdecl]<nint, nuint> _free;

        public Context(nint pointer, delegate* unmanaged[Cdecl]<nint, nuint> free)
            : base(0, ownsHandle: true)
        {
            _free = free;
            SetHandle(pointer);
            if (IsInvalid)
            {
                throw Failed(OutOfMemory);
            }
        }

        public override bool IsInvalid => handle == 0;

        /// <summary>Good while this thread runs: the context stays with it.</summary>
        public nint Pointer => handle;

        protected override bool ReleaseHandle() => _free(handle) == 0;
    }
}
