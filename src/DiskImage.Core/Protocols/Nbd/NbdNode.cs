using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>An export of an NBD server.</summary>
/// <param name="name">Its URI.</param>
/// <param name="connections">The connections to it, which are the node's.</param>
/// <param name="writable">It is opened for writing, which the server allows.</param>
/// <param name="showsDirty">Block status tells of a bitmap: what is dirty is shown as no data, as QEMU does.</param>
internal sealed class NbdNode(string name, NbdConnections connections, bool writable, bool showsDirty) : BlockNode, IFastZero
{
    private const int AssumedSector = 512; // of servers that say nothing: as QEMU
    private const long MostZeroed = 1L << 30; // in one request. Ours: a server must not be busy for long
    private const long LongestQuestion = 1L << 32; // for block status without 64-bit lengths; the whole of it does not fit

    private readonly NbdExportInfo _info = connections.Info;
    private readonly ExtentMemory _known = new();

    public override string Name => name;

    public override long Length => _info.Length;

    public override bool IsReadOnly => !writable;

    public override NodeIdentity? Identity => NbdDriver.IdentityOf(name);

    public override BlockLimits Limits => new(OptimalTransfer: Math.Max(1 << 20, _info.PreferredBlock), InFlight: 16);

    protected override BlockBinding Binding => new(
        RequestAlignment: Unit,
        MaximumTransfer: (int)Math.Min(_info.MaximumPayload == 0 ? NbdWire.MaximumPayload : _info.MaximumPayload, NbdWire.MaximumPayload),
        MaximumZeroes: MostZeroed);

    private int Unit => _info.MinimumBlock > 0 ? _info.MinimumBlock : _info.Length % AssumedSector == 0 ? AssumedSector : 1;

    public async ValueTask<bool> TryZeroFastAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (!_info.Can(NbdExportFlags.SendFastZero | NbdExportFlags.SendWriteZeroes) || offset % Unit != 0 || length % Unit != 0)
        {
            return false;
        }
        for (long end = offset + length; offset < end; offset += MostZeroed)
        {
            long from = offset, part = Math.Min(MostZeroed, end - offset);
            NbdRequest request = await ChangeAsync(
                () => new NbdRequest
                {
                    Command = NbdCommand.WriteZeroes, Flags = NbdCommandFlags.FastZero, Offset = from, Length = part,
                },
                cancellationToken).ConfigureAwait(false);
            if (request.Error is NbdError.NotSupported or NbdError.Invalid)
            {
                return false;
            }
            Require(request, "zero");
        }
        return true;
    }

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Memory<byte> inside = Inside(offset, buffer);
        buffer.Span[inside.Length..].Clear();
        if (inside.IsEmpty)
        {
            return;
        }
        NbdRequest request = await RunAsync(
            () => new NbdRequest { Command = NbdCommand.Read, Offset = offset, Length = inside.Length, Buffer = inside },
            cancellationToken).ConfigureAwait(false);
        Require(request, "read");
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => WriteAsync(offset, buffer, NbdCommandFlags.None, cancellationToken);

    protected override async ValueTask<bool> TryWriteDurablyAsync(
        long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        if (!_info.Can(NbdExportFlags.SendFua) || offset % Unit != 0 || buffer.Length % Unit != 0
            || buffer.Length > Binding.LargestTransfer)
        {
            return false;
        }
        await WriteAsync(offset, buffer, NbdCommandFlags.Fua, cancellationToken).ConfigureAwait(false);
        return true;
    }

    protected override async ValueTask<bool> PrefetchCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (!_info.Can(NbdExportFlags.SendCache) || offset % Unit != 0 || length % Unit != 0)
        {
            return false;
        }
        for (long end = offset + length; offset < end; offset += MostZeroed)
        {
            long from = offset, part = Math.Min(MostZeroed, end - offset);
            NbdRequest request = await RunAsync(
                () => new NbdRequest { Command = NbdCommand.Cache, Offset = from, Length = part }, cancellationToken).ConfigureAwait(false);
            if (request.Error is NbdError.NotSupported or NbdError.Invalid)
            {
                return false;
            }
            Require(request, "read ahead");
        }
        return true;
    }

    private async ValueTask WriteAsync(
        long offset, ReadOnlyMemory<byte> buffer, NbdCommandFlags flags, CancellationToken cancellationToken)
    {
        ReadOnlyMemory<byte> inside = buffer[..(int)Math.Clamp(Length - offset, 0, buffer.Length)];
        if (!inside.IsEmpty)
        {
            Require(
                await ChangeAsync(
                    () => new NbdRequest
                    {
                        Command = NbdCommand.Write, Flags = flags, Offset = offset, Length = inside.Length, Payload = inside,
                    },
                    cancellationToken).ConfigureAwait(false),
                "write");
        }
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        if (!_info.Can(NbdExportFlags.SendWriteZeroes))
        {
            await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
            return;
        }
        NbdCommandFlags flags = mode == ZeroWriteMode.KeepAllocated ? NbdCommandFlags.NoHole : NbdCommandFlags.None;
        long inside = Math.Min(length, Length - offset);
        Require(
            await ChangeAsync(
                () => new NbdRequest { Command = NbdCommand.WriteZeroes, Flags = flags, Offset = offset, Length = inside },
                cancellationToken).ConfigureAwait(false),
            "zero");
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (_info.Can(NbdExportFlags.SendTrim))
        {
            long inside = Math.Min(length, Length - offset);
            NbdRequest request = await ChangeAsync(
                () => new NbdRequest { Command = NbdCommand.Trim, Offset = offset, Length = inside },
                cancellationToken).ConfigureAwait(false);
            if (request.Error is not (NbdError.NotSupported or NbdError.Invalid)) // a hint that is not taken
            {
                Require(request, "discard");
            }
        }
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        if (!_info.Can(NbdExportFlags.SendFlush))
        {
            return; // nothing is held back, or nobody can tell
        }
        NbdRequest request = await RunAsync(
            () => new NbdRequest { Command = NbdCommand.Flush }, cancellationToken).ConfigureAwait(false);
        try
        {
            Require(request, "flush");
        }
        catch (DiskImageException e)
        {
            BreakWriting(e);
            throw;
        }
    }

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (_info.Contexts.Count == 0)
        {
            return await base.GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }
        if (_known.Find(offset) is { } known)
        {
            return known;
        }
        long mark = _known.Mark;
        long start = Round.Down(offset, Unit);
        long most = _info.IsExtended ? long.MaxValue : LongestQuestion - (1 << 16);
        long asked = Math.Min(Math.Min(Round.Up(offset + length, Unit) - start, most), Length - start);
        NbdRequest request = await RunAsync(
            () => new NbdRequest { Command = NbdCommand.BlockStatus, Offset = start, Length = asked }, cancellationToken)
            .ConfigureAwait(false);
        if (request.Error is NbdError.NotSupported or NbdError.Invalid)
        {
            return await base.GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }
        Require(request, "ask for the extents of");
        KnownExtents status = Known(start, request.Status.Values.First());
        _known.Keep(status, mark);
        return status.Find(offset) ?? await base.GetExtentCoreAsync(offset, 1, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The length is the server's.</summary>
    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => length == Length ? default : throw new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"{Name}: the length of an export, {Length:#,0} bytes, is its server's to change, not its client's",
            Name);

    protected override ValueTask CloseCoreAsync() => connections.DisposeAsync();

    private Memory<byte> Inside(long offset, Memory<byte> buffer) => buffer[..(int)Math.Clamp(Length - offset, 0, buffer.Length)];

    private async ValueTask<NbdRequest> RunAsync(Func<NbdRequest> make, CancellationToken cancellationToken)
    {
        try
        {
            return await connections.RunAsync(make, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            Break(e);
            throw;
        }
    }

    private ValueTask<NbdRequest> ChangeAsync(Func<NbdRequest> make, CancellationToken cancellationToken)
        => _known.ChangeAsync(() => RunAsync(make, cancellationToken));

    private void Require(NbdRequest request, string doing)
    {
        if (request.Error == NbdError.None)
        {
            return;
        }
        bool changes = request.Command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim or NbdCommand.Flush;
        (DiskImageErrorKind kind, string what) = request.Error switch
        {
            NbdError.NotPermitted => (DiskImageErrorKind.AccessDenied, "the server does not permit it"),
            NbdError.NoSpace => (DiskImageErrorKind.NoSpace, "the server has no room left"),
            NbdError.NotSupported => (DiskImageErrorKind.Unsupported, "the server does not know how"),
            NbdError.Shutdown => (DiskImageErrorKind.Io, "the server is shutting down"),
            NbdError.NoMemory => (DiskImageErrorKind.Io, "the server has no memory left"),
            NbdError.Invalid or NbdError.Overflow => (DiskImageErrorKind.Io, "the server does not take such a request"),
            NbdError.Io => (changes ? DiskImageErrorKind.WriteFailed : DiskImageErrorKind.Io, "the server's storage failed"),
            _ => (changes ? DiskImageErrorKind.WriteFailed : DiskImageErrorKind.Io, $"the server answers with error {(uint)request.Error}"),
        };
        string where = request.Command == NbdCommand.Flush ? "it" : $"{request.Length:#,0} bytes at offset {request.Offset:#,0}";
        string said = string.IsNullOrEmpty(request.ErrorText) ? "" : $" ({request.ErrorText})";
        throw new DiskImageException(kind, $"{Name}: cannot {doing} {where}: {what}{said}", Name, request.Offset);
    }

    /// <summary>What an answer to a question for block status told.</summary>
    private KnownExtents Known(long start, List<NbdExtent> told)
    {
        var known = new KnownExtents();
        foreach (NbdExtent run in told)
        {
            var bits = (NbdAllocation)run.Flags;
            bool isData = !bits.HasFlag(NbdAllocation.Hole), isZero = !showsDirty && bits.HasFlag(NbdAllocation.Zero);
            BlockStatus status = BlockStatus.Allocated | (isZero ? BlockStatus.Zero : BlockStatus.None)
                | (isData ? BlockStatus.Data : BlockStatus.None);
            known.Add(new BlockExtent(start, run.Length, status, this, start));
            start += run.Length;
        }
        return known;
    }
}
