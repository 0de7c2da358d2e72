using DiskImage.Block;
using DiskImage.Formats.Vmdk;
using DiskImage.Tests.Formats.Parallels;
using DiskImage.Tests.Formats.Vdi;
using DiskImage.Tests.Formats.Vmdk;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>
/// The formats of blocks, under a raw twin: the host fails a request now and then, tasks write side by side, the disk grows and shrinks.
/// What was asked for is done or not, and nothing else changes, now or when opened again.
/// </summary>
public sealed class TableFaultTests
{
    private const int Size = 512 << 10;

    private static readonly string[] s_resized = ["vdi", "parallels", "parallels-odd", "parallels-original", "vmdk", "vmdk-zeroed"];

    public static TheoryData<string, int> Runs() => Runs([.. s_resized, "vmdk-cowd", "vpc-4k", "vpc-64k"]);

    public static TheoryData<string, int> ResizedRuns() => Runs(s_resized);

    private static TheoryData<string, int> Runs(string[] kinds)
    {
        var data = new TheoryData<string, int>();
        foreach (string kind in kinds)
        {
            for (int seed = 0; seed < 4; seed++)
            {
                data.Add(kind, seed);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Runs))]
    public async Task A_failed_request_leaves_old_or_new(string kind, int seed)
    {
        var random = new Random(seed);
        MemoryNode memory = await CreateAsync(kind);
        var faults = new FaultInjectionNode(memory);
        byte[] twin = new byte[Size];
        await using (BlockNode disk = await OpenAsync(kind, faults))
        {
            for (int i = 0; i < 300; i++)
            {
                byte[] next = [.. twin];
                int length = random.Next(1, 1 << random.Next(3, 18)), at = random.Next(Size - length);
                faults.Arm(random.Next(3) == 0
                    ? new Fault(RequestKinds.Changes, random.Next(1, 6)) { WrittenBytes = random.Next(600) }
                    : null);
                try
                {
                    switch (random.Next(5))
                    {
                        case <= 1:
                            random.NextBytes(next.AsSpan(at, length));
                            await disk.WriteAsync(at, next.AsMemory(at, length));
                            break;
                        case <= 3:
                            next.AsSpan(at, length).Clear();
                            await disk.WriteZeroesAsync(at, length);
                            break;
                        default:
                            await disk.FlushAsync();
                            break;
                    }
                    twin = next;
                }
                catch (DiskImageException)
                {
                    faults.Arm(null);
                    byte[] now = await ReadAsync(disk);
                    for (int b = 0; b < Size; b++)
                    {
                        Assert.True(now[b] == twin[b]
                            || now[b] == next[b], $"{kind}, seed {seed}, step {i}: byte {b} is neither old nor new");
                    }
                    twin = now;
                }
                faults.Arm(null);
            }
        }
        await RequireAsync(kind, memory, twin, $"{kind}, seed {seed}");
    }

    [Theory]
    [MemberData(nameof(ResizedRuns))]
    public async Task Tasks_side_by_side_and_changes_of_the_size_do_not_disturb_each_other(string kind, int seed)
    {
        const int Tasks = 4, Part = Size / Tasks;
        MemoryNode memory = await CreateAsync(kind);
        byte[] twin = new byte[Size];
        await using (BlockNode disk = await OpenAsync(kind, memory))
        {
            await Task.WhenAll(Enumerable.Range(0, Tasks).Select(task => Task.Run(async () =>
            {
                var random = new Random((seed * Tasks) + task);
                for (int i = 0; i < 80; i++)
                {
                    int length = random.Next(1, 20_000), at = (task * Part) + random.Next(Part - length);
                    bool isZero = random.Next(4) == 0;
                    byte[] data = new byte[length];
                    if (!isZero)
                    {
                        random.NextBytes(data);
                    }
                    data.CopyTo(twin, at);
                    await (isZero ? disk.WriteZeroesAsync(at, length) : disk.WriteAsync(at, data));
                    if (random.Next(20) == 0)
                    {
                        await disk.FlushAsync();
                    }
                }
            })));
            var sizes = new Random(seed);
            for (int i = 0; i < 6; i++)
            {
                int length = sizes.Next(1, 2 * Size / 512) * 512;
                await disk.ResizeAsync(length);
                Array.Resize(ref twin, length);
                Assert.True(
                    (await ReadAsync(disk)).AsSpan().SequenceEqual(twin), $"{kind}, seed {seed}: after the {i}. change of the size");
            }
        }
        await RequireAsync(kind, memory, twin, $"{kind}, seed {seed}");
    }

    private static Task<MemoryNode> CreateAsync(string kind) => kind switch
    {
        "vdi" => VdiDisks.CreateAsync(Size, 4096),
        "parallels" => ParallelsDisks.CreateAsync(Size, 4096),
        "parallels-odd" => ParallelsDisks.CreateAsync(Size, 63 * 512),
        "parallels-original" => ParallelsDisks.CreateAsync(Size, 3 * 512, isExtended: false, dataOffset: 0),
        "vmdk" or "vmdk-zeroed" => CreateExtentAsync(kind.Equals("vmdk-zeroed", StringComparison.Ordinal)),
        "vmdk-cowd" => Task.FromResult(new MemoryNode(VmdkGoldenTests.Cowd(new byte[Size], 8, _ => false, Size / 512))),
        _ => new DiskFormat("vpc").CreateAsync($"size={Size},force_size,block_size={kind[4..]}"),
    };

    /// <summary>A sparse extent of small grains.</summary>
    private static async Task<MemoryNode> CreateExtentAsync(bool zeroedGrains)
    {
        var file = new MemoryNode();
        VmdkHeader header = VmdkCreator.Plan(Size, hasDescriptor: false, zeroedGrains) with { GrainSectors = 8 };
        await VmdkCreator.WriteSparseAsync(file, header, CancellationToken.None);
        return file;
    }

    private static async Task<BlockNode> OpenAsync(string kind, BlockNode file) => kind[..3] switch
    {
        "vdi" => await VdiDisks.OpenAsync(file),
        "par" => await ParallelsDisks.OpenAsync(file),
        _ => await new DiskFormat(kind.Split('-')[0]).OpenAsync(file),
    };

    private static async Task<byte[]> ReadAsync(BlockNode disk)
    {
        byte[] bytes = new byte[disk.Length];
        await disk.ReadAsync(0, bytes);
        return bytes;
    }

    private static async Task RequireAsync(string kind, MemoryNode memory, byte[] expected, string what)
    {
        await using BlockNode again = await OpenAsync(kind, new MemoryNode(memory.ToArray(), readOnly: true));
        Assert.True((await ReadAsync(again)).AsSpan().SequenceEqual(expected), $"{what}: opened again it reads otherwise");
        CheckReport report = await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
        IEnumerable<CheckFinding> findings = kind.StartsWith("vpc", StringComparison.Ordinal) // its discarded blocks may be left over
            ? report.Findings.Where(f => f.Severity is CheckSeverity.Corruption or CheckSeverity.Error) : report.Findings;
        Assert.True(!findings.Any(), $"{what}: {string.Join('\n', findings)}");
    }
}
