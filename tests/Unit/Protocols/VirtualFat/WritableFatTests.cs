using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Faults.Host;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.VirtualFat;

/// <summary>What is written to a folder's disk comes into the folder.</summary>
public sealed class WritableFatTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public WritableFatTests()
    {
        _ = Directory.CreateDirectory(Path.Combine(Tree, "sub", "deep"));
        _ = Directory.CreateDirectory(Path.Combine(Tree, "old folder"));
        foreach (string name in new[] { "KEEP.TXT", "change me.txt", "remove.txt", "sub/rename.dat", "sub/deep/leaf", "old folder/inside.bin", "empty" })
        {
            File.WriteAllBytes(Path.Combine(Tree, name), name == "empty" ? [] : Bytes(name.Length, 3000 + (name.Length * 700)));
        }
    }

    private string Tree => _folder["tree"];

    private string Image => _folder["disk.raw"];

    public void Dispose() => _folder.Dispose();

    [FatToolsTheory]
    [InlineData("fat:rw:12:", "6M")]
    [InlineData("fat:rw:16:", "8M")]
    [InlineData("fat:rw:32:", "40M")]
    [InlineData("fat:floppy:rw:", "")]
    public async Task New_changed_renamed_and_removed_files_come_into_the_folder(string words, string size)
    {
        DateTime kept = File.GetLastWriteTimeUtc(Path.Combine(Tree, "KEEP.TXT"));
        await using (FatSession session = await FatSession.OpenAsync($"{words}{Tree}", Image, size))
        {
            Change(session);
            await session.SendAsync();
            await session.Node.FlushAsync();
            FatTools.Compare(Image, session.IsFloppy, Tree, _folder["out"]);
            // once more, over what has been brought in
            await File.WriteAllBytesAsync(_folder["again"], Bytes(77, 9000));
            session.Tool("mcopy", "-o", _folder["again"], "::/new name ä.txt");
            session.Tool("mmove", "::/new folder/moved.dat", "::/back.dat");
            session.Tool("mdel", "::/change me.txt");
            await session.SendAsync();
        }
        FatTools.Compare(Image, words.Contains("floppy", StringComparison.Ordinal), Tree, _folder["out2"]);
        Assert.Equal(kept, File.GetLastWriteTimeUtc(Path.Combine(Tree, "KEEP.TXT")));
        Assert.False(File.Exists(Path.Combine(Tree, "remove.txt")));
        Assert.False(Directory.Exists(Path.Combine(Tree, "old folder")));
        Assert.Equal(Bytes(77, 9000), await File.ReadAllBytesAsync(Path.Combine(Tree, "new name ä.txt")));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Root, "*recovery*"));
    }

    [FatToolsFact]
    public async Task Two_files_that_change_places_and_a_folder_that_becomes_a_file()
    {
        await using (FatSession session = await FatSession.OpenAsync($"fat:rw:{Tree}", Image, "8M"))
        {
            Swap(session);
            await session.SendAsync();
        }
        FatTools.Compare(Image, false, Tree, _folder["out"]);
        Assert.True(File.Exists(Path.Combine(Tree, "old folder")));
        Assert.True(File.Exists(Path.Combine(Tree, "empty", "in it")));
    }

    [FatToolsFact]
    public async Task Random_changes_to_random_trees_arrive()
    {
        int rounds = Environment.GetEnvironmentVariable("DISKIMAGE_CAMPAIGN") is null ? 3 : 60;
        for (int seed = 0; seed < rounds; seed++)
        {
            var random = new Random(seed);
            string tree = Directory.CreateDirectory(_folder[$"random{seed}"]).FullName;
            List<string> files = [], folders = [""];
            for (int i = 0; i < 12; i++)
            {
                string name = $"{folders[random.Next(folders.Count)]}/n{i} {random.Next(100)}";
                if (random.Next(3) == 0)
                {
                    _ = Directory.CreateDirectory(tree + name);
                    folders.Add(name);
                }
                else
                {
                    await File.WriteAllBytesAsync(tree + name, Bytes(seed + i, random.Next(20_000)));
                    files.Add(name);
                }
            }
            await using (FatSession session = await FatSession.OpenAsync($"fat:rw:{tree}", Image, "8M"))
            {
                for (int i = 0; i < 25; i++)
                {
                    string fresh = $"{folders[random.Next(folders.Count)]}/made {i}";
                    int file = random.Next(Math.Max(1, files.Count));
                    switch (random.Next(6))
                    {
                        case 0 when files.Count > 0:
                            session.Tool("mdel", $"::{files[file]}");
                            files.RemoveAt(file);
                            break;
                        case 1 when files.Count > 0:
                            session.Tool("mmove", $"::{files[file]}", $"::{fresh}");
                            files[file] = fresh;
                            break;
                        case 2:
                            session.Tool("mmd", $"::{fresh}");
                            folders.Add(fresh);
                            break;
                        case 3:
                            await session.SendAsync();
                            await session.Node.FlushAsync();
                            break;
                        default:
                            await File.WriteAllBytesAsync(_folder["bytes"], Bytes(i, random.Next(30_000)));
                            string name = files.Count > 0 && random.Next(2) == 0 ? files[file] : fresh;
                            session.Tool("mcopy", "-o", _folder["bytes"], $"::{name}");
                            files.Remove(name);
                            files.Add(name);
                            break;
                    }
                }
                await session.SendAsync();
            }
            FatTools.Compare(Image, false, tree, _folder[$"out{seed}"]);
        }
    }

    [FatToolsTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Wherever_it_is_cut_short_each_name_leads_to_the_old_file_or_the_new_one(bool swaps)
    {
        Cuts cuts = await CutsAsync(swaps);
        for (int cut = 0; cut < cuts.Steps.Count; cut++)
        {
            StartAgain();
            FatSession session = await FatSession.OpenAsync($"fat:rw:{Tree}", Image, "8M");
            File.Copy(_folder["changed.raw"], Image, overwrite: true);
            await session.SendAsync();
            int left = cut;
            session.Node.OnStep = _ =>
            {
                if (left-- == 0)
                {
                    throw new OperationCanceledException(); // nothing that runs afterwards touches the folder
                }
            };
            _ = await Assert.ThrowsAsync<OperationCanceledException>(async () => await session.DisposeAsync());
            Judge(cuts, $"before step {cuts.Steps[cut]}");
        }
        await LastAsync();
    }

    [FatToolsFact]
    public async Task A_process_that_is_killed_leaves_each_name_with_the_old_file_or_the_new_one()
    {
        Cuts cuts = await CutsAsync(swaps: true);
        foreach (int cut in new[] { cuts.Steps.Count / 3, cuts.Steps.Count * 2 / 3, cuts.Steps.Count - 1 })
        {
            StartAgain();
            await HostFault.RunKilledAsync("fat", Tree, Image, _folder["changed.raw"], $"{cut}");
            Judge(cuts, $"killed before step {cuts.Steps[cut]}");
        }
        await LastAsync();
    }

    private sealed record Cuts(Dictionary<string, byte[]> Old, Dictionary<string, byte[]> Wanted, IReadOnlyList<string> Steps);

    /// <summary>Brings changes in once: what was there, what is there then, and the steps of it. The changed disk is kept.</summary>
    private async Task<Cuts> CutsAsync(bool swaps)
    {
        CopyTree(Tree, _folder["start"]);
        Dictionary<string, byte[]> old = Contents(Tree);
        var steps = new List<string>();
        await using (FatSession session = await FatSession.OpenAsync($"fat:rw:{Tree}", Image, "8M"))
        {
            session.Node.OnStep = steps.Add;
            if (swaps)
            {
                Swap(session);
            }
            else
            {
                Change(session);
            }
            await session.SendAsync();
        }
        File.Copy(Image, _folder["changed.raw"]);
        Assert.InRange(steps.Count, swaps ? 8 : 15, 100);
        return new Cuts(old, Contents(Tree), steps);
    }

    private void StartAgain()
    {
        Directory.Delete(Tree, recursive: true);
        CopyTree(_folder["start"], Tree);
    }

    private void Judge(Cuts cuts, string when)
    {
        Dictionary<string, byte[]> found = Contents(Tree);
        foreach (string name in cuts.Old.Keys.Union(cuts.Wanted.Keys, StringComparer.Ordinal).Union(found.Keys, StringComparer.Ordinal)
            .Where(n => !n.StartsWith(".diskimage", StringComparison.Ordinal)))
        {
            byte[]? now = found.GetValueOrDefault(name);
            Assert.True(IsSame(now, cuts.Old.GetValueOrDefault(name)) || IsSame(now, cuts.Wanted.GetValueOrDefault(name)), $"{name} {when}");
        }
        foreach (byte[] contents in cuts.Old.Values.Where(o => cuts.Wanted.Values.Any(w => IsSame(o, w))))
        {
            Assert.Contains(found.Values, f => IsSame(f, contents)); // nothing that is to stay is ever lost
        }
    }

    /// <summary>What was left is no obstacle.</summary>
    private async Task LastAsync()
    {
        await using (FatSession session = await FatSession.OpenAsync($"fat:rw:{Tree}", Image, "8M"))
        {
            session.Tool("mcopy", "/etc/hostname", "::/last");
            await session.SendAsync();
        }
        Assert.True(File.Exists(Path.Combine(Tree, "last")));
        Assert.False(Directory.Exists(Path.Combine(Tree, ".diskimage-incoming")));
    }

    [FatToolsFact]
    public async Task Links_and_what_others_changed_stay_and_the_disk_is_kept()
    {
        await File.WriteAllTextAsync(_folder["outside"], "outside");
        _ = Directory.CreateDirectory(_folder["elsewhere"]);
        _ = File.CreateSymbolicLink(Path.Combine(Tree, "link"), _folder["outside"]);
        _ = Directory.CreateSymbolicLink(Path.Combine(Tree, "links"), _folder["elsewhere"]);
        FatSession session = await FatSession.OpenAsync($"fat:rw:{Tree}", Image, "8M");
        session.Tool("mcopy", "/etc/hostname", "::/link");
        session.Tool("mmd", "::/links");
        session.Tool("mcopy", "/etc/hostname", "::/links/escaped");
        await File.WriteAllBytesAsync(_folder["new"], Bytes(5, 4000));
        session.Tool("mcopy", "-o", _folder["new"], "::/change me.txt");
        session.Tool("mcopy", "-o", _folder["new"], "::/fine");
        await session.SendAsync();
        await File.WriteAllTextAsync(Path.Combine(Tree, "change me.txt"), "by somebody else");
        var e = await Assert.ThrowsAsync<DiskImageException>(async () => await session.DisposeAsync());
        Assert.Equal(DiskImageErrorKind.WriteFailed, e.Kind);
        Assert.Contains("'link' is a link", e.Message, StringComparison.Ordinal);
        Assert.Contains("somebody else changed it", e.Message, StringComparison.Ordinal);
        Assert.Equal("outside", await File.ReadAllTextAsync(_folder["outside"]));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder["elsewhere"]));
        Assert.Equal("by somebody else", await File.ReadAllTextAsync(Path.Combine(Tree, "change me.txt")));
        Assert.Equal(Bytes(5, 4000), await File.ReadAllBytesAsync(Path.Combine(Tree, "fine")));
        string kept = Assert.Single(Directory.GetFiles(_folder.Root, "tree.recovery-*.raw"));
        Assert.Contains(kept, e.Message, StringComparison.Ordinal);
        _ = FatTools.Run("mcopy", ["-n", "-i", FatTools.At(kept, false), "::/change me.txt", _folder["saved"]]);
        Assert.Equal(Bytes(5, 4000), await File.ReadAllBytesAsync(_folder["saved"]));
    }

    [FatToolsTheory]
    [InlineData("12")]
    [InlineData("16")]
    [InlineData("32")]
    public async Task Whatever_a_guest_writes_stays_in_the_folder_and_ends(string type)
    {
        int rounds = Environment.GetEnvironmentVariable("DISKIMAGE_CAMPAIGN") is null ? 25 : 2000;
        string start = _folder["start"];
        CopyTree(Tree, start);
        await File.WriteAllTextAsync(_folder["outside"], "outside");
        for (int seed = 0; seed < rounds; seed++)
        {
            Directory.Delete(Tree, recursive: true);
            CopyTree(start, Tree);
            var random = new Random(seed);
            FatSession session = await FatSession.OpenAsync($"fat:rw:{type}:{Tree}", Image, type == "32" ? "40M" : "6M");
            byte[] boot = new byte[512];
            await session.Node.ReadAsync(FatTools.VolumeAt, boot);
            long table = FatTools.VolumeAt + (BitConverter.ToUInt16(boot, 14) * 512L);
            long data = table + (2L * 512 * (type == "32" ? BitConverter.ToUInt32(boot, 36) : BitConverter.ToUInt16(boot, 22)));
            byte[][] bad = [".          "u8.ToArray(), "..         "u8.ToArray(), "A/B     TXT"u8.ToArray(), [0xFF, 0xFF, 0xFF, 0xFF], [5, 0, 5, 0], [0, 0]];
            for (int i = random.Next(1, 12); i > 0; i--)
            {
                bool isTable = random.Next(2) == 0;
                long at = isTable ? table + random.Next(120) : data + random.Next(32 * 40) + (random.Next(4) == 0 ? random.Next(60_000) : 0);
                byte[] bytes = random.Next(3) == 0 ? bad[random.Next(bad.Length)] : [(byte)random.Next(256), (byte)random.Next(4)];
                at = bytes.Length == 11 ? at - ((at - data) % 32) : at;
                await session.Node.WriteAsync(Math.Max(at, table), bytes);
            }
            try
            {
                await session.Node.FlushAsync();
                await session.DisposeAsync();
            }
            catch (DiskImageException e)
            {
                Assert.Equal(DiskImageErrorKind.WriteFailed, e.Kind);
                await session.DisposeAsync();
            }
            Assert.Equal("outside", await File.ReadAllTextAsync(_folder["outside"]));
            foreach (string kept in Directory.GetFiles(_folder.Root, "tree.recovery-*.raw"))
            {
                File.Delete(kept);
            }
            Assert.Equal(
                ["disk.raw", "outside", "start", "tree"],
                Directory.GetFileSystemEntries(_folder.Root).Select(p => Path.GetFileName(p)).Order(StringComparer.Ordinal),
                StringComparer.Ordinal);
        }
    }

    [Fact]
    public async Task A_folder_that_is_not_for_writing_says_how_it_would_be()
    {
        var e = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync($"fat:{Tree}", writable: true));
        Assert.Equal(DiskImageErrorKind.ReadOnly, e.Kind);
        Assert.Contains("fat:rw:", e.Message, StringComparison.Ordinal);
        string[] before = FatTools.Listing(Tree);
        await using (OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest($"fat:{Tree}") { Writable = true, TemporaryOverlay = true }, CancellationToken.None))
        {
            await image.Node.WriteAsync(FatTools.VolumeAt + 4096, new byte[100_000]);
        }
        Assert.Equal(before, FatTools.Listing(Tree));
        await using BlockNode reading = await Images.OpenAsync($"fat:rw:{Tree}");
        Assert.True(reading.IsReadOnly);
        Assert.True(reading.Length > 512 << 20);
    }

    private static void Swap(FatSession session)
    {
        session.Tool("mmove", "::/KEEP.TXT", "::/tmp.txt");
        session.Tool("mmove", "::/remove.txt", "::/KEEP.TXT");
        session.Tool("mmove", "::/tmp.txt", "::/remove.txt");
        session.Tool("mdeltree", "::/old folder");
        session.Tool("mmove", "::/sub/rename.dat", "::/old folder");
        session.Tool("mdel", "::/empty");
        session.Tool("mmd", "::/empty");
        session.Tool("mcopy", "/etc/hostname", "::/empty/in it");
    }

    private void Change(FatSession session)
    {
        File.WriteAllBytes(_folder["a"], Bytes(1, 12_345));
        File.WriteAllBytes(_folder["b"], Bytes(2, 40_000));
        session.Tool("mcopy", _folder["a"], "::/new name ä.txt");
        session.Tool("mcopy", "-o", _folder["b"], "::/change me.txt");
        session.Tool("mdel", "::/remove.txt");
        session.Tool("mmd", "::/new folder");
        session.Tool("mmove", "::/sub/rename.dat", "::/new folder/moved.dat");
        session.Tool("mmove", "::/old folder", "::/sub/other folder");
        session.Tool("mcopy", _folder["a"], "::/sub/deep/NEW.DAT");
    }

    private static Dictionary<string, byte[]> Contents(string folder)
        => Directory.EnumerateFiles(folder, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0 })
            .ToDictionary(p => Path.GetRelativePath(folder, p), File.ReadAllBytes, StringComparer.Ordinal);

    private static bool IsSame(byte[]? one, byte[]? other) => one is null ? other is null : other is not null && one.AsSpan().SequenceEqual(other);

    private static void CopyTree(string from, string to)
    {
        _ = Directory.CreateDirectory(to);
        foreach (string folder in Directory.EnumerateDirectories(from, "*", SearchOption.AllDirectories))
        {
            _ = Directory.CreateDirectory(Path.Combine(to, Path.GetRelativePath(from, folder)));
        }
        foreach (string file in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories))
        {
            string copy = Path.Combine(to, Path.GetRelativePath(from, file));
            File.Copy(file, copy);
            File.SetLastWriteTimeUtc(copy, File.GetLastWriteTimeUtc(file));
        }
    }

    private static byte[] Bytes(int seed, int length)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }
}
