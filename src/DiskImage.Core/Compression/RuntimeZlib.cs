using System.Runtime.InteropServices;
using DiskImage.Block;

namespace DiskImage.Compression;

/// <summary>
/// The zlib inside the .NET runtime, called without the streams around it: a block in, a block out, no allocation on the managed
/// side, and a choice of the window.
/// </summary>
/// <remarks>
/// The library is the runtime's own, not a public interface: its functions have the same names on every system, its file has not.
/// So it is looked for beside the runtime's assemblies under the name that the system gives it, and believed only if it reads what
/// it wrote.
/// </remarks>
internal sealed unsafe class RuntimeZlib
{
    private const int Ok = 0, StreamEnd = 1, BufferError = -5, Finish = 4;
    private const int LargestRawWindow = -15; // negative: no wrapping; reads every smaller window too
    private const int LargestZlibWindow = 15;
    private const int Failed = int.MinValue; // none of zlib's
    private const int SmallRawWindow = -12; // QEMU inflates qcow2 clusters with a window of 4 KiB
    private const int DefaultLevel = -1, Deflated = 8, MostMemory = 9, DefaultStrategy = 0;

    private readonly delegate* unmanaged<ZStream*, int, int, int, int, int, int> _deflateInit;
    private readonly delegate* unmanaged<ZStream*, int, int> _deflate, _inflate, _inflateInit;
    private readonly delegate* unmanaged<ZStream*, int> _deflateEnd, _inflateEnd;

    /// <summary>Looks up what is needed.</summary>
    /// <exception cref="EntryPointNotFoundException">A function is missing.</exception>
    private RuntimeZlib(nint library)
    {
        _deflateInit = (
            delegate* unmanaged<ZStream*, int, int, int, int, int, int>)NativeLibrary.GetExport(library, "CompressionNative_DeflateInit2_");
        _deflate = (delegate* unmanaged<ZStream*, int, int>)NativeLibrary.GetExport(library, "CompressionNative_Deflate");
        _deflateEnd = (delegate* unmanaged<ZStream*, int>)NativeLibrary.GetExport(library, "CompressionNative_DeflateEnd");
        _inflateInit = (delegate* unmanaged<ZStream*, int, int>)NativeLibrary.GetExport(library, "CompressionNative_InflateInit2_");
        _inflate = (delegate* unmanaged<ZStream*, int, int>)NativeLibrary.GetExport(library, "CompressionNative_Inflate");
        _inflateEnd = (delegate* unmanaged<ZStream*, int>)NativeLibrary.GetExport(library, "CompressionNative_InflateEnd");
    }

    /// <summary>The file's name on this system.</summary>
    public static string FileName
        => OperatingSystem.IsWindows() ? "System.IO.Compression.Native.dll"
            : OperatingSystem.IsMacOS() ? "libSystem.IO.Compression.Native.dylib"
            : "libSystem.IO.Compression.Native.so";

    /// <summary>The runtime's zlib; null where it is not found or does not work as known here.</summary>
    public static RuntimeZlib? TryLoad() => TryLoad(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), FileName));

    /// <summary>The same for a file anywhere.</summary>
    internal static RuntimeZlib? TryLoad(string path)
    {
        if (!NativeLibrary.TryLoad(path, out nint library))
        {
            return null;
        }
        try
        {
            var found = new RuntimeZlib(library);
            if (found.Works())
            {
                return found; // and stays loaded
            }
        }
        catch (EntryPointNotFoundException)
        {
            // Another library of that name, or a runtime that has renamed its functions.
        }
        NativeLibrary.Free(library);
        return null;
    }

    /// <summary>As <see cref="IBlockCompressor.Compress"/>.</summary>
    public int? Compress(ReadOnlySpan<byte> input, Span<byte> output) => Deflate(input, output, SmallRawWindow, DefaultLevel);

    /// <summary>The same as a zlib stream (RFC 1950).</summary>
    public int? CompressZlib(ReadOnlySpan<byte> input, Span<byte> output, int level) => Deflate(input, output, LargestZlibWindow, level);

    private int? Deflate(ReadOnlySpan<byte> input, Span<byte> output, int window, int level)
    {
        ZStream stream = default;
        ThrowIfFailed(_deflateInit(&stream, level, Deflated, window, MostMemory, DefaultStrategy));
        try
        {
            fixed (byte* source = input)
            fixed (byte* target = output)
            {
                stream.NextIn = source;
                stream.AvailIn = (uint)input.Length;
                stream.NextOut = target;
                stream.AvailOut = (uint)output.Length;
                return _deflate(&stream, Finish) == StreamEnd ? output.Length - (int)stream.AvailOut : null;
            }
        }
        finally
        {
            _ = _deflateEnd(&stream);
        }
    }

    /// <summary>As <see cref="IBlockDecompressor.TryDecompress"/>.</summary>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
        => Inflate(input, output, LargestRawWindow) is StreamEnd or BufferError;

    /// <summary>The same for a zlib stream (RFC 1950), which must end where the output does, with the right checksum.</summary>
    public bool TryDecompressZlib(ReadOnlySpan<byte> input, Span<byte> output) => Inflate(input, output, LargestZlibWindow) == StreamEnd;

    /// <summary>What zlib says after filling all of the output; <see cref="Failed"/> if it does not fill it.</summary>
    private int Inflate(ReadOnlySpan<byte> input, Span<byte> output, int window)
    {
        ZStream stream = default;
        ThrowIfFailed(_inflateInit(&stream, window));
        try
        {
            fixed (byte* source = input)
            fixed (byte* target = output)
            {
                stream.NextIn = source;
                stream.AvailIn = (uint)input.Length;
                stream.NextOut = target;
                stream.AvailOut = (uint)output.Length;
                int result = _inflate(&stream, Finish);
                return stream.AvailOut == 0 ? result : Failed;
            }
        }
        finally
        {
            _ = _inflateEnd(&stream);
        }
    }

    private static void ThrowIfFailed(int result)
    {
        if (result != Ok)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Io, $"zlib could not be started (error {result}): there is no memory left for it");
        }
    }

    /// <summary>A block comes back, takes less room than before, and a block cut short is noticed.</summary>
    private bool Works()
    {
        Span<byte> block = stackalloc byte[600], packed = stackalloc byte[700], again = stackalloc byte[600];
        for (int i = 0; i < block.Length; i++)
        {
            block[i] = (byte)((i % 10) + (i / 100));
        }
        try
        {
            return Compress(block, packed) is int length && length < block.Length / 2
                && TryDecompress(packed[..length], again) && block.SequenceEqual(again)
                && !TryDecompress(packed[..(length / 2)], again);
        }
        catch (DiskImageException)
        {
            return false;
        }
    }

    /// <summary>The runtime's own view of z_stream.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ZStream
    {
        public byte* NextIn;
        public byte* NextOut;
        public byte* Message;
        public void* State;
        public uint AvailIn;
        public uint AvailOut;
    }
}
