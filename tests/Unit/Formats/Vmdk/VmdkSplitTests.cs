using System.Globalization;
using System.Text;
using DiskImage.Block;
using DiskImage.Formats.Vmdk;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>Split disks get and lose files with their length: whole before the descriptor names them, gone after it does not.</summary>
public sealed class VmdkSplitTests : IDisposable
{
    private const int Part = 1 << 20;

    private static readonly DiskFormat s_vmdk = new("vmdk");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Kind, bytes before, bytes after.</summary>
    public static TheoryData<string, int, int> Changes() => new()
    {
        { "SPARSE", (2 * Part) + 5120, (4 * Part) + 1024 },
        { "SPARSE", 2 * Part, (2 * Part) + 512 },
        { "SPARSE", (3 * Part) + 512, Part + 512 },
        { "SPARSE", 3 * Part, Part },
        { "FLAT", (2 * Part) + 5120, (4 * Part) + 1024 },
        { "FLAT", 3 * Part, Part - 512 },
        { "ZEROED", (2 * Part) + 5120, (4 * Part) + 1024 },
    };

    [OracleTheory]
    [InlineData("twoGbMaxExtentSparse", "s", "")]
    [InlineData("twoGbMaxExtentFlat", "f", "")]
    [InlineData("twoGbMaxExtentSparse", "s", "base")]
    public async Task Files_come_and_go_with_the_length(string subformat, string letter, string parent)
    {
        const long GiB = 1L << 30;
        string given = "";
        if (parent.Length > 0)
        {
            await Images.CreateAsync(_folder["base.vmdk"], "vmdk", $"size={5 * GiB}"); // longer than the disk: zeroes must hide it
            await using BlockNode below = await Images.OpenAsync(_folder["base.vmdk"], writable: true);
            await below.WriteAsync((3 * GiB) + 512, new byte[] { 5, 5, 5 });
            given = ",backing_file=base.vmdk,zeroed_grain=on";
        }
        await Images.CreateAsync(_folder["a.vmdk"], "vmdk", $"size=1G,subformat={subformat}{given}");
        await File.WriteAllTextAsync(_folder[$"a-{letter}002.vmdk"], "somebody's");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(_folder["a.vmdk"], UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }
        byte[] data = Enumerable.Repeat((byte)9, 70_000).ToArray();
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true))
        {
            await disk.WriteAsync(GiB - data.Length, data);
            await disk.ResizeAsync((5 * GiB) + 512);
            await disk.WriteAsync((4 * GiB) - 100, data); // over two of the new ones
        }
        Assert.Equal(["a-X001.vmdk", "a-X002.vmdk", "a-X003.vmdk", "a-X004.vmdk"], Names());
        Assert.Equal("somebody's", await File.ReadAllTextAsync(_folder[$"a-{letter}002.vmdk"]));
        if (!OperatingSystem.IsWindows())
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(_folder[$"a-{letter}004.vmdk"]));
        }
        await RequireAsync((5 * GiB) + 512, [GiB - data.Length, (4 * GiB) - 100]);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true))
        {
            await disk.ResizeAsync(GiB + 512);
        }
        Assert.Equal(["a-X001.vmdk", "a-X002.vmdk"], Names());
        await RequireAsync(GiB + 512, [GiB - data.Length]);

        string[] Names() => [.. Directory.GetFiles(_folder.Root, "a-*").Select(f
            => Path.GetFileName(f).Replace($"a-{letter}", "a-X", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];

        async Task RequireAsync(long length, long[] written)
        {
            await using BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"]);
            Assert.Equal(length, disk.Length);
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
            string[] reads = [.. written.SelectMany(w => new[] { "-c", $"read -P 9 {w} {data.Length}" })];
            string said = await Programs.RunAsync("qemu-io", ["-f", "vmdk", "-r", "-c", "length", .. reads,
                "-c", $"read -P 0 {GiB} 512", .. length > 3 * GiB ? new[] { "-c", $"read -P 0 {3 * GiB} 2048" } : [],
                _folder["a.vmdk"]]);
            Assert.DoesNotContain("verification failed", said, StringComparison.Ordinal);
        }
    }

    [Theory]
    [MemberData(nameof(Changes))]
    public async Task A_crash_at_any_write_leaves_one_of_the_two_disks(string kind, int before, int after)
    {
        (MemoryFolder folder, byte[] contents) = await MakeAsync(kind, before);
        await using (BlockNode disk = await folder.OpenDiskAsync(s_vmdk, "a.vmdk"))
        {
            await disk.ResizeAsync(after);
        }
        await RequireAsync(folder.Files, contents, [after], "at the end");
        Assert.Equal(1 + ((after + Part - 1) / Part), folder.Files.Count);
        foreach (bool onlyFlushed in new[] { false, true })
        {
            await foreach ((int done, Dictionary<string, byte[]> files) in folder.StatesAsync(onlyFlushed))
            {
                await RequireAsync(files, contents, [before, after],
                    $"after {done} of {folder.Count}{(onlyFlushed ? ", flushed only" : "")}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Changes))]
    public async Task Whatever_fails_the_contents_are_whole_now_and_when_opened_again(string kind, int before, int after)
    {
        int failed = 0;
        for (int number = 1; ; number++)
        {
            (MemoryFolder folder, byte[] contents) = await MakeAsync(kind, before);
            BlockNode disk = await folder.OpenDiskAsync(s_vmdk, "a.vmdk");
            folder.Fail(number);
            DiskImageException? error = null;
            try
            {
                await disk.ResizeAsync(after);
            }
            catch (DiskImageException e)
            {
                error = e;
            }
            folder.Fail(0);
            Assert.Equal(folder.HasFailed, error is not null);
            Assert.Contains(disk.Length, new long[] { before, after });
            byte[] read = new byte[disk.Length];
            await disk.ReadAsync(0, read);
            DiskFormat.Same(Expected(contents, read.Length), read);
            try
            {
                await disk.DisposeAsync();
            }
            catch (DiskImageException)
            {
                Assert.NotNull(error); // what failed once goes on failing
            }
            await RequireAsync(folder.Files, contents, [before, after], $"request {number}");
            if (error is null)
            {
                break;
            }
            failed++;
        }
        Assert.True(failed > 3);
    }

    [Fact]
    public async Task What_is_not_named_like_a_file_of_a_split_disk_is_not_removed()
    {
        (MemoryFolder made, byte[] contents) = await MakeAsync("FLAT", 2 * Part);
        Dictionary<string, byte[]> files = made.Files;
        string text = Encoding.ASCII.GetString(files["a.vmdk"]).Replace("a-f002.vmdk", "mine.bin", StringComparison.Ordinal);
        var folder = new MemoryFolder([("a.vmdk", Encoding.ASCII.GetBytes(text)), ("a-f001.vmdk", files["a-f001.vmdk"]),
            ("mine.bin", files["a-f002.vmdk"])]);
        await using (BlockNode disk = await folder.OpenDiskAsync(s_vmdk, "a.vmdk"))
        {
            await disk.ResizeAsync(Part);
        }
        Assert.Equal(3, folder.Files.Count);
        DiskFormat.Same(contents[Part..], folder.Files["mine.bin"]);
    }

    [Fact]
    public async Task A_length_of_too_many_files_is_refused_before_anything_is_made()
    {
        (MemoryFolder folder, byte[] contents) = await MakeAsync("SPARSE", 2 * Part);
        await using (BlockNode disk = await folder.OpenDiskAsync(s_vmdk, "a.vmdk"))
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(8193L * Part));
            Assert.Contains("8,192", error.Message, StringComparison.Ordinal);
            Assert.Equal(DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(async ()
                => await disk.ResizeAsync(4 * Part, PreallocationMode.Full))).Kind);
        }
        await RequireAsync(folder.Files, contents, [2 * Part], "refused");
        Assert.Equal(3, folder.Files.Count);
    }

    [Fact]
    public async Task Of_a_descriptor_only_what_differs_is_written()
    {
        byte[] before = (await MakeAsync("FLAT", 20 * Part)).Folder.Files["a.vmdk"];
        Assert.True(before.Length > 512); // more than a disk writes whole or not at all
        long id = Encoding.ASCII.GetString(before).IndexOf("\nCID=", StringComparison.Ordinal) + 5;
        var inner = new MemoryNode(before);
        var file = new WriteLogNode(inner);
        VmdkDescriptorStore store = await VmdkDescriptorStore.ReadAsync(file, CancellationToken.None);
        uint other = store.Current.Cid ^ 0x11111111; // another in each digit
        await store.SetAsync(store.Current.WithCid(other)); // as every first write does
        await store.SetAsync(store.Current.WithCid(other));
        WriteLogEntry write = Assert.Single(file.Entries, e => e.Kind == WriteLogKind.Write);
        Assert.Equal((id, $"{other:x8}"), (write.Offset, Encoding.ASCII.GetString(write.Data.Span)));
        await store.SetAsync(store.Current.WithExtents([.. store.Current.Extents.Take(3)]));
        Assert.Equal(store.Current.ToBytes(), inner.ToArray());
    }

    private static byte[] Expected(byte[] contents, int length)
        => [.. contents.Take(length), .. new byte[Math.Max(0, length - contents.Length)]];

    private static async Task RequireAsync(Dictionary<string, byte[]> files, byte[] contents, int[] lengths, string what)
    {
        var folder = new MemoryFolder(files.Select(f => (f.Key, f.Value)));
        try
        {
            await using BlockNode disk = await folder.OpenDiskAsync(s_vmdk, "a.vmdk");
            Assert.Contains((int)disk.Length, lengths);
            byte[] read = new byte[disk.Length];
            await disk.ReadAsync(0, read);
            DiskFormat.Same(Expected(contents, read.Length), read);
            CheckReport report = await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
            Assert.Equal((0, 0), (report.Corruptions, report.CheckErrors));
            await disk.WriteAsync(disk.Length - 512, contents.AsMemory(0, 512));
            await disk.ResizeAsync(contents.Length + (2 * Part)); // what a crash left does not show
            byte[] more = new byte[disk.Length];
            await disk.ReadAsync(0, more);
            contents.AsSpan(0, 512).CopyTo(read.AsSpan(read.Length - 512));
            DiskFormat.Same(Expected(read, more.Length), more);
        }
        catch (Exception e) when (e is DiskImageException or Xunit.Sdk.XunitException)
        {
            Assert.Fail($"{what}: {e.Message}");
        }
    }

    /// <summary>A split disk whose files hold little of it each.</summary>
    private static async Task<(MemoryFolder Folder, byte[] Contents)> MakeAsync(string kind, int length)
    {
        bool isFlat = kind.Equals("FLAT", StringComparison.Ordinal);
        string type = isFlat ? "FLAT" : "SPARSE", letter = isFlat ? "f" : "s";
        var files = new List<(string, byte[])>();
        var text = new StringBuilder("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n");
        _ = text.Append(CultureInfo.InvariantCulture, $"createType=\"twoGbMaxExtent{(isFlat ? "Flat" : "Sparse")}\"\n");
        for (int start = 0; start < length; start += Part)
        {
            int count = Math.Min(Part, length - start);
            var file = new MemoryNode(new byte[isFlat ? count : 0]);
            if (!isFlat)
            {
                await VmdkCreator.WriteSparseAsync(
                    file, VmdkCreator.Plan(count, hasDescriptor: false, kind.Equals("ZEROED", StringComparison.Ordinal)), CancellationToken.None);
            }
            string name = string.Create(CultureInfo.InvariantCulture, $"a-{letter}{(start / Part) + 1:000}.vmdk");
            files.Add((name, file.ToArray()));
            _ = text.Append(CultureInfo.InvariantCulture, $"RW {count / 512} {type} \"{name}\"{(isFlat ? " 0" : "")}\n");
        }
        files.Add(("a.vmdk", Encoding.ASCII.GetBytes(text.ToString())));
        var folder = new MemoryFolder(files);
        byte[] contents = new byte[length];
        new Random(3).NextBytes(contents.AsSpan(length / 3, 200_000));
        new Random(4).NextBytes(contents.AsSpan(length - 200_000));
        await using (BlockNode disk = await folder.OpenDiskAsync(s_vmdk, "a.vmdk"))
        {
            await Images.FillAsync(disk, contents);
        }
        return (new MemoryFolder(folder.Files.Select(f => (f.Key, f.Value))), contents);
    }
}
