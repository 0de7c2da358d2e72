using System.Globalization;
using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>The commands of qemu-io that send requests to the open disk.</summary>
/// <param name="session">What is open.</param>
internal sealed class IoRequests(IoSession session)
{
    private const int Sector = 512;

    private static readonly CommandOption s_pattern = new('P', null, "PATTERN", "byte to write, or to compare with");
    private static readonly CommandOption s_brief = new('C', null, null, "report in one line");
    private static readonly CommandOption s_quiet = new('q', null, null, "report nothing");
    private static readonly CommandOption s_ignored = new('p', null, null, "taken, and has no effect");

    /// <summary>They.</summary>
    public IReadOnlyList<IoCommand> Commands =>
    [
        new(["read", "r"], Reading, "OFFSET LENGTH", 2, 2, "read bytes", ReadAsync),
        new(["write", "w"], Writing, "OFFSET LENGTH", 1, 2, "write bytes", WriteAsync),
        new(["readv"], Reading, "OFFSET LENGTH …", 2, 64, "read into several buffers", ReadAsync),
        new(["writev"], Writing, "OFFSET LENGTH …", 2, 64, "write out of several buffers", WriteAsync),
        new(["aio_read"], Reading, "OFFSET LENGTH …", 2, 64, "read, and take further commands meanwhile",
            (a, t) => Begin("readv", ReadAsync, a, t)),
        new(["aio_write"], Writing, "OFFSET LENGTH …", 1, 64, "write, likewise", (a, t) => Begin("aio_write", WriteAsync, a, t)),
        new(["aio_flush"], [], "", 0, 0, "wait for all that is under way", DrainAsync),
        new(["flush", "f"], [], "", 0, 0, "make what was written durable", FlushAsync),
        new(["discard", "d"], [s_brief, s_quiet], "OFFSET LENGTH", 2, 2, "tell that bytes do not matter any more", DiscardAsync),
        new(["truncate"], [new('m', null, "PREALLOC", "how space is claimed")], "LENGTH", 1, 1, "change the disk's length", ResizeAsync),
    ];

    private static IReadOnlyList<CommandOption> Reading { get; } =
    [
        s_pattern, s_brief, s_quiet, s_ignored,
        new('v', null, null, "show the bytes"),
        new('s', null, "START", "compare from there on"),
        new('l', null, "LENGTH", "compare so many"),
        new('b', null, null, "read the machine's state"),
        new('r', null, null, "tell that a buffer is registered"),
        new('a', null, null, "taken, and has no effect"),
        new('i', null, null, "let the request fail"),
    ];

    private static IReadOnlyList<CommandOption> Writing { get; } =
    [
        s_pattern, s_brief, s_quiet, s_ignored,
        new('s', null, "FILE", "write this file's bytes, over and over"),
        new('z', null, null, "write zeroes as such"),
        new('u', null, null, "with -z: give the space up"),
        new('n', null, null, "with -z: not if it is as slow as writing them"),
        new('f', null, null, "durable when done"),
        new('c', null, null, "compressed"),
        new('b', null, null, "write the machine's state"),
        new('r', null, null, "tell that a buffer is registered"),
        new('i', null, null, "let the request fail"),
    ];

    private ProgramIO Io => session.Io;

    private async Task<bool> ReadAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        (long offset, long length, int parts) = Range(arguments);
        RequireSectors(arguments, offset, length);
        BlockNode disk = session.Disk();
        byte[] buffer = new byte[length];
        var report = new IoReport(Io, arguments);
        if (arguments.Has("b"))
        {
            await StateOf(disk, "read").ReadStateAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await disk.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }
        bool isAsWanted = true;
        if (IoPattern.Of(arguments) is { } pattern)
        {
            long start = arguments.Last("s") is { } s ? IoSession.Number(s) : 0;
            long count = arguments.Last("l") is { } l ? IoSession.Number(l) : length - start;
            if (start + count > length)
            {
                throw new CommandException("pattern verification range exceeds end of read data");
            }
            if (buffer.AsSpan((int)start, (int)count).ContainsAnyExcept(pattern))
            {
                await Io.Output.WriteLineAsync(string.Create(
                    CultureInfo.InvariantCulture,
                    $"Pattern verification failed at offset {offset + start}, {count} bytes")).ConfigureAwait(false);
                isAsWanted = false;
            }
        }
        if (arguments.Has("v") && !arguments.Has("q"))
        {
            IoPattern.Dump(Io.Output, buffer, offset);
        }
        report.Say("read", length, offset, 1);
        _ = parts;
        return isAsWanted;
    }

    private async Task<bool> WriteAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        (bool isZero, bool isDurable, bool isCompressed) = (arguments.Has("z"), arguments.Has("f"), arguments.Has("c"));
        string? wrong = isZero && arguments.Has("P") ? "-z and -P cannot be specified at the same time"
            : isZero && isCompressed ? "-c and -z cannot be specified at the same time"
            : arguments.Has("b") && isZero ? "-b and -z cannot be specified at the same time"
            : isDurable && (arguments.Has("b") || isCompressed) ? "-f and -b or -c cannot be specified at the same time"
            : arguments.Has("u") && !isZero ? "-u requires -z to be specified"
            : arguments.Has("n") && !isZero ? "-n requires -z to be specified" : null;
        if (wrong is not null)
        {
            throw new CommandException(wrong);
        }
        (long offset, long length, _) = Range(arguments, isBounded: !isZero);
        RequireSectors(arguments, offset, length);
        BlockNode disk = session.Disk();
        session.IsChanged = true;
        byte[] bytes = isZero ? [] : IoPattern.Bytes(arguments, (int)length, Io);
        var report = new IoReport(Io, arguments);
        if (isZero)
        {
            ZeroWriteMode mode = arguments.Has("u") ? ZeroWriteMode.MayUnmap : ZeroWriteMode.KeepAllocated;
            if (arguments.Has("n") && disk.As<IFastZero>() is { } fast)
            {
                if (!await fast.TryZeroFastAsync(offset, length, cancellationToken).ConfigureAwait(false))
                {
                    throw new CommandException("write failed: Operation not supported");
                }
            }
            else
            {
                await disk.WriteZeroesAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
            }
            if (isDurable)
            {
                await disk.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        else if (arguments.Has("b"))
        {
            await StateOf(disk, "write").WriteStateAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
        }
        else if (isCompressed)
        {
            await WriteCompressedAsync(disk, offset, bytes, cancellationToken).ConfigureAwait(false);
        }
        else if (isDurable)
        {
            await disk.WriteDurablyAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await disk.WriteAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
        }
        report.Say("wrote", length, offset);
        return true;
    }

    /// <summary>Whole units are stored compressed; what does not become smaller, as it is.</summary>
    private static async Task WriteCompressedAsync(BlockNode disk, long offset, byte[] bytes, CancellationToken cancellationToken)
    {
        ICompressedWritable target = disk.As<ICompressedWritable>() ?? throw new CommandException("write failed: Operation not supported");
        int unit = target.CompressionUnit;
        if (offset % unit != 0 || (bytes.Length % unit != 0 && offset + bytes.Length != disk.Length))
        {
            throw new CommandException("write failed: Invalid argument");
        }
        byte[] packed = new byte[target.LargestCompressed];
        for (int at = 0; at < bytes.Length; at += unit)
        {
            ReadOnlyMemory<byte> part = bytes.AsMemory(at, Math.Min(unit, bytes.Length - at));
            if (target.Compress(part.Span, packed) is int size)
            {
                await target.WriteCompressedAsync(offset + at, packed.AsMemory(0, size), cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await disk.WriteAsync(offset + at, part, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>The machine's state is read and written in sectors here, as in QEMU.</summary>
    private static void RequireSectors(CommandArguments arguments, long offset, long length)
    {
        foreach ((long value, string name) in arguments.Has("b") ? new[] { (offset, "offset"), (length, "count") } : [])
        {
            if (value % Sector != 0)
            {
                throw new CommandException(string.Create(
                    CultureInfo.InvariantCulture, $"{value} is not a sector-aligned value for '{name}'"));
            }
        }
    }

    private static IMachineState StateOf(BlockNode disk, string verb)
        => disk.As<IMachineState>() ?? throw new CommandException($"{verb} failed: Operation not supported");

    /// <summary>Begins a request, which goes on while further commands are done. Wrong arguments are said at once.</summary>
    private Task<bool> Begin(
        string name,
        Func<CommandArguments, CancellationToken, Task<bool>> work,
        CommandArguments arguments,
        CancellationToken cancellationToken)
    {
        _ = (session.Disk(), Range(arguments));
        return session.Pending.BeginAsync(name, () => work(arguments, cancellationToken));
    }

    private async Task<bool> DrainAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        _ = session.Disk();
        await session.Pending.DrainAsync().ConfigureAwait(false);
        return true;
    }

    private async Task<bool> FlushAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        await session.Disk().FlushAsync(cancellationToken).ConfigureAwait(false);
        return true;
    }

    private async Task<bool> DiscardAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        (long offset, long length, _) = Range(arguments, isBounded: false);
        var report = new IoReport(Io, arguments);
        session.IsChanged = true;
        await session.Disk().DiscardAsync(offset, length, cancellationToken).ConfigureAwait(false);
        report.Say("discard", length, offset);
        return true;
    }

    private async Task<bool> ResizeAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        PreallocationMode mode = arguments.Last("m") is not { } text ? PreallocationMode.Off
            : Enum.TryParse(text, ignoreCase: true, out PreallocationMode named) ? named
            : throw new CommandException($"invalid preallocation mode: {text}");
        session.IsChanged = true;
        await session.Disk().ResizeAsync(IoSession.Number(arguments.Operands[0]), mode, cancellationToken).ConfigureAwait(false);
        return true;
    }

    /// <summary>Offset, and the lengths added up. Without a length a write takes what its file has.</summary>
    private (long Offset, long Length, int Parts) Range(CommandArguments arguments, bool isBounded = true)
    {
        long offset = IoSession.Number(arguments.Operands[0]);
        long length = arguments.Operands.Count > 1 ? arguments.Operands.Skip(1).Sum(IoSession.Number)
            : arguments.Last("s") is { } file && File.Exists(Io.Full(file)) ? new FileInfo(Io.Full(file)).Length
            : throw new CommandException("length is missing");
        return !isBounded || length <= int.MaxValue
            ? (offset, length, arguments.Operands.Count - 1)
            : throw new CommandException(string.Create(
                CultureInfo.InvariantCulture, $"length cannot exceed {int.MaxValue}, given {arguments.Operands[1]}"));
    }
}
