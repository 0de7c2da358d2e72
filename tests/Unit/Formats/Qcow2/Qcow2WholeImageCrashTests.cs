using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// The power goes at some point of a change of the whole image. Opened again, the disk shows the old or the new contents, its
/// snapshots what they kept, and after the repair that an unclean image gets on opening nothing is wrong but leaks.
/// </summary>
public sealed class Qcow2WholeImageCrashTests
{
    private const int Size = 640 << 10;

    public static TheoryData<string, string> Cases()
    {
        var data = new TheoryData<string, string>();
        foreach (string options in new[]
        {
            "cluster_size=4k", "cluster_size=512,refcount_bits=64", "cluster_size=4k,compat=0.10", "cluster_size=16k,extended_l2=on",
        })
        {
            foreach (string change in new[]
            {
                "create", "restore", "delete", "grow", "shrink", "empty", "rebase", "amend-refcounts", "amend-compat", "repair",
            })
            {
                if (!(options.Contains("0.10", StringComparison.Ordinal) && change is "grow" or "shrink"))
                {
                    data.Add(options, change);
                }
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Every_prefix_of_the_writes_shows_old_or_new(string options, string change)
    {
        bool version2 = options.Contains("0.10", StringComparison.Ordinal);
        if ((version2 && change is "amend-refcounts" or "amend-compat")
            || (change == "amend-compat" && options.Contains("extended", StringComparison.Ordinal))
            || (change == "amend-compat" && options.Contains("refcount_bits", StringComparison.Ordinal)))
        {
            change = "create"; // that option cannot be amended there; the row still tests something
        }
        bool withSnapshots = change is "create" or "restore" or "delete" or "repair";
        (byte[] image, byte[] kept) = await MakeAsync(options, withSnapshots);
        byte[] old = await ReadAsync(image);
        if (change == "repair")
        {
            image.AsSpan((int)FirstL2(image), 16).Fill(0xA5);
            old = []; // what is damaged may read either way
        }

        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        await using (BlockNode disk = await OpenAsync(log, forRepair: change == "repair"))
        {
            await ChangeAsync(disk, change);
        }
        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        var final = new MemoryNode((byte[])image.Clone());
        foreach (WriteLogEntry entry in entries)
        {
            await WriteLogNode.ReplayAsync(entry, final);
        }
        byte[] @new = await ReadAsync(final.ToArray());
        int step = Math.Max(1, entries.Count / 60);
        var file = new MemoryNode((byte[])image.Clone());
        for (int prefix = 0; prefix <= entries.Count; prefix++)
        {
            if (prefix > 0)
            {
                await WriteLogNode.ReplayAsync(entries[prefix - 1], file);
            }
            if (prefix % step == 0 || prefix >= entries.Count - 6)
            {
                await SoundAsync(file.ToArray(), old, @new, kept, change, $"{options}, {change}, {prefix} of {entries.Count} requests");
            }
        }
    }

    private static async Task SoundAsync(byte[] image, byte[] old, byte[] @new, byte[] kept, string change, string what)
    {
        var file = new MemoryNode((byte[])image.Clone());
        try
        {
            await using BlockNode disk = await OpenAsync(file, forRepair: false); // repairs what is marked dirty
            byte[] now = new byte[disk.Length];
            await disk.ReadAsync(0, now);
            Assert.True(change == "repair" || now.AsSpan().SequenceEqual(old)
                || now.AsSpan().SequenceEqual(@new), $"{what}: neither the old contents nor the new");
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            CheckFinding? bad = report.Findings.FirstOrDefault(f => f.Severity == CheckSeverity.Corruption && !IsHarmless(f));
            Assert.True(bad is null || change == "repair", $"{what}: {bad}");
            foreach (DiskSnapshot snapshot in await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None))
            {
                await using BlockNode view = await ((ISnapshots)disk).OpenSnapshotAsync(snapshot.Id, CancellationToken.None);
                byte[] got = new byte[view.Length];
                await view.ReadAsync(0, got);
                byte[] expected = snapshot.Name == "kept" ? kept : old;
                Assert.True(change == "repair"
                    || got.AsSpan().SequenceEqual(expected), $"{what}: snapshot {snapshot.Name} reads otherwise");
            }
        }
        catch (DiskImageException e) when (change != "repair" || e.Kind != DiskImageErrorKind.Corrupt)
        {
            Assert.Fail($"{what}: {e.Message}");
        }
        catch (DiskImageException)
        {
            // An image that was damaged before the repair began, and whose repair was cut off before it marked anything.
        }
    }

    /// <summary>A clear flag costs a copy and loses nothing; version 2 has no mark that would have it set again.</summary>
    private static bool IsHarmless(CheckFinding finding)
        => finding.Kind == "CopiedFlag" && finding.Message.Contains("lacks", StringComparison.Ordinal);

    private static async ValueTask ChangeAsync(BlockNode disk, string change)
    {
        var driver = (IAmendable)Images.Registry.Format("qcow2");
        await (change switch
        {
            "create" => Discard(((ISnapshots)disk).CreateSnapshotAsync("second", DateTimeOffset.UnixEpoch, CancellationToken.None)),
            "restore" => Discard(((ISnapshots)disk).RestoreSnapshotAsync("kept", CancellationToken.None)),
            "delete" => Discard(((ISnapshots)disk).DeleteSnapshotAsync("kept", CancellationToken.None)),
            "grow" => disk.ResizeAsync(40 << 20),
            "shrink" => disk.ResizeAsync(100 << 10),
            "empty" => ((IEmptiable)disk).MakeEmptyAsync(CancellationToken.None),
            "rebase" => ((IRebasable)disk).SetBackingAsync("another-name.qcow2", "qcow2", null, CancellationToken.None),
            "amend-refcounts" => driver.AmendAsync(
                disk, driver.AmendOptions.Bind(OptionSchema.Split("refcount_bits=32")), null, CancellationToken.None),
            "amend-compat" => driver.AmendAsync(
                disk, driver.AmendOptions.Bind(OptionSchema.Split("compat=0.10")), null, CancellationToken.None),
            _ => Discard(((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None)),
        });

        static async ValueTask Discard<T>(ValueTask<T> task) => _ = await task;
    }

    private static async Task<(byte[] Image, byte[] Kept)> MakeAsync(string options, bool withSnapshots)
    {
        var file = new MemoryNode([]);
        var driver = (ICreatable)Images.Registry.Format("qcow2");
        await driver.CreateAsync(
            new FormatCreateContext(file, driver.CreateOptions.Bind(OptionSchema.Split($"size={Size},{options}"))), CancellationToken.None);
        byte[] kept = [];
        await using (BlockNode disk = await OpenAsync(new BorrowedNode(file, isReadOnly: false), forRepair: false))
        {
            var random = new Random(3);
            for (int round = 0; round < 2; round++)
            {
                for (int i = 0; i < 12; i++)
                {
                    byte[] data = new byte[random.Next(1, 40_000)];
                    random.NextBytes(data);
                    await disk.WriteAsync(random.Next(Size - data.Length), data);
                }
                if (round == 0 && withSnapshots)
                {
                    kept = new byte[Size];
                    await disk.ReadAsync(0, kept);
                    await ((ISnapshots)disk).CreateSnapshotAsync("kept", DateTimeOffset.UnixEpoch, CancellationToken.None);
                }
            }
        }
        return (file.ToArray(), kept);
    }

    private static long FirstL2(byte[] image)
    {
        long l1 = (long)System.Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(40));
        long l2 = 0;
        for (; l2 == 0; l1 += 8)
        {
            l2 = (long)(System.Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan((int)l1)) & 0x00FF_FFFF_FFFF_FE00);
        }
        return l2;
    }

    private static async Task<byte[]> ReadAsync(byte[] image)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode((byte[])image.Clone()), forRepair: false);
        byte[] contents = new byte[disk.Length];
        try
        {
            await disk.ReadAsync(0, contents);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
        {
            return []; // damaged on purpose
        }
        return contents;
    }

    private static ValueTask<BlockNode> OpenAsync(BlockNode file, bool forRepair)
    {
        FormatDriver driver = Images.Registry.Format("qcow2");
        return driver.OpenAsync(
            new FormatOpenContext(
                file, driver.OpenOptions.Defaults(), OpenBacking: null, (_, _, _) => throw new InvalidOperationException(), forRepair),
            CancellationToken.None);
    }
}
