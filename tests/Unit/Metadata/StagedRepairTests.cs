using DiskImage.Block;
using DiskImage.Metadata;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Metadata;

/// <summary>
/// The trial of a repair, with a disk whose repair does whatever a test wants: what may be made is made, all else
/// leaves the file as it was.
/// </summary>
public sealed class StagedRepairTests
{
    private const int Size = 64 << 10;

    private static readonly CheckReport s_clean = new() { Findings = [] }, s_damaged = new() { Findings = [], Corruptions = 1 };

    [Fact]
    public async Task A_repair_that_changes_nothing_that_can_be_read_is_made()
    {
        var file = new MemoryNode(Contents());
        // the end cannot be read before
        var disk = new Disk(file) { Readable = [(0, Size - 512)], Mend = async f => await f.WriteAsync(Size - 512, new byte[512]) };
        Assert.Null(await StagedRepair.RunAsync(disk, file, RepairMode.All, CancellationToken.None));
        byte[] expected = Contents();
        expected.AsSpan(Size - 512).Clear();
        Assert.Equal(expected, file.ToArray());
        Assert.Equal(1, disk.Reloads);
    }

    [Fact]
    public async Task A_repair_with_nothing_to_do_touches_nothing()
    {
        var file = new MemoryNode(Contents(), readOnly: true);
        var disk = new Disk(file);
        Assert.Null(await StagedRepair.RunAsync(disk, file, RepairMode.All, CancellationToken.None));
        Assert.Equal(0, disk.Reloads);
    }

    public static TheoryData<string, string> Bad() => new()
    {
        { "writes", "guest offset 20,480 would not read as it does now" },
        { "cuts", "guest offset 32,768 would not read as it does now" },
        { "fails", "it came to an end before it was done: enough" },
        { "breaks", "the image could not be opened afterwards: it is broken" },
        { "spoils", "the image could not be opened for writing afterwards: it is spoilt" },
    };

    [Theory]
    [MemberData(nameof(Bad))]
    public async Task A_repair_that_would_lose_something_is_withdrawn(string how, string why)
    {
        var file = new MemoryNode(Contents());
        var disk = new Disk(file)
        {
            Mend = async f =>
            {
                await f.WriteAsync(0, Contents()); // changes nothing, and looks as if
                await (how switch
                {
                    "writes" => f.WriteAsync(20_480, new byte[1]),
                    "cuts" => f.ResizeAsync(Size / 2),
                    "fails" => throw new DiskImageException(DiskImageErrorKind.Corrupt, "enough", "file"),
                    "breaks" => f.WriteAsync(Size, "broken"u8.ToArray()),
                    _ => f.WriteAsync(Size, "spoilt"u8.ToArray()),
                });
            },
        };
        Assert.StartsWith(
            why, (await StagedRepair.RunAsync(disk, file, RepairMode.All, CancellationToken.None))?.ToString(), StringComparison.Ordinal);
        Assert.Equal(Contents(), file.ToArray());
        Assert.Equal(0, disk.Reloads);
    }

    /// <summary>One that cannot be written to afterwards may be made, if it does not say that all is well.</summary>
    [Fact]
    public async Task A_repair_that_says_that_something_is_left_need_not_end_in_a_disk_that_can_be_written_to()
    {
        var file = new MemoryNode(Contents());
        var disk = new Disk(file) { Left = s_damaged, Mend = async f => await f.WriteAsync(Size, "spoilt"u8.ToArray()) };
        Assert.Null(await StagedRepair.RunAsync(disk, file, RepairMode.All, CancellationToken.None));
        Assert.Equal(Size + 6, file.Length);
    }

    private static byte[] Contents()
    {
        byte[] bytes = new byte[Size];
        new Random(4).NextBytes(bytes);
        return bytes;
    }

    /// <summary>Shows its file; what stands behind the disk's bytes says that it does not open, or takes no writes.</summary>
    private sealed class Disk(BlockNode file) : FilterNode(file), ITrialRepair
    {
        public Func<BlockNode, Task>? Mend { get; init; }

        public CheckReport Left { get; init; } = s_clean;

        public IReadOnlyList<(long Start, long End)> Readable { get; init; } = [(0, Size)];

        public int Reloads { get; private set; }

        public long Grain => 4096;

        public override long Length => Math.Min(Size, Below.Length);

        public async ValueTask<BlockNode> OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        {
            if (!forRepair && await SaysAsync(file, "broken"))
            {
                throw new DiskImageException(DiskImageErrorKind.Corrupt, "it is broken", "file");
            }
            return new Disk(file) { Mend = Mend, Left = Left, Readable = Readable };
        }

        public async ValueTask<CheckReport> MendAsync(RepairMode mode, CancellationToken cancellationToken)
        {
            await (Mend?.Invoke(Below) ?? Task.CompletedTask);
            return Left;
        }

        public ValueTask<IReadOnlyList<(long Start, long End)>> ReadableAsync(CancellationToken cancellationToken) => new(Readable);

        public async ValueTask RequireUsableAsync()
        {
            if (await SaysAsync(Below, "spoilt"))
            {
                throw new DiskImageException(DiskImageErrorKind.Corrupt, "it is spoilt", "file");
            }
        }

        public ValueTask ReloadAsync(CancellationToken cancellationToken)
        {
            Reloads++;
            return default;
        }

        private static async ValueTask<bool> SaysAsync(BlockNode file, string word)
        {
            byte[] tail = new byte[6];
            await file.ReadPaddedAsync(Size, tail);
            return System.Text.Encoding.ASCII.GetString(tail).Equals(word, StringComparison.Ordinal);
        }
    }
}
