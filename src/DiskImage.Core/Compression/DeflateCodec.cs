using System.Runtime.InteropServices;

namespace DiskImage.Compression;

/// <summary>
/// Raw deflate streams (RFC 1951, no zlib or gzip wrapping) over the zlib inside the .NET runtime, called without the streams
/// around it: a block in, a block out, no allocation on the managed side.
/// </summary>
internal sealed partial class DeflateCodec : IBlockDecompressor, IBlockCompressor
{
    private const int Ok = 0, StreamEnd = 1, BufferError = -5, Finish = 4;
    private const int LargestRawWindow = -15; // negative: no wrapping; reads every smaller window too
    private const int SmallRawWindow = -12; // QEMU inflates qcow2 clusters with a window of 4 KiB
    private const int DefaultLevel = -1, Deflated = 8, MostMemory = 9, DefaultStrategy = 0;

    public static DeflateCodec Instance { get; } = new();

    public unsafe int? Compress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        ZStream stream = default;
        if (DeflateInit(&stream, DefaultLevel, Deflated, SmallRawWindow, MostMemory, DefaultStrategy) != Ok)
        {
            throw new InvalidOperationException("zlib could not be started: out of memory.");
        }
        try
        {
            fixed (byte* source = input)
            fixed (byte* target = output)
            {
                stream.NextIn = source;
                stream.AvailIn = (uint)input.Length;
                stream.NextOut = target;
                stream.AvailOut = (uint)output.Length;
                return Deflate(&stream, Finish) == StreamEnd ? output.Length - (int)stream.AvailOut : null;
            }
        }
        finally
        {
            _ = DeflateEnd(&stream);
        }
    }

    public unsafe bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        ZStream stream = default;
        if (InflateInit(&stream, LargestRawWindow) != Ok)
        {
            throw new InvalidOperationException("zlib could not be started: out of memory.");
        }
        try
        {
            fixed (byte* source = input)
            fixed (byte* target = output)
            {
                stream.NextIn = source;
                stream.AvailIn = (uint)input.Length;
                stream.NextOut = target;
                stream.AvailOut = (uint)output.Length;
                int result = Inflate(&stream, Finish);
                return result is StreamEnd or BufferError && stream.AvailOut == 0;
            }
        }
        finally
        {
            _ = InflateEnd(&stream);
        }
    }

    [LibraryImport("libSystem.IO.Compression.Native", EntryPoint = "CompressionNative_DeflateInit2_")]
    private static unsafe partial int DeflateInit(ZStream* stream, int level, int method, int windowBits, int memLevel, int strategy);

    [LibraryImport("libSystem.IO.Compression.Native", EntryPoint = "CompressionNative_Deflate")]
    private static unsafe partial int Deflate(ZStream* stream, int flush);

    [LibraryImport("libSystem.IO.Compression.Native", EntryPoint = "CompressionNative_DeflateEnd")]
    private static unsafe partial int DeflateEnd(ZStream* stream);

    [LibraryImport("libSystem.IO.Compression.Native", EntryPoint = "CompressionNative_InflateInit2_")]
    private static unsafe partial int InflateInit(ZStream* stream, int windowBits);

    [LibraryImport("libSystem.IO.Compression.Native", EntryPoint = "CompressionNative_Inflate")]
    private static unsafe partial int Inflate(ZStream* stream, int flush);

    [LibraryImport("libSystem.IO.Compression.Native", EntryPoint = "CompressionNative_InflateEnd")]
    private static unsafe partial int InflateEnd(ZStream* stream);

    /// <summary>The runtime's own view of z_stream.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct ZStream
    {
        public byte* NextIn;
        public byte* NextOut;
        public byte* Message;
        public void* State;
        public uint AvailIn;
        public uint AvailOut;
    }
}
