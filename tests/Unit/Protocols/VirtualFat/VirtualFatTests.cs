using System.Text;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.VirtualFat;

/// <summary>Folders as disks that are read, judged by fsck.fat and mtools.</summary>
public sealed class VirtualFatTests : IDisposable
{
    private readonly TestFolder _folder = new();

    private string Tree => _folder["tree"];

    public VirtualFatTests() => Directory.CreateDirectory(Tree);

    public void Dispose() => _folder.Dispose();

    [FatToolsTheory]
    [InlineData("", false)]
    [InlineData("12:", false)]
    [InlineData("16:", false)]
    [InlineData("32:", false)]
    [InlineData("floppy:", true)]
    [InlineData("floppy:16:", true)]
    public async Task Every_file_has_its_name_and_bytes(string words, bool isFloppy)
    {
        MakeTree(seed: 1, most: isFloppy ? 20_000 : 100_000);
        await FatTools.SaveAsync($"fat:{words}{Tree}", _folder["disk.raw"]);
        FatTools.Check(_folder["disk.raw"], isFloppy);
        FatTools.Compare(_folder["disk.raw"], isFloppy, Tree, _folder["out"]);
        foreach (string file in Directory.EnumerateFiles(Tree, "*", SearchOption.AllDirectories))
        {
            string name = Path.GetRelativePath(Tree, file).Replace("😀", "__", StringComparison.Ordinal);
            DateTime copied = File.GetLastWriteTimeUtc(Path.Combine(_folder["out"], name));
            Assert.InRange(File.GetLastWriteTimeUtc(file) - copied, TimeSpan.Zero, TimeSpan.FromSeconds(2));
        }
    }

    [FatToolsFact]
    public async Task A_tree_of_random_names_is_as_it_was()
    {
        string[] signs = ["a", "B", ".", " ", "ä", "日", "😀", "~", "1", "+", "[", "%", "İ", "ß"];
        for (int seed = 0; seed < 8; seed++)
        {
            var random = new Random(seed);
            string tree = Directory.CreateDirectory(_folder[$"names{seed}"]).FullName;
            var taken = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
            for (int i = 0; i < 150; i++)
            {
                string name = string.Concat(Enumerable.Range(0, random.Next(1, 60)).Select(_ => signs[random.Next(signs.Length)])) + "x";
                if (taken.Add(name) && Encoding.UTF8.GetByteCount(name) < 250)
                {
                    await File.WriteAllTextAsync(Path.Combine(tree, name), name);
                }
            }
            await FatTools.SaveAsync($"fat:{tree}", _folder["disk.raw"]);
            FatTools.Check(_folder["disk.raw"], isFloppy: false);
            FatTools.Compare(_folder["disk.raw"], isFloppy: false, tree, _folder[$"out{seed}"]);
        }
    }

    [FatToolsFact]
    public async Task Short_names_are_unique_and_the_exact_ones_are_kept()
    {
        string[] names = ["LONGFI~1.TXT", .. Enumerable.Range(0, 120).Select(i => $"long file {i:000}.txt"), "noext", ".hidden", "a.b.c", "README.MD"];
        foreach (string name in names)
        {
            await File.WriteAllTextAsync(Path.Combine(Tree, name), name);
        }
        await FatTools.SaveAsync($"fat:{Tree}", _folder["disk.raw"]);
        FatTools.Check(_folder["disk.raw"], isFloppy: false);
        FatTools.Compare(_folder["disk.raw"], isFloppy: false, Tree, _folder["out"]);
        Assert.Equal("LONGFI~1.TXT", FatTools.Run("mtype", ["-i", FatTools.At(_folder["disk.raw"], false), "::/LONGFI~1.TXT"]));
        Assert.StartsWith("long file", FatTools.Run("mtype", ["-i", FatTools.At(_folder["disk.raw"], false), "::/LONGF~10.TXT"]),
            StringComparison.Ordinal);
    }

    [FatToolsFact]
    public async Task A_label_can_be_given_and_has_a_default()
    {
        await File.WriteAllTextAsync(Path.Combine(Tree, "user-data"), "#cloud-config\n");
        await FatTools.SaveAsync($"fat:{Tree}", _folder["a.raw"]);
        Assert.Contains("QEMU VVFAT", FatTools.Run("mlabel", ["-s", "-i", FatTools.At(_folder["a.raw"], false), "::"]), StringComparison.Ordinal);
        await FatTools.SaveAsync(FatTools.Json(Tree, ("label", "cidata")), _folder["b.raw"]);
        FatTools.Check(_folder["b.raw"], isFloppy: false);
        Assert.Contains("CIDATA", FatTools.Run("mlabel", ["-s", "-i", FatTools.At(_folder["b.raw"], false), "::"]), StringComparison.Ordinal);
        var e = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(FatTools.Json(Tree, ("label", "a/b"))));
        Assert.Contains("'/'", e.Message, StringComparison.Ordinal);
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
    }

    [FatToolsTheory]
    [InlineData(4, 12, 1)]
    [InlineData(64, 16, 1)]
    [InlineData(400, 16, 1)]
    [InlineData(600, 32, 1)]
    [InlineData(0, 32, 300)]
    public async Task The_type_follows_from_the_size(int sizeInMiB, int type, int files)
    {
        for (int i = 0; i < files; i++)
        {
            await using FileStream file = File.Create(Path.Combine(Tree, $"file {i}"));
            file.SetLength(files == 1 ? 100_000 : 2 << 20);
        }
        string locator = sizeInMiB == 0 ? $"fat:{Tree}" : FatTools.Json(Tree, ("size", $"{sizeInMiB}M"));
        await using (BlockNode node = await Images.OpenAsync(locator))
        {
            Assert.True(sizeInMiB == 0 || node.Length == (long)sizeInMiB << 20);
            byte[] boot = new byte[512];
            await node.ReadAsync(FatTools.VolumeAt, boot);
            Assert.Contains($"FAT{type} ", Encoding.ASCII.GetString(boot), StringComparison.Ordinal);
            await FatTools.SaveAsync(node, _folder["disk.raw"]);
        }
        FatTools.Check(_folder["disk.raw"], isFloppy: false);
        Assert.Contains("file 0", FatTools.Run("mdir", ["-b", "-i", FatTools.At(_folder["disk.raw"], false), "::/"]), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_same_tree_is_the_same_disk_and_is_no_other_format()
    {
        MakeTree(seed: 3, most: 5_000);
        await File.WriteAllBytesAsync(Path.Combine(Tree, "zz"), [.. new byte[512 * 2000], .. "conectix"u8, .. new byte[504]]);
        await FatTools.SaveAsync($"fat:{Tree}", _folder["a.raw"]);
        await FatTools.SaveAsync($"fat:{Tree}", _folder["b.raw"]);
        Assert.Equal(await File.ReadAllBytesAsync(_folder["a.raw"]), await File.ReadAllBytesAsync(_folder["b.raw"]));
        await using OpenedImage image = await Images.Opener.OpenAsync(new OpenRequest($"fat:{Tree}"), CancellationToken.None);
        Assert.Equal("raw", image.Format.Name);
        Assert.False(image.WasProbed);
        Assert.True(image.Node.IsReadOnly);
    }

    [Fact]
    public async Task A_relative_folder_is_taken_from_where_paths_are_taken_from()
    {
        await File.WriteAllTextAsync(Path.Combine(Tree, "a"), "a");
        await using OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest("fat:./tree") { Folder = _folder.Root }, CancellationToken.None);
        Assert.Equal($"fat:{Tree}", image.Node.Name);
    }

    [Fact]
    public async Task What_changed_since_it_was_opened_is_an_error_and_the_rest_is_read()
    {
        string[] paths = [.. new[] { "gone", "longer", "written", "replaced", "same" }.Select(n => Path.Combine(Tree, n))];
        foreach (string path in paths)
        {
            await File.WriteAllTextAsync(path, "0123456789");
        }
        await using BlockNode node = await Images.OpenAsync($"fat:{Tree}");
        File.Delete(paths[0]);
        await File.AppendAllTextAsync(paths[1], "x");
        await File.WriteAllTextAsync(paths[2], "9876543210");
        File.SetLastWriteTimeUtc(paths[2], DateTime.UtcNow.AddSeconds(5));
        await File.WriteAllTextAsync(_folder["other"], "0123456789");
        File.SetLastWriteTimeUtc(_folder["other"], File.GetLastWriteTimeUtc(paths[3]));
        File.Move(_folder["other"], paths[3], overwrite: true);
        var said = new List<string>();
        int read = 0;
        for (long at = 0; at < node.Length; at += 512)
        {
            byte[] sector = new byte[512];
            try
            {
                await node.ReadAsync(at, sector);
                read += Encoding.ASCII.GetString(sector).StartsWith("0123456789", StringComparison.Ordinal) ? 1 : 0;
            }
            catch (DiskImageException e)
            {
                Assert.Equal(DiskImageErrorKind.Io, e.Kind);
                said.Add(e.Message);
            }
        }
        Assert.Equal(1, read);
        Assert.Equal(
            [(paths[0], "is gone"), (paths[1], "11 bytes"), (paths[3], "another"), (paths[2], "written to")],
            said.Select(s => (s[..s.IndexOf(':', StringComparison.Ordinal)],
                new[] { "is gone", "11 bytes", "another", "written to" }.Single(w => s.Contains(w, StringComparison.Ordinal))))
                .OrderBy(p => Path.GetFileName(p.Item1) switch { "gone" => 0, "longer" => 1, "replaced" => 2, _ => 3 }));
    }

    [Fact]
    public async Task What_a_volume_cannot_have_is_said_and_left_out()
    {
        if (OperatingSystem.IsWindows())
        {
            return; // such names cannot be made there
        }
        await File.WriteAllTextAsync(_folder["secret"], "outside");
        await File.WriteAllTextAsync(Path.Combine(Tree, "good"), "inside");
        foreach (string bad in new[] { "a:b", "what?", "ends.", "tab\there", "Good" })
        {
            await File.WriteAllTextAsync(Path.Combine(Tree, bad), "x");
        }
        _ = File.CreateSymbolicLink(Path.Combine(Tree, "out"), _folder["secret"]);
        _ = File.CreateSymbolicLink(Path.Combine(Tree, "in"), "good");
        _ = File.CreateSymbolicLink(Path.Combine(Tree, "up"), "../tree");
        _ = File.CreateSymbolicLink(Path.Combine(Tree, "nowhere"), "not there");
        FatTools.Run("mkfifo", [Path.Combine(Tree, "pipe")]);
        var warnings = new List<string>();
        var opener = new ImageOpener(Images.Registry, OpenPolicy.Default, w => warnings.Add(w.ToString()));
        await using OpenedImage image = await opener.OpenAsync(new OpenRequest($"fat:{Tree}"), CancellationToken.None);
        await FatTools.SaveAsync(image.Node, _folder["disk.raw"]);
        string[] left = ["Good", "a:b", "ends.", "nowhere", "out", "pipe", "tab\\u0009here", "up", "what?"];
        Assert.Equal(left.Length, warnings.Count);
        string all = string.Join('\n', warnings.Select(w => Printable.Of(w)));
        Assert.All(left, l => Assert.Contains($"{Tree}/{(l == "Good" ? "good" : l)}: is not on the disk", all, StringComparison.Ordinal));
        if (FatTools.AreThere)
        {
            Assert.Equal("inside", FatTools.Run("mtype", ["-i", FatTools.At(_folder["disk.raw"], false), "::/in"]));
        }
        Assert.DoesNotContain("outside", Encoding.Latin1.GetString(await File.ReadAllBytesAsync(_folder["disk.raw"])), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_too_large_is_told_with_its_name()
    {
        string path = Path.Combine(Tree, "large file");
        await using (FileStream file = File.Create(path))
        {
            file.SetLength(uint.MaxValue);
        }
        await using (BlockNode node = await Images.OpenAsync($"fat:{Tree}"))
        {
            Assert.True(node.Length > uint.MaxValue);
        }
        foreach ((string locator, string says) in new[]
        {
            ($"fat:floppy:{Tree}", "floppy"), ($"fat:12:{Tree}", "FAT12"), (FatTools.Json(Tree, ("size", "64M")), "67,108,864"),
        })
        {
            var small = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(locator));
            Assert.Equal(DiskImageErrorKind.OutOfRange, small.Kind);
            Assert.Contains(says, small.Message, StringComparison.Ordinal);
        }
        await using (FileStream file = File.OpenWrite(path))
        {
            file.SetLength(uint.MaxValue + 1L);
        }
        var e = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync($"fat:{Tree}"));
        Assert.Equal(DiskImageErrorKind.OutOfRange, e.Kind);
        Assert.Equal(path, e.Path);
        Assert.Contains("4,294,967,296", e.Message, StringComparison.Ordinal);
    }

    [OracleFact]
    public async Task The_files_of_a_tree_are_those_that_QEMU_shows()
    {
        foreach (string name in new[] { "one.txt", "two", "folder/three long name.data", "folder/inner/FOUR.BIN" })
        {
            string path = Path.Combine(Tree, name);
            _ = Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            await File.WriteAllBytesAsync(path, Enumerable.Range(0, 70_000).Select(i => (byte)(i * name.Length)).ToArray());
        }
        FatTools.Run("qemu-img", ["convert", "-f", "raw", "-O", "raw", $"fat:{Tree}", _folder["theirs.raw"]]);
        await FatTools.SaveAsync($"fat:{Tree}", _folder["ours.raw"]);
        foreach ((string image, int at) in new[] { ("theirs", 63 * 512), ("ours", FatTools.VolumeAt) })
        {
            _ = Directory.CreateDirectory(_folder[image]);
            FatTools.Run("mcopy", ["-s", "-Q", "-i", $"{_folder[$"{image}.raw"]}@@{at}", "::/*", _folder[image]]);
        }
        Assert.Equal(FatTools.Listing(_folder["theirs"]), FatTools.Listing(_folder["ours"]));
    }

    /// <summary>A tree of folders and files of all lengths around those of clusters.</summary>
    private void MakeTree(int seed, int most)
    {
        var random = new Random(seed);
        string[] folders = ["", "folder", "folder/in folder", "Ordner mit Ümläuten", "empty"];
        foreach (string folder in folders)
        {
            _ = Directory.CreateDirectory(Path.Combine(Tree, folder));
        }
        int[] lengths = [0, 1, 511, 512, 513, 2048, 4096, 4097, most / 2, most];
        for (int i = 0; i < 40; i++)
        {
            byte[] bytes = new byte[lengths[i % lengths.Length]];
            random.NextBytes(bytes);
            string name = (i % 4) switch { 0 => $"F{i}.DAT", 1 => $"a file with a long name {i}.text", 2 => $"emoji 😀{i}", _ => $"f{i}" };
            string path = Path.Combine(Tree, folders[i % 4], name);
            File.WriteAllBytes(path, bytes);
            File.SetLastWriteTimeUtc(path, new DateTime(2001, 2, 3, 4, 5, 6, DateTimeKind.Utc).AddSeconds(i * 1_000_001));
        }
    }
}
