using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Protocols.Ssh;
using static DiskImage.Tests.Protocols.Ssh.SftpAnswers;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>A file of a server that does as the test says.</summary>
public sealed class SftpConnectionTests
{
    private const int Size = 1 << 20;

    private static readonly string[] s_all = [SftpWire.Limits, SftpWire.FileSync, SftpWire.FileSystem, SftpWire.PosixRename];

    /// <summary>Has zeroes, takes what is written, and answers what a test does not answer itself.</summary>
    private static Func<SftpAsked, byte[]?> Script(Func<SftpAsked, byte[]?>? own = null, params string[] extensions) => asked =>
    {
        if (asked.Type != SftpPacket.Init && own?.Invoke(asked) is { } answer)
        {
            return answer;
        }
        return asked.Type switch
        {
            SftpPacket.Init => Version(3, extensions.Length > 0 ? extensions : s_all),
            SftpPacket.Read => Read(asked),
            SftpPacket.Extended when Extension(asked) == SftpWire.Limits => Limits(asked.Id, 0, 64 << 10, 64 << 10),
            SftpPacket.Extended when Extension(asked) == SftpWire.FileSystem => Room(asked.Id, 1000),
            SftpPacket.FileStat => Attributes(asked.Id, Size),
            _ => Status(asked.Id, SftpStatus.Ok),
        };

        static byte[] Read(SftpAsked asked)
        {
            (long offset, int length) = Range(asked);
            int count = (int)Math.Clamp(Size - offset, 0, length);
            return count == 0 ? Status(asked.Id, SftpStatus.EndOfFile) : Data(asked.Id, new byte[count]);
        }
    };

    private static string Extension(SftpAsked asked)
        => System.Text.Encoding.ASCII.GetString(asked.Body, 4, BinaryPrimitives.ReadInt32BigEndian(asked.Body));

    private static (long Offset, int Length) Range(SftpAsked asked)
    {
        ReadOnlySpan<byte> rest = asked.Body.AsSpan(4 + BinaryPrimitives.ReadInt32BigEndian(asked.Body));
        return (BinaryPrimitives.ReadInt64BigEndian(rest), BinaryPrimitives.ReadInt32BigEndian(rest[8..]));
    }

    private static async Task<DiskImageException> FailsAsync(Func<Task> work) => await Assert.ThrowsAsync<DiskImageException>(work);

    [Fact]
    public async Task A_server_that_gives_little_at_a_time_is_asked_again()
    {
        int asks = 0;
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(asked =>
        {
            if (asked.Type != SftpPacket.Read)
            {
                return null;
            }
            asks++;
            (long offset, int length) = Range(asked);
            Assert.InRange(length, 1, 64 << 10);
            byte[] bytes = new byte[Math.Min(length, 5000)];
            bytes.AsSpan().Fill((byte)(offset >> 12));
            return Data(asked.Id, [.. bytes.Select((_, i) => (byte)((offset + i) >> 12))]);
        }));
        await using SshNode node = await server.OpenAsync();
        byte[] read = new byte[300_000];
        await node.ReadAsync(1000, read);
        Assert.All(read.Select((b, i) => (b, i)), p => Assert.Equal((byte)((1000 + p.i) >> 12), p.b));
        Assert.InRange(asks, 60, 100);
    }

    [Fact]
    public async Task Many_requests_are_under_way_at_once_and_answered_in_another_order()
    {
        var held = new List<byte[]>();
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(asked =>
        {
            if (asked.Type != SftpPacket.Read)
            {
                return null;
            }
            (long offset, int length) = Range(asked);
            held.Add(Data(asked.Id, [.. Enumerable.Range(0, length).Select(i => (byte)((offset + i) >> 10))]));
            byte[] answer = held.Count < 16 ? [] : [.. held.AsEnumerable().Reverse().SelectMany(b => b)];
            return answer;
        }));
        await using SshNode node = await server.OpenAsync();
        byte[] read = new byte[Size];
        await node.ReadAsync(0, read); // 16 requests of 64 KiB, none of which is answered before the last
        Assert.All(read.Select((b, i) => (b, i)).Where(p => p.i % 1000 == 0), p => Assert.Equal((byte)(p.i >> 10), p.b));
    }

    [Theory]
    [InlineData(SftpStatus.EndOfFile, DiskImageErrorKind.Io, DiskImageErrorKind.Io)]
    [InlineData(SftpStatus.NoSuchFile, DiskImageErrorKind.NotFound, DiskImageErrorKind.NotFound)]
    [InlineData(SftpStatus.PermissionDenied, DiskImageErrorKind.AccessDenied, DiskImageErrorKind.AccessDenied)]
    [InlineData(SftpStatus.Failure, DiskImageErrorKind.Io, DiskImageErrorKind.WriteFailed)]
    [InlineData(SftpStatus.BadMessage, DiskImageErrorKind.Io, DiskImageErrorKind.WriteFailed)]
    [InlineData(SftpStatus.ConnectionLost, DiskImageErrorKind.Io, DiskImageErrorKind.WriteFailed)]
    [InlineData(SftpStatus.Unsupported, DiskImageErrorKind.Unsupported, DiskImageErrorKind.Unsupported)]
    [InlineData((SftpStatus)77, DiskImageErrorKind.Io, DiskImageErrorKind.WriteFailed)]
    internal async Task A_status_is_an_error_of_ours_by_kind(SftpStatus status, DiskImageErrorKind reading, DiskImageErrorKind writing)
    {
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(
            asked => asked.Type is SftpPacket.Read or SftpPacket.Write or SftpPacket.FileSetStat
                ? Status(asked.Id, status, "as the server\nsays it") : null));
        await using SshNode node = await server.OpenAsync();
        Assert.Equal(reading, (await FailsAsync(async () => await node.ReadAsync(0, new byte[5]))).Kind);
        DiskImageException e = await FailsAsync(async () => await node.WriteAsync(0, new byte[5]));
        Assert.Equal(writing, e.Kind);
        Assert.DoesNotContain('\n', e.Message);
        Assert.Equal(writing, (await FailsAsync(async () => await node.ResizeAsync(5))).Kind);
        Assert.Equal(Size, node.Length);
        await node.FlushAsync(); // the connection is as good as before
    }

    [Fact]
    public async Task No_room_is_told_from_other_failures_by_asking_for_it()
    {
        ulong room = 3;
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(asked => asked.Type switch
        {
            SftpPacket.Write => Status(asked.Id, SftpStatus.Failure),
            SftpPacket.Extended when Extension(asked) == SftpWire.FileSystem => room == 0 ? Status(asked.Id, SftpStatus.Failure) : Room(asked.Id, room),
            _ => null,
        }));
        await using SshNode node = await server.OpenAsync();
        Assert.Equal(DiskImageErrorKind.NoSpace, (await FailsAsync(async () => await node.WriteAsync(0, new byte[12289]))).Kind);
        Assert.Equal(DiskImageErrorKind.WriteFailed, (await FailsAsync(async () => await node.WriteAsync(0, new byte[12288]))).Kind);
        room = 0;
        Assert.Equal(DiskImageErrorKind.WriteFailed, (await FailsAsync(async () => await node.WriteAsync(0, new byte[12289]))).Kind);
    }

    [Fact]
    public async Task A_flush_that_failed_ends_writing()
    {
        bool fails = true;
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(
            asked => fails && asked.Type == SftpPacket.Extended && Extension(asked) == SftpWire.FileSync
                ? Status(asked.Id, SftpStatus.Failure) : null));
        await using SshNode node = await server.OpenAsync();
        DiskImageException e = await FailsAsync(async () => await node.FlushAsync());
        Assert.Equal(DiskImageErrorKind.WriteFailed, e.Kind);
        fails = false;
        Assert.Contains("what was written before may be lost", (await FailsAsync(async () => await node.FlushAsync())).Message);
        await FailsAsync(async () => await node.WriteAsync(0, new byte[5]));
        await node.ReadAsync(0, new byte[5]);
    }

    [Fact]
    public async Task A_server_that_stops_keeping_to_the_protocol_breaks_the_node_once()
    {
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(
            asked => asked.Type == SftpPacket.Write ? Data(asked.Id, 1) : null));
        await using SshNode node = await server.OpenAsync();
        DiskImageException e = await FailsAsync(async () => await node.WriteAsync(0, new byte[5]));
        Assert.Contains("does not keep to SFTP", e.Message);
        Assert.Equal(e.Message, (await FailsAsync(async () => await node.ReadAsync(0, new byte[5]))).Message);
    }

    [Fact]
    public async Task A_request_that_is_given_up_half_sent_ends_the_connection_and_nobody_waits_for_long()
    {
        using var never = new ManualResetEventSlim();
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(asked =>
        {
            if (asked.Type == SftpPacket.Write)
            {
                _ = begun.TrySetResult();
                never.Wait(TimeSpan.FromSeconds(60)); // takes no more bytes
            }
            return null;
        }), held: 64 << 10);
        await using SshNode node = await server.OpenAsync();
        using var stop = new CancellationTokenSource();
        Task write = node.WriteAsync(0, new byte[64 << 20], stop.Token).AsTask();
        await begun.Task.WaitAsync(TimeSpan.FromSeconds(30));
        await Task.Delay(1000); // what lies between the two is full by then, with more than one request to go
        await stop.CancelAsync();
        Exception? e = await Record.ExceptionAsync(() => write.WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.True(e is OperationCanceledException or DiskImageException, $"{e}");
        DiskImageException later = await FailsAsync(
            async () => await node.ReadAsync(0, new byte[5]).AsTask().WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.Contains("was cancelled", later.Message);
        never.Set();
    }

    [Fact]
    public async Task A_connection_that_is_cut_at_any_byte_is_an_error_of_ours_or_the_end()
    {
        static async Task TalkAsync(SshNode node)
        {
            byte[] read = new byte[100];
            await node.ReadAsync(512, read);
            await node.WriteAsync(4096, read);
            await node.FlushAsync();
            await node.ResizeAsync(2 << 20);
        }

        int whole = 0, opened = 0;
        for (int cut = 1; ; cut++)
        {
            await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(extensions: [SftpWire.Limits, SftpWire.FileSync]), cut);
            Exception? e = await Record.ExceptionAsync(async () =>
            {
                await using SshNode node = await server.OpenAsync();
                opened++;
                await TalkAsync(node);
            }).WaitAsync(TimeSpan.FromSeconds(30));
            Assert.True(e is DiskImageException or null, $"cut after {cut} bytes: {e}");
            if (e is null)
            {
                whole = cut;
                break;
            }
        }
        Assert.InRange(whole, 250, 500);
        Assert.InRange(opened, 100, whole - 50);
    }

    [Fact]
    public async Task Zeroes_behind_the_end_are_one_byte_and_the_length_follows()
    {
        var written = new List<(long, int)>();
        await using ScriptedSftp server = await ScriptedSftp.StartAsync(Script(asked =>
        {
            if (asked.Type == SftpPacket.Write)
            {
                written.Add(Range(asked));
            }
            return null;
        }));
        await using SshNode node = await server.OpenAsync(size: 1000);
        await node.WriteZeroesAsync(5000, 1L << 40);
        Assert.Equal([((1L << 40) + 4999, 1)], written);
        Assert.Equal((1L << 40) + 5000, node.Length);
    }
}
