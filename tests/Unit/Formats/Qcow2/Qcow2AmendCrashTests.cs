using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// The power goes at some point while an option of an image is changed. Opened again, the disk reads the same, what it grew by reads
/// as zeroes, and nothing is wrong but leaks.
/// </summary>
public sealed class Qcow2AmendCrashTests
{
    private const int Size = 512 << 10, Prefixes = 60;

    private const string Backing = "backing_file=base.raw,backing_fmt=raw", DataFile = "data_file=disk.data";

    private static readonly FormatDriver s_qcow2 = Images.Registry.Format("qcow2");

    private static readonly (string Options, string Change)[] s_cases =
    [
        ("cluster_size=4k", "lazy_refcounts=on"),
        ("cluster_size=4k,lazy_refcounts=on", "lazy_refcounts=off"),
        ("cluster_size=4k,compat=0.10", "compat=1.1"),
        ("cluster_size=4k", "compat=0.10"),
        ($"cluster_size=4k,{Backing}", "compat=0.10"),
        ($"cluster_size=512,refcount_bits=8,{Backing}", "refcount_bits=16,compat=0.10"),
        ("cluster_size=512,refcount_bits=64", "refcount_bits=1"),
        ("cluster_size=4k", "refcount_bits=64"),
        ("cluster_size=16k,extended_l2=on", "refcount_bits=2"),
        ("cluster_size=512", "size=4M"),
        ($"cluster_size=4k,{Backing}", "size=4M,refcount_bits=32"),
        ($"cluster_size=4k,{DataFile},data_file_raw=on", "data_file_raw=off"),
    ];

    public static TheoryData<string, string> Cases()
    {
        var data = new TheoryData<string, string>();
        foreach ((string options, string change) in s_cases)
        {
            data.Add(options, change);
        }
        return data;
    }

    [Fact]
    public void Every_option_that_can_be_changed_has_a_case()
    {
        string[] changed = [.. s_cases.SelectMany(
            c => OptionSchema.Split(c.Change)).Select(o => o.Key).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
        // those of encryption change key slots: KeySlotTests cuts these short
        string[] options = [.. ((IAmendable)s_qcow2).AmendOptions.Options.Select(o => o.Name)
            .Where(n => !n.StartsWith("encrypt.", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
        Assert.Equal(options, changed);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Every_prefix_of_the_writes_reads_the_same(string options, string change)
    {
        byte[] backing = new byte[Size * 3 / 4];
        new Random(1).NextBytes(backing);
        var data = new MemoryNode();
        byte[] image = await MakeAsync(options, backing, data), contents = await ReadAsync(image, backing, data);
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        await using (BlockNode disk = await OpenAsync(log, backing, data))
        {
            var driver = (IAmendable)s_qcow2;
            await driver.AmendAsync(disk, driver.AmendOptions.Bind(OptionSchema.Split(change)), null, CancellationToken.None);
        }
        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        Assert.Contains(entries, e => e.Kind == WriteLogKind.Write);
        var file = new MemoryNode((byte[])image.Clone());
        for (int prefix = 0; prefix <= entries.Count; prefix++)
        {
            if (prefix > 0)
            {
                await WriteLogNode.ReplayAsync(entries[prefix - 1], file);
            }
            if (prefix % Math.Max(1, entries.Count / Prefixes) == 0 || prefix >= entries.Count - 6)
            {
                await SoundAsync(file.ToArray(), backing, data, contents, $"{options}, {change}, {prefix} of {entries.Count} requests");
            }
        }
        new Qcow2SpecReader(file.ToArray(), data.ToArray()).RequireSound($"{options}, {change}");
    }

    private static async Task SoundAsync(byte[] image, byte[] backing, MemoryNode data, byte[] contents, string what)
    {
        try
        {
            byte[] now = await ReadAsync(image, backing, data);
            Assert.True(
                contents.AsSpan().SequenceEqual(now.AsSpan(0, contents.Length)) && !now.AsSpan(contents.Length).ContainsAnyExcept((byte)0),
                $"{what}: reads otherwise");
            var file = new MemoryNode(image);
            // what is marked dirty is repaired
            await using BlockNode disk = await OpenAsync(new BorrowedNode(file, isReadOnly: false), backing, data);
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.True(
                report is { Corruptions: 0, CheckErrors: 0 },
                $"{what}: {report.Findings.FirstOrDefault(f => f.Severity != CheckSeverity.Leak)}");
            now = new byte[disk.Length];
            await disk.ReadAsync(0, now);
            Assert.True(
                contents.AsSpan().SequenceEqual(now.AsSpan(0, contents.Length)),
                $"{what}: reads otherwise after it was opened for writing");
        }
        catch (DiskImageException e)
        {
            Assert.Fail($"{what}: {e.Message}");
        }
    }

    /// <summary>
    /// Cancelled at any request: no mark is left, no finding but space at the end of the file, and the disk reads the same.
    /// </summary>
    [Theory]
    [InlineData("cluster_size=4k", "compat=0.10")]
    [InlineData($"cluster_size=4k,{Backing}", "compat=0.10")]
    [InlineData("cluster_size=4k,compat=0.10", "compat=1.1,refcount_bits=32")]
    [InlineData("cluster_size=512,refcount_bits=64", "refcount_bits=1")]
    public async Task Cancelled_it_leaves_no_mark(string options, string change)
    {
        byte[] backing = new byte[Size * 3 / 4];
        new Random(1).NextBytes(backing);
        var data = new MemoryNode();
        byte[] image = await MakeAsync(options, backing, data), expected = await ReadAsync(image, backing, data);
        int cancelled = 0;
        for (long number = 1; number <= 120; number += 1 + (number / 20))
        {
            using var stop = new CancellationTokenSource();
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new Trigger(memory);
            await using (BlockNode disk = await OpenAsync(file, backing, data))
            {
                file.At(number, stop.Cancel);
                try
                {
                    await ((IAmendable)s_qcow2).AmendAsync(
                        disk, ((IAmendable)s_qcow2).AmendOptions.Bind(OptionSchema.Split(change)), null, stop.Token);
                }
                catch (OperationCanceledException)
                {
                    cancelled++;
                }
                file.At(0, () => { });
            }
            string what = $"{options}, {change}, cancelled at request {number}";
            byte[] after = memory.ToArray();
            Assert.True((await ReadAsync(after, backing, data)).AsSpan().SequenceEqual(expected), $"{what}: reads otherwise");
            Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(after, what)).Leaks); // a dirty bit is an error there
        }
        Assert.NotEqual(0, cancelled);
    }

    private static async Task<byte[]> MakeAsync(string options, byte[] backing, MemoryNode data)
    {
        var file = new MemoryNode();
        var driver = (ICreatable)s_qcow2;
        await driver.CreateAsync(
            new FormatCreateContext(
                file,
                driver.CreateOptions.Bind(OptionSchema.Split($"size={Size},{options}")),
                OpenCompanion: (_, _, _) => new(new BorrowedNode(data, isReadOnly: false))),
            CancellationToken.None);
        await using (BlockNode disk = await OpenAsync(new BorrowedNode(file, isReadOnly: false), backing, data))
        {
            var random = new Random(2);
            for (int i = 0; i < 14; i++)
            {
                byte[] bytes = new byte[random.Next(1, 20_000)];
                random.NextBytes(bytes);
                int at = random.Next(Size - bytes.Length);
                await (i % 3 == 2
                    ? disk.WriteZeroesAsync(at, bytes.Length, i % 2 == 0 ? ZeroWriteMode.KeepAllocated : ZeroWriteMode.MayUnmap)
                    : disk.WriteAsync(at, bytes));
            }
        }
        return file.ToArray();
    }

    private static async Task<byte[]> ReadAsync(byte[] image, byte[] backing, MemoryNode data)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(image, readOnly: true), backing, data);
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        return contents;
    }

    private static ValueTask<BlockNode> OpenAsync(BlockNode file, byte[] backing, MemoryNode data)
        => s_qcow2.OpenAsync(
            new FormatOpenContext(
                file,
                s_qcow2.OpenOptions.Defaults(),
                (_, _, _) => new(new MemoryNode(backing, readOnly: true)),
                (_, _, _) => new(new BorrowedNode(data, file.IsReadOnly))),
            CancellationToken.None);
}
