using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults;

/// <summary>
/// What becomes of disks and jobs over a connection that hangs or is lost: waiting ends when it is told to, and nothing is left over.
/// </summary>
public sealed class TransportTests
{
    private const int Size = 6 << 20, Data = 200_000;

    private static readonly TimeSpan s_hang = TimeSpan.FromSeconds(60); // only a fault takes so long

    public static TheoryData<string, string> Formats => new()
    {
        { "raw", "" }, { "qcow2", "" }, { "qcow2", "extended_l2=on,cluster_size=128k" }, { "vpc", "" }, { "vpc", "subformat=fixed" },
        { "vhdx", "block_size=1M" }, { "vdi", "" },
        { "parallels", "" },
    };

    private static byte[] Contents()
    {
        byte[] contents = new byte[Size];
        new Random(5).NextBytes(contents.AsSpan(0, Size / 2)); // the other half was never written
        return contents;
    }

    private static async Task<(BlockNode Disk, TransportNode Transport)> OpenAsync(string format, string options, bool writable)
    {
        FormatDriver driver = Images.Registry.Format(format);
        var file = new MemoryNode();
        string size = $"size={Size}{(options.Length > 0 ? "," : "")}{options}";
        await ((ICreatable)driver).CreateAsync(
            new FormatCreateContext(file, ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split(size))), CancellationToken.None);
        await using (BlockNode filling = await driver.OpenAsync(Context(driver, file), CancellationToken.None))
        {
            await filling.WriteAsync(0, Contents().AsMemory(0, Size / 2));
        }
        var transport = new TransportNode(new MemoryNode(file.ToArray(), readOnly: !writable));
        return (await driver.OpenAsync(Context(driver, transport), CancellationToken.None), transport);
    }

    private static FormatOpenContext Context(FormatDriver driver, BlockNode file)
        => new(file, driver.OpenOptions.Defaults(), OpenBacking: null, (_, _, _) => throw new NotSupportedException());

    [Theory]
    [MemberData(nameof(Formats))]
    public async Task A_request_that_hangs_ends_when_it_is_cancelled_and_the_disk_goes_on(string format, string options)
    {
        (BlockNode disk, TransportNode transport) = await OpenAsync(format, options, writable: true);
        byte[] contents = Contents();
        await using (disk)
        {
            await disk.WriteAsync(Size - 1, new byte[] { contents[^1] }); // the first change may read all tables
            byte[] data = new byte[Data];
            new Random(6).NextBytes(data);
            foreach (Func<CancellationToken, ValueTask> request in new Func<CancellationToken, ValueTask>[]
            {
                t => disk.ReadAsync(1000, new byte[300_000], t),
                t => disk.WriteAsync(200_000, data, t), // over what is there
                t => disk.WriteAsync((Size / 2) + 123_456, data, t), // into new space
            })
            {
                transport.Stall(Data * 3 / 4); // a change of tables that has begun is not cancelled: it ends with the connection
                using var stop = new CancellationTokenSource();
                Task hanging = Task.Run(() => request(stop.Token).AsTask());
                while (transport.Stalled == 0 && !hanging.IsCompleted)
                {
                    await Task.Delay(1);
                }
                Task behind = Task.Run(() => request(stop.Token).AsTask()); // waits for the same range
                await stop.CancelAsync();
                try
                {
                    await Assert.ThrowsAnyAsync<OperationCanceledException>(() => hanging.WaitAsync(s_hang));
                    await Assert.ThrowsAnyAsync<OperationCanceledException>(() => behind.WaitAsync(s_hang));
                    Assert.Equal(0, transport.InFlight);
                }
                finally
                {
                    transport.LetGo();
                }
            }
            data.CopyTo(contents.AsSpan(200_000));
            await disk.WriteAsync(200_000, data).AsTask().WaitAsync(s_hang); // no range is held any more
            data.CopyTo(contents.AsSpan((Size / 2) + 123_456));
            await disk.WriteAsync((Size / 2) + 123_456, data).AsTask().WaitAsync(s_hang);
            byte[] read = new byte[Size];
            await disk.ReadAsync(0, read);
            Assert.True(contents.AsSpan().SequenceEqual(read));
            await disk.FlushAsync();
            if (disk.As<ICheckable>() is { } checkable)
            {
                Assert.DoesNotContain(
                    (await checkable.CheckAsync(null, CancellationToken.None)).Findings, f => f.Severity != CheckSeverity.Leak);
            }
        }
        Assert.True(transport.IsClosed);
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public async Task Jobs_end_when_they_are_cancelled_though_the_source_hangs(string format, string options)
    {
        (BlockNode disk, TransportNode transport) = await OpenAsync(format, options, writable: false);
        await using BlockNode other = new MemoryNode(new byte[Size]);
        foreach (Func<CancellationToken, Task> job in new Func<CancellationToken, Task>[]
        {
            t => new ConvertJob(disk, other, new ConvertOptions()).RunAsync(null, t),
            t => new CompareJob(disk, other, strict: false).RunAsync(null, t),
            t => new HashJob(disk, System.Security.Cryptography.HashAlgorithmName.SHA256).RunAsync(null, t),
        })
        {
            transport.Stall();
            using var stop = new CancellationTokenSource();
            Task running = Task.Run(() => job(stop.Token));
            while (transport.Stalled == 0 && !running.IsCompleted)
            {
                await Task.Delay(1);
            }
            await stop.CancelAsync();
            try
            {
                await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running.WaitAsync(s_hang));
                Assert.Equal(0, transport.InFlight); // nobody writes to a buffer that was given back
            }
            finally
            {
                transport.LetGo();
            }
        }
        await disk.DisposeAsync();
        Assert.True(transport.IsClosed);
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public async Task A_lost_connection_wakes_what_waits_and_fails_all_that_comes_with_its_cause(string format, string options)
    {
        (BlockNode disk, TransportNode transport) = await OpenAsync(format, options, writable: true);
        transport.Stall();
        Task[] waiting =
        [
            Task.Run(() => disk.ReadAsync(0, new byte[100_000]).AsTask()),
            Task.Run(() => disk.WriteAsync(1 << 20, new byte[] { 1, 2, 3 }).AsTask()),
            Task.Run(() => disk.WriteAsync(Size - 1000, new byte[1000]).AsTask()),
        ];
        while (transport.Stalled == 0)
        {
            await Task.Delay(1);
        }
        transport.Die();
        foreach (Task task in waiting)
        {
            Assert.Contains(
                "the connection is lost",
                (await Assert.ThrowsAsync<DiskImageException>(() => task.WaitAsync(s_hang))).Message,
                StringComparison.Ordinal);
        }
        Assert.Contains(
            "the connection is lost",
            (await Assert.ThrowsAsync<DiskImageException>(() => disk.ReadAsync(0, new byte[1]).AsTask())).Message,
            StringComparison.Ordinal);
        try
        {
            await disk.DisposeAsync().AsTask().WaitAsync(s_hang);
        }
        catch (DiskImageException e)
        {
            Assert.Contains("the connection is lost", e.Message, StringComparison.Ordinal); // what was to be written back
        }
        Assert.True(transport.IsClosed);
        Assert.Equal(0, transport.InFlight);
    }
}
