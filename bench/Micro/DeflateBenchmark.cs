using System.IO.Compression;
using System.Text;
using BenchmarkDotNet.Attributes;
using DiskImage.Compression;

namespace DiskImage.Bench.Micro;

/// <summary>Reading one compressed cluster of text.</summary>
[ShortRunJob]
[MemoryDiagnoser]
public class DeflateBenchmark
{
    private readonly byte[] _output = new byte[65536];
    private byte[] _packed = [];

    [GlobalSetup]
    public void Setup()
    {
        var text = new StringBuilder();
        for (int i = 0; text.Length < _output.Length; i++)
        {
            _ = text.Append(i * 7919 % 1000).Append(" clusters of the image, ");
        }
        using var packed = new MemoryStream();
        using (var deflate = new DeflateStream(packed, CompressionLevel.Optimal))
        {
            deflate.Write(Encoding.ASCII.GetBytes(text.ToString(0, _output.Length)));
        }
        _packed = packed.ToArray();
    }

    [Benchmark]
    public bool Decompress() => DeflateCodec.Instance.TryDecompress(_packed, _output);
}
