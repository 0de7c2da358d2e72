using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>
/// The host fails a request now and then: what was asked for is done or not, and nothing else changes, now or when opened again.
/// </summary>
public sealed class VpcFaultTests
{
    private const int Size = 512 << 10;

    public static TheoryData<int, string> Runs()
    {
        var data = new TheoryData<int, string>();
        for (int seed = 0; seed < 6; seed++)
        {
            data.Add(seed, "block_size=4k,force_size");
            data.Add(seed, "block_size=64k,force_size");
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Runs))]
    public async Task A_failed_request_leaves_old_or_new(int seed, string options)
    {
        var random = new Random(seed);
        var memory = new MemoryNode();
        await VpcDisks.CreateAsync(memory, $"size={Size},{options}");
        var faults = new FaultInjectionNode(memory);
        byte[] twin = new byte[Size];
        await using (BlockNode disk = await VpcDisks.OpenAsync(faults))
        {
            for (int i = 0; i < 300; i++)
            {
                byte[] next = (byte[])twin.Clone();
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
                    byte[] now = await VpcDisks.ReadAsync(disk);
                    for (int b = 0; b < Size; b++)
                    {
                        Assert.True(now[b] == twin[b] || now[b] == next[b], $"seed {seed}, step {i}: byte {b} is neither old nor new");
                    }
                    twin = now;
                }
                faults.Arm(null);
            }
        }
        await using BlockNode again = await VpcDisks.OpenAsync(new MemoryNode(memory.ToArray(), readOnly: true));
        byte[] reread = await VpcDisks.ReadAsync(again);
        Assert.True(twin.AsSpan().SequenceEqual(reread), $"seed {seed}: opened again it reads otherwise");
        Assert.DoesNotContain(
            (await VpcDisks.CheckAsync(again)).Findings, f => f.Severity is CheckSeverity.Corruption or CheckSeverity.Error);
    }
}
