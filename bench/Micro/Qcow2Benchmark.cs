using BenchmarkDotNet.Attributes;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;

namespace DiskImage.Bench.Micro;

/// <summary>The tables of qcow2: mapping a large image whose every cluster is reserved, and taking new clusters one at a time.</summary>
[ShortRunJob]
[MemoryDiagnoser]
public class Qcow2Benchmark
{
    private const int Clusters = 4096;

    private readonly DriverRegistry _registry = BuiltInDrivers.CreateRegistry();
    private readonly byte[] _cluster = new byte[512];
    private string _folder = "";
    private OpenedImage? _image;
    private NewImage? _new;

    [GlobalSetup]
    public async Task Setup()
    {
        _folder = Directory.CreateTempSubdirectory("diskimage-bench-").FullName;
        string path = Path.Combine(_folder, "reserved.qcow2");
        await using (NewImage made = await CreateAsync(path, $"size={64L << 30},preallocation=metadata"))
        {
            await made.CompleteAsync(durable: false, CancellationToken.None);
        }
        _image = await new ImageOpener(_registry, OpenPolicy.Default).OpenAsync(new OpenRequest(path), CancellationToken.None);
    }

    [GlobalCleanup]
    public async Task Cleanup()
    {
        await _image!.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>A million entries.</summary>
    [Benchmark]
    public async Task<int> Map()
    {
        int extents = 0;
        await foreach (BlockExtent extent in MapJob.ExtentsAsync(_image!.Node, 0, _image.Node.Length, CancellationToken.None))
        {
            extents++;
        }
        return extents;
    }

    [IterationSetup(Target = nameof(Allocate))]
    public void Begin() => _new = CreateAsync(Path.Combine(_folder, "new.qcow2"), "size=64M,cluster_size=512").GetAwaiter().GetResult();

    [IterationCleanup(Target = nameof(Allocate))]
    public void End() => _new!.DisposeAsync().AsTask().GetAwaiter().GetResult();

    /// <summary>Clusters of 512 bytes, so that taking them outweighs writing them.</summary>
    [Benchmark(OperationsPerInvoke = Clusters)]
    public async Task Allocate()
    {
        for (int i = 0; i < Clusters; i++)
        {
            await _new!.Node.WriteAsync(i * 1024L, _cluster);
        }
    }

    private async Task<NewImage> CreateAsync(string path, string options)
    {
        FormatDriver format = _registry.Format("qcow2");
        object record = ((ICreatable)format).CreateOptions.Bind(OptionSchema.Split(options));
        return await new ImageCreator(new ImageOpener(_registry, OpenPolicy.Default))
            .CreateAsync(path, format, record, replace: false, openOptions: null, CancellationToken.None);
    }
}
