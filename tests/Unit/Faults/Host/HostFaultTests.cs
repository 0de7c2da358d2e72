using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults.Host;

/// <summary>Files whose system calls fail: flushes that lose data, full disks, limits of the session.</summary>
public sealed class HostFaultTests : IDisposable
{
    private const long Size = 8 << 20;
    private const long Slack = 1 << 20; // tables that grew and stay large

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>One flush fails; the host would report success to the next. Nothing may be written, or given back, from there on.</summary>
    [HostFaultTheory]
    [InlineData("raw", "", 0)]
    [InlineData("qcow2", "", 1)]
    [InlineData("qcow2", "", 3)]
    [InlineData("qcow2", "lazy_refcounts=on", 2)]
    [InlineData("vhdx", "", 4)]
    [InlineData("vhdx", "", 9)]
    [InlineData("vpc", "", 1)]
    [InlineData("vpc", "subformat=fixed", 1)]
    public async Task After_a_failed_flush_nothing_more_is_written(string format, string options, int goodFlushes)
    {
        string path = await MakeAsync(format, options);
        string[] lines = await HostFault.RunAsync(
            new HostFault("disk.", "fsync", HostFault.IoError) { Skip = goodFlushes, Count = 1 }, "write-on", path, format);
        string first = lines.Single(l => l.StartsWith("first ", StringComparison.Ordinal)
            && !l.EndsWith(" done", StringComparison.Ordinal));
        Assert.StartsWith("first WriteFailed", first, StringComparison.Ordinal);
        foreach (string what in new[] { "flush", "write", "zero", "discard", "resize" })
        {
            string line = lines.Single(l => l.StartsWith(what + " ", StringComparison.Ordinal));
            Assert.StartsWith($"{what} WriteFailed", line, StringComparison.Ordinal);
            Assert.Contains("cannot make what was written durable", line, StringComparison.Ordinal); // the first cause
        }
        Assert.Contains("read done", lines, StringComparer.Ordinal);
        Assert.Contains("file unchanged", lines, StringComparer.Ordinal);
        if (format.Equals("qcow2", StringComparison.Ordinal) && Programs.Find("qemu-img") is not null)
        {
            (int code, string output, _) = await Programs.TryAsync("qemu-img", "check", "-r", "leaks", path);
            Assert.True(code is 0 or 3 || options.Contains("lazy", StringComparison.Ordinal), output);
        }
    }

    [HostFaultTheory]
    [InlineData("pwrite", HostFault.NoSpace, "NoSpace", "the disk is full")]
    [InlineData("pwrite", HostFault.QuotaExceeded, "NoSpace", "your quota on this disk is used up")]
    [InlineData("pwrite", HostFault.IoError, "WriteFailed", "cannot write at offset 0")]
    [InlineData("fsync", HostFault.NoSpace, "NoSpace", "the disk is full")]
    [InlineData("fsync", HostFault.QuotaExceeded, "NoSpace", "your quota on this disk is used up")]
    public async Task Failures_to_write_have_their_kind(string call, int error, string kind, string text)
    {
        string path = await MakeAsync("raw", "");
        string[] lines = await HostFault.RunAsync(new HostFault("disk.", call, error), "write-on", path, "raw");
        Assert.StartsWith($"first {kind}", lines[0], StringComparison.Ordinal);
        Assert.Contains(text, lines[0], StringComparison.Ordinal);
    }

    /// <summary>A resize for which there is no room leaves the old size, no leak and a sound image.</summary>
    [HostFaultTheory]
    [MemberData(nameof(Resizes))]
    public async Task A_resize_on_a_full_disk_leaves_things_as_they_were(string format, string options, string preallocation, long room)
    {
        string path = await MakeAsync(format, options);
        byte[] before = await ReadAsync(path, format);
        long fileLength = new FileInfo(path).Length;
        string[] lines = await HostFault.RunAsync(
            new HostFault("disk.", "pwrite,fallocate,ftruncate", HostFault.NoSpace) { Limit = fileLength + room },
            "resize",
            path,
            format,
            $"{Size * 4}",
            preallocation);
        Assert.StartsWith("resize NoSpace", lines[0], StringComparison.Ordinal);
        Assert.Equal($"length {before.Length}", lines[1]);
        Assert.Equal("close done", lines[2]);
        Assert.Equal(before, await ReadAsync(path, format));
        await using BlockNode disk = await Images.OpenAsync(path, format);
        CheckReport? report = disk is ICheckable checkable ? await checkable.CheckAsync(null, CancellationToken.None) : null;
        Assert.Empty(report?.Findings.Where(f => f.Severity != CheckSeverity.Warning) ?? []);
        Assert.InRange(new FileInfo(path).Length, 0, fileLength + Slack);
    }

    public static TheoryData<string, string, string, long> Resizes()
    {
        var data = new TheoryData<string, string, string, long> { { "raw", "", "Off", 0 } };
        foreach ((
            string format,
            string options) in new[] { ("raw", ""),
            ("qcow2", ""),
            ("qcow2", "extended_l2=on"),
            ("vhdx", ""),
            ("vhdx", "subformat=fixed"),
            ("vpc", ""),
            ("vpc", "subformat=fixed") })
        {
            foreach (string preallocation in new[] { "Falloc", "Full" })
            {
                data.Add(format, options, preallocation, 0);
                data.Add(format, options, preallocation, 10 << 20);
            }
        }
        return data;
    }

    /// <summary>The limit that a session sets for files is an error of a write, not the end of the session.</summary>
    [HostFaultFact]
    public async Task A_write_past_the_limit_of_the_session_is_an_error()
    {
        string path = await MakeAsync("raw", "");
        string[] lines = await HostFault.RunAsync(null, "limit", path, $"{Size * 2}");
        Assert.Equal("inside done", lines[0]);
        foreach ((string what, string line) in new[] { "resize", "preallocate", "write" }.Zip(lines.Skip(1)))
        {
            Assert.StartsWith($"{what} NoSpace", line, StringComparison.Ordinal);
            Assert.Contains("allows for one file", line, StringComparison.Ordinal);
        }
        Assert.Equal("child unharmed", lines[4]);
        Assert.Equal(Size * 2, new FileInfo(path).Length);
    }

    private async Task<string> MakeAsync(string format, string options)
    {
        string path = _folder[$"disk.{format}"];
        await Images.CreateAsync(path, format, options.Length == 0 ? $"size={Size}" : $"size={Size},{options}");
        byte[] data = new byte[(int)Size / 2];
        new Random(5).NextBytes(data);
        await using BlockNode disk = await Images.OpenAsync(path, format, writable: true);
        await disk.WriteAsync(0, data);
        return path;
    }

    private static async Task<byte[]> ReadAsync(string path, string format)
    {
        await using BlockNode disk = await Images.OpenAsync(path, format);
        byte[] all = new byte[disk.Length];
        await disk.ReadAsync(0, all);
        return all;
    }
}
