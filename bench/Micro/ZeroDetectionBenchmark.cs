using BenchmarkDotNet.Attributes;
using DiskImage.Binary;

namespace DiskImage.Bench.Micro;

/// <summary>Telling zeroes from data: a mebibyte of zeroes is the dearest case, since every byte is looked at.</summary>
[ShortRunJob]
[MemoryDiagnoser]
public class ZeroDetectionBenchmark
{
    private readonly byte[] _zeroes = new byte[1 << 20];
    private readonly byte[] _noise = new byte[1 << 20];

    [GlobalSetup]
    public void Setup() => new Random(1).NextBytes(_noise);

    [Benchmark]
    public bool Zeroes() => ZeroDetection.IsZero(_zeroes);

    [Benchmark]
    public int RunOfZeroes() => ZeroDetection.Run(_zeroes, 4096, out _);

    [Benchmark]
    public int RunOfData() => ZeroDetection.Run(_noise, 4096, out _);
}
