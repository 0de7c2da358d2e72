using System.Globalization;
using DiskImage.Block;
using DiskImage.Filters.BlkDebug;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

public sealed class BlkDebugTests
{
    private const int Cluster = 64 << 10;

    public static TheoryData<string, string, string> Writes => new()
    {
        // what is asked of a new image of 64 MiB, whose tables are read; what is told; options
        { "write 0 64k", "cluster_alloc refblock_load l2_alloc_write cluster_alloc write_aio", "" },
        { "write 0 512", "cluster_alloc refblock_load l2_alloc_write cluster_alloc write_aio", "" },
        { "write 0 64k;write 0 64k", "cluster_alloc refblock_load l2_alloc_write cluster_alloc write_aio write_aio", "" },
        { "write 0 64k;read 0 64k", "cluster_alloc refblock_load l2_alloc_write cluster_alloc write_aio read_aio", "" },
        { "read 0 64k", "", "" },
        {
            "write 0 64k;flush",
            "cluster_alloc refblock_load l2_alloc_write cluster_alloc write_aio flush_to_os refblock_update_part l2_update l1_update flush_to_disk",
            ""
        },
        { "compressed 0", "cluster_alloc refblock_load l2_alloc_write cluster_alloc_bytes write_compressed l2_update_compressed", "" },
        {
            "compressed 0;read 0 512",
            "cluster_alloc refblock_load l2_alloc_write cluster_alloc_bytes write_compressed l2_update_compressed read_compressed",
            ""
        },
        {
            // the cluster is the snapshot's, too: its old bytes go to another, and so does the table
            "write 0 64k;flush;snapshot;mark;write 512 512",
            "cluster_alloc l2_alloc_cow_read l2_alloc_write cluster_alloc cow_read read_aio cow_read read_aio write_aio cow_write",
            ""
        },
        { "write 0 64k;flush;mark;discard 0 64k;flush", "flush_to_os l2_update flush_to_disk cluster_free refblock_update_part", "" },
        {
            "mark;resize 128G",
            "flush_to_os flush_to_disk l1_grow_alloc_table cluster_alloc refblock_load l1_grow_write_table refblock_update_part flush_to_disk"
                + " l1_grow_activate_table flush_to_os flush_to_disk cluster_free refblock_update_part",
            "cluster_size=4k"
        },
        {
            "write 32M 64k;flush;mark;resize 16M",
            "flush_to_os flush_to_disk l1_shrink_write_table l1_shrink_free_l2_clusters flush_to_os l1_update flush_to_disk"
                + " cluster_free cluster_free refblock_update_part",
            "cluster_size=4k"
        },
        { "state 0 512;state-read 0 512", "vmstate_save cluster_alloc l2_alloc_write cluster_alloc write_aio vmstate_load read_aio", "l1" },
    };

    [Theory]
    [MemberData(nameof(Writes))]
    public async Task A_qcow2_image_tells_what_it_is_about_to_do(string script, string told, string options)
    {
        bool hasRoom = options == "l1"; // the L1 table has an entry for the machine's state already
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={(hasRoom ? "1G" : "64M")},{(hasRoom ? "" : options)}"));
        var recorder = new Recorder(file);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(recorder))
        {
            if (hasRoom)
            {
                await disk.ResizeAsync(64 << 20);
            }
            await disk.ReadAsync(0, new byte[512]);
            recorder.Told.Clear();
            foreach (string line in script.Split(';'))
            {
                string[] words = line.Split(' ');
                long first = words.Length > 1 ? Number(words[1]) : 0, length = words.Length > 2 ? Number(words[2]) : 0;
                switch (words[0])
                {
                    case "write":
                        await disk.WriteAsync(first, Enumerable.Repeat((byte)7, (int)length).ToArray());
                        break;
                    case "read":
                        await disk.ReadAsync(first, new byte[length]);
                        break;
                    case "discard":
                        await disk.DiscardAsync(first, length);
                        break;
                    case "flush":
                        await disk.FlushAsync();
                        break;
                    case "resize":
                        await disk.ResizeAsync(first);
                        break;
                    case "snapshot":
                        _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
                        break;
                    case "compressed":
                        var target = (ICompressedWritable)disk;
                        byte[] packed = new byte[target.LargestCompressed];
                        int size = target.Compress(new byte[Cluster], packed) ?? throw new InvalidOperationException();
                        await target.WriteCompressedAsync(first, packed.AsMemory(0, size), CancellationToken.None);
                        break;
                    case "state":
                        await ((IMachineState)disk).WriteStateAsync(first, new byte[length], CancellationToken.None);
                        break;
                    case "state-read":
                        await ((IMachineState)disk).ReadStateAsync(first, new byte[length], CancellationToken.None);
                        break;
                    default:
                        recorder.Told.Clear();
                        break;
                }
            }
            string actual = string.Join(' ', recorder.Told);
            Assert.True(told.Equals(actual, StringComparison.Ordinal), $"{script} told: {actual}");
        }
    }

    [Fact]
    public async Task A_backing_image_is_told_of_and_zeroes_are_not()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=1M,backing_file=base,backing_fmt=raw"));
        var recorder = new Recorder(file);
        await using BlockNode disk = await MemoryDisk.OpenAsync(recorder, new byte[Cluster]);
        await disk.ReadAsync(0, new byte[512]);
        Assert.Equal("reftable_load read_backing_aio", string.Join(' ', recorder.Told));
        recorder.Told.Clear();
        await disk.ReadAsync(2 * Cluster, new byte[512]); // behind the end of the backing image
        Assert.Empty(recorder.Told);
        await disk.WriteZeroesAsync(0, Cluster);
        recorder.Told.Clear();
        await disk.ReadAsync(0, new byte[512]);
        Assert.Empty(recorder.Told);
    }

    [Fact]
    public async Task An_error_stays_armed_until_another_event_arms_another()
    {
        await using BlkDebugNode node = Node(
            "inject-error.0.event=read_aio", "inject-error.0.errno=5", "inject-error.1.event=write_aio", "inject-error.1.errno=28",
            "inject-error.1.once=on");
        await node.ReadAsync(0, new byte[512]);
        await node.RaiseAsync(DebugEvent.ReadAio);
        Assert.Equal(DiskImageErrorKind.Io, await KindAsync(() => node.ReadAsync(0, new byte[512])));
        Assert.Equal(DiskImageErrorKind.Io, await KindAsync(() => node.WriteAsync(0, new byte[512]))); // whatever it is
        await node.RaiseAsync(DebugEvent.L2Load); // no rule names it
        Assert.Equal(DiskImageErrorKind.Io, await KindAsync(() => node.FlushAsync()));
        await node.RaiseAsync(DebugEvent.WriteAio);
        Assert.Equal(DiskImageErrorKind.NoSpace, await KindAsync(() => node.ReadAsync(0, new byte[512])));
        await node.ReadAsync(0, new byte[512]);
        await node.RaiseAsync(DebugEvent.WriteAio); // once, and never again
        await node.ReadAsync(0, new byte[512]);
    }

    [Fact]
    public async Task A_state_goes_on_only_from_where_it_is()
    {
        await using BlkDebugNode node = Node(
            "set-state.0.event=write_aio", "set-state.0.state=1", "set-state.0.new_state=2",
            "set-state.1.event=write_aio", "set-state.1.state=2", "set-state.1.new_state=3",
            "inject-error.0.event=read_aio", "inject-error.0.state=3", "inject-error.0.sector=1");
        for (int i = 0; i < 2; i++)
        {
            await node.RaiseAsync(DebugEvent.ReadAio);
            await node.ReadAsync(0, new byte[1024]);
            await node.RaiseAsync(DebugEvent.WriteAio); // one step, though both rules name it
        }
        await node.RaiseAsync(DebugEvent.ReadAio);
        await node.ReadAsync(0, new byte[512]); // another sector
        await node.FlushAsync(); // a flush is of no sector
        Assert.Equal(DiskImageErrorKind.Io, await KindAsync(() => node.ReadAsync(1023, new byte[1])));
    }

    [Fact]
    public async Task Writes_to_the_filter_itself_are_events_too()
    {
        await using BlkDebugNode node = Node("inject-error.0.event=pwritev_rmw_tail", "inject-error.0.iotype=read", "align=512");
        await node.WriteAsync(0, new byte[1024]);
        await node.WriteAsync(0, new byte[700].AsMemory(0, 512));
        Assert.Equal(DiskImageErrorKind.Io, await KindAsync(() => node.WriteAsync(0, new byte[700])));
        await using BlkDebugNode other = Node("inject-error.0.event=pwritev_done", "inject-error.0.iotype=flush");
        await other.FlushAsync();
        await other.WriteAsync(0, new byte[512]);
        Assert.Equal(DiskImageErrorKind.Io, await KindAsync(() => other.FlushAsync()));
    }

    [Fact]
    public async Task A_breakpoint_holds_one_request_up_until_it_is_resumed()
    {
        await using BlkDebugNode node = Node();
        var told = new List<string>();
        node.Told = (tag, isSuspended) => told.Add($"{tag}{(isSuspended ? '-' : '+')}");
        Assert.False(node.Break("write_ai", "A"));
        Assert.True(node.Break("write_aio", "A"));
        Assert.False(node.IsSuspended("A"));
        Assert.False(node.GoOn("A"));
        Task first = node.RaiseAsync(DebugEvent.WriteAio).AsTask();
        Task second = node.RaiseAsync(DebugEvent.WriteAio).AsTask(); // it holds once
        Assert.True(second.IsCompletedSuccessfully);
        Assert.True(node.IsSuspended("A"));
        Assert.False(first.IsCompleted);
        Assert.True(node.GoOn("A"));
        await first;
        Assert.False(node.IsSuspended("A"));
        Assert.True(node.Break("read_aio", "B"));
        Assert.True(node.Remove("B"));
        Assert.False(node.Remove("B"));
        await node.RaiseAsync(DebugEvent.ReadAio);
        Assert.Equal(["A-", "A+"], told);
    }

    [Fact]
    public void Every_event_is_called_as_QEMU_calls_it()
    {
        string[] names =
        [
            "l1_update", "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table", "l2_load", "l2_update",
            "l2_update_compressed", "l2_alloc_cow_read", "l2_alloc_write", "read_aio", "read_backing_aio", "read_compressed", "write_aio",
            "write_compressed", "vmstate_load", "vmstate_save", "cow_read", "cow_write", "reftable_load", "reftable_grow",
            "reftable_update", "refblock_load", "refblock_update", "refblock_update_part", "refblock_alloc", "refblock_alloc_hookup",
            "refblock_alloc_write", "refblock_alloc_write_blocks", "refblock_alloc_write_table", "refblock_alloc_switch_table",
            "cluster_alloc", "cluster_alloc_bytes", "cluster_free", "flush_to_os", "flush_to_disk", "pwritev_rmw_head",
            "pwritev_rmw_after_head", "pwritev_rmw_tail", "pwritev_rmw_after_tail", "pwritev", "pwritev_zero", "pwritev_done",
            "empty_image_prepare", "l1_shrink_write_table", "l1_shrink_free_l2_clusters", "cor_write", "cluster_alloc_space", "none",
        ];
        Assert.Equal(names.Order(StringComparer.Ordinal), Enum.GetValues<DebugEvent>().Select(BlkDebugEvents.NameOf).Order(StringComparer.Ordinal));
        DiskImageException e = Assert.Throws<DiskImageException>(() => Node("inject-error.0.event=l2_lod"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        Assert.Contains("l2_load", e.Message, StringComparison.Ordinal);
    }

    private static BlkDebugNode Node(params string[] options) => new(
        new MemoryNode(new byte[4096]),
        (BlkDebugOptions)new BlkDebugDriver().Bind(options.Select(o => o.Split('=')).Select(p => KeyValuePair.Create(p[0], (object?)p[1]))));

    private static async Task<DiskImageErrorKind> KindAsync(Func<ValueTask> request)
        => (await Assert.ThrowsAsync<DiskImageException>(() => request().AsTask())).Kind;

    private static long Number(string text) => text[^1] switch
    {
        'k' => long.Parse(text[..^1], CultureInfo.InvariantCulture) << 10,
        'M' => long.Parse(text[..^1], CultureInfo.InvariantCulture) << 20,
        'G' => long.Parse(text[..^1], CultureInfo.InvariantCulture) << 30,
        _ => long.Parse(text, CultureInfo.InvariantCulture),
    };

    /// <summary>Takes down what a format tells it.</summary>
    private sealed class Recorder(BlockNode child) : FilterNode(child), IDebugEvents
    {
        public List<string> Told { get; } = [];

        public ValueTask RaiseAsync(DebugEvent what)
        {
            Told.Add(BlkDebugEvents.NameOf(what));
            return default;
        }
    }
}
