using System.Diagnostics;
using DiskImage.Block;
using DiskImage.Platform;

namespace DiskImage.Protocols.Nvme;

/// <summary>
/// An NVMe controller that this process drives. Spec: NVM Express Base 2.0, sections 3.1.3 (registers), 3.5.1 (how it is started),
/// 3.6 (how it is left), 5 (admin commands).
/// </summary>
internal sealed class NvmeController : IAsyncDisposable
{
    private const int MostEntries = NvmeQueue.PageSize >> NvmeQueue.SubmissionShift, AdminEntries = 8, AdminSlots = 2; // ours
    private const int MostSlots = 8, SlotBytes = 512 << 10; // of data: four MiB in all. Ours
    private const int Capabilities = 0x00, Configuration = 0x14, Status = 0x1C, AdminSizes = 0x24, AdminSubmission = 0x28;
    private const int AdminCompletion = 0x30, Doorbells = 0x1000;
    private const uint Enable = 1, NormalShutdown = 1 << 14, ShutdownMask = 3 << 14; // CC
    private const uint Ready = 1, Fatal = 2, ShutdownComplete = 2 << 2, ShutdownStatus = 3 << 2, Gone = uint.MaxValue; // CSTS
    private const byte DeleteSubmission = 0x00, CreateSubmission = 0x01, DeleteCompletion = 0x04, CreateCompletion = 0x05;
    private const byte Identify = 0x06, SetFeatures = 0x09;
    private const uint NumberOfQueues = 7; // a feature
    private const uint OfNamespace = 0, OfController = 1, ActiveNamespaces = 2; // CNS
    private const int IoQueue = 1;
    private const int NamedNamespaces = 16; // in an error. Ours

    private readonly IPciFunction _function;
    private readonly NvmeTiming _timing;
    private readonly TimeSpan _readiness;
    private readonly CancellationTokenSource _breaking = new();
    private readonly TaskCompletionSource _pumped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly NvmeQueue _admin, _io;
    private DiskImageException? _broken;
    private volatile bool _isLeaving;
    private bool _isPumping, _hasQueues;

    private NvmeController(string name, IPciFunction function, NvmeTiming timing)
    {
        (Name, _function, _timing) = (name, function, timing);
        uint low = Read(Capabilities), high = Read(Capabilities + 4);
        if (low == Gone && high == Gone)
        {
            throw Error(DiskImageErrorKind.Io, "the controller does not answer: all its registers read as ones. Was it removed?");
        }
        int entries = Math.Min((int)(low & 0xFFFF) + 1, MostEntries), stride = 4 << (int)(high & 15);
        _readiness = timing.ReadyUnit * Math.Max(1, low >> 24); // CAP.TO
        if ((high & (1 << 5)) == 0)
        {
            throw Error(DiskImageErrorKind.Unsupported, "the controller does not have the NVM command set");
        }
        if (((high >> 16) & 15) != 0)
        {
            throw Error(
                DiskImageErrorKind.Unsupported,
                $"the controller wants pages of 2^{((high >> 16) & 15) + NvmeQueue.PageShift} bytes at least. Supported: 4,096");
        }
        if (entries < 2)
        {
            throw Error(DiskImageErrorKind.Corrupt, "the controller says that its queues have one entry at most, which is always full");
        }
        if (Doorbells + (((2 * IoQueue) + 1) * (long)stride) + sizeof(uint) > function.RegisterBytes)
        {
            throw Error(
                DiskImageErrorKind.Corrupt,
                $"the controller says that its doorbells are {stride:#,0} bytes apart, in {function.RegisterBytes:#,0} bytes of registers");
        }
        NvmeQueueLayout Layout(int number, int size, int slots, int bytes, int start) => new(
            number, size, slots, bytes, start, Doorbells + (2L * number * stride), Doorbells + (((2L * number) + 1) * stride));
        NvmeQueueLayout admin = Layout(0, AdminEntries, AdminSlots, NvmeIdentity.Size, 0);
        NvmeQueueLayout io = Layout(IoQueue, entries, Math.Min(MostSlots, entries - 1), SlotBytes, admin.End);
        function.MapMemory(io.End);
        (_admin, _io) = (new(function, admin, timing.Command), new(function, io, timing.Command));
    }

    /// <summary>What it is called.</summary>
    public string Name { get; }

    /// <summary>What it says of itself.</summary>
    public NvmeIdentity Identity { get; private set; } = null!;

    /// <summary>Bytes that one command moves at most.</summary>
    public int MostTransfer => (int)Math.Min(Identity.MostTransfer ?? SlotBytes, SlotBytes);

    /// <summary>Commands on namespaces that are under way at once at most.</summary>
    public int InFlight => _io.Slots;

    /// <summary>Resets a controller and makes it ready.</summary>
    /// <param name="name">What it is called.</param>
    /// <param name="function">It; closed with the controller, also if this fails.</param>
    /// <param name="timing">How long things may take.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<NvmeController> OpenAsync(
        string name, IPciFunction function, NvmeTiming timing, CancellationToken cancellationToken)
    {
        NvmeController controller;
        try
        {
            controller = new NvmeController(name, function, timing);
        }
        catch
        {
            function.Dispose();
            throw;
        }
        try
        {
            await controller.StartAsync(cancellationToken).ConfigureAwait(false);
            return controller;
        }
        catch
        {
            await controller.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Throws if the controller was given up.</summary>
    public void CheckWhole()
    {
        if (Volatile.Read(ref _broken) is { } cause)
        {
            throw new DiskImageException(cause.Kind, cause.Message, cause.Path, cause.Offset, cause);
        }
    }

    /// <summary>Has a command on a namespace answered; once more if it failed and may go well then.</summary>
    /// <exception cref="DiskImageException">The controller was given up.</exception>
    public async ValueTask<NvmeStatus> RunAsync(NvmeCommand command, CancellationToken cancellationToken)
        => await RunAsync(_io, command, cancellationToken).ConfigureAwait(false);

    /// <summary>What it says of a namespace.</summary>
    /// <exception cref="DiskImageException">NotFound, with those that there are; Unsupported; Corrupt.</exception>
    public async ValueTask<NvmeNamespace> IdentifyAsync(string name, uint number, CancellationToken cancellationToken)
    {
        byte[] data = new byte[NvmeIdentity.Size];
        NvmeStatus status = await IdentifyAsync(OfNamespace, number, data, cancellationToken).ConfigureAwait(false);
        if (!status.IsGood && !status.IsNoNamespace)
        {
            throw Error(DiskImageErrorKind.Io, $"the controller does not tell what its namespace {number} is: {status}");
        }
        if (status.IsGood && NvmeNamespace.Parse(name, number, data) is { } found)
        {
            return found;
        }
        Array.Clear(data);
        status = await IdentifyAsync(ActiveNamespaces, 0, data, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<uint> numbers = status.IsGood ? NvmeNamespace.List(data) : [];
        string there = numbers.Count == 0 ? "none that it tells of"
            : string.Join(", ", numbers.Take(NamedNamespaces)) + (numbers.Count > NamedNamespaces ? " and more" : "");
        throw new DiskImageException(
            DiskImageErrorKind.NotFound, $"{name}: the controller has no active namespace {number}. It has: {there}.", name);
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            if (_hasQueues && Volatile.Read(ref _broken) is null)
            {
                try
                {
                    // What they answer changes nothing: the controller is disabled anyhow.
                    _ = await RunAsync(_admin, new(DeleteSubmission, 0) { Word10 = IoQueue }, default).ConfigureAwait(false);
                    _ = await RunAsync(_admin, new(DeleteCompletion, 0) { Word10 = IoQueue }, default).ConfigureAwait(false);
                    uint running = Read(Configuration) & ~ShutdownMask;
                    _function.Write(Configuration, running | NormalShutdown);
                    _ = await WaitAsync(s => (s & ShutdownStatus) == ShutdownComplete, _timing.Shutdown, default).ConfigureAwait(false);
                }
                catch (DiskImageException)
                {
                    // It is given up below.
                }
            }
            _isLeaving = true;
            if (_isPumping)
            {
                _function.Wake();
                await _pumped.Task.ConfigureAwait(false);
            }
            _ = await DisableAsync(default).ConfigureAwait(false);
        }
        finally
        {
            _admin.Break();
            _io.Break();
            _function.Dispose();
            _admin.Dispose();
            _io.Dispose();
            _breaking.Dispose();
        }
    }

    private async ValueTask StartAsync(CancellationToken cancellationToken)
    {
        if (!await DisableAsync(cancellationToken).ConfigureAwait(false))
        {
            throw NotReady("does not stop");
        }
        _function.Write(AdminSizes, ((uint)(_admin.Entries - 1) << 16) | (uint)(_admin.Entries - 1));
        Write64(AdminSubmission, _admin.SubmissionAddress);
        Write64(AdminCompletion, _admin.CompletionAddress);
        // page size 2^12, NVM command set, round robin, entries of 64 and 16 bytes
        _function.Write(Configuration, (NvmeQueue.CompletionShift << 20) | (NvmeQueue.SubmissionShift << 16) | Enable);
        if (!await WaitAsync(static s => (s & (Ready | Fatal)) != 0, _readiness, cancellationToken).ConfigureAwait(false)
            || (Read(Status) & Fatal) != 0)
        {
            throw NotReady("does not become ready");
        }
        _isPumping = true;
        new Thread(Pump) { IsBackground = true, Name = Name }.Start();
        byte[] data = new byte[NvmeIdentity.Size];
        Require(
            await IdentifyAsync(OfController, 0, data, cancellationToken).ConfigureAwait(false), "tell what it is");
        Identity = NvmeIdentity.Parse(Name, data);
        Require(
            await RunAsync(_admin, new(SetFeatures, 0) { Word10 = NumberOfQueues }, cancellationToken).ConfigureAwait(false),
            "have a pair of queues");
        uint queue = ((uint)(_io.Entries - 1) << 16) | IoQueue;
        Require(
            await RunAsync(
                _admin,
                new(CreateCompletion, 0) { Word10 = queue, Word11 = _function.HasInterrupts ? 3u : 1, Address = _io.CompletionAddress },
                cancellationToken).ConfigureAwait(false),
            "make a completion queue");
        Require(
            await RunAsync(
                _admin,
                new(CreateSubmission, 0) { Word10 = queue, Word11 = (IoQueue << 16) | 1, Address = _io.SubmissionAddress },
                cancellationToken).ConfigureAwait(false),
            "make a submission queue");
        _hasQueues = true;
    }

    /// <summary>Resets the controller. Returns false if it does not do so in time.</summary>
    private async ValueTask<bool> DisableAsync(CancellationToken cancellationToken)
    {
        uint configuration = Read(Configuration);
        if (configuration == Gone)
        {
            return false;
        }
        _function.Write(Configuration, configuration & ~(Enable | ShutdownMask));
        return await WaitAsync(static s => (s & Ready) == 0, _readiness, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask<bool> WaitAsync(Func<uint, bool> isSo, TimeSpan most, CancellationToken cancellationToken)
    {
        for (long start = Stopwatch.GetTimestamp(); ;)
        {
            uint status = Read(Status);
            if (status == Gone)
            {
                return false;
            }
            if (isSo(status))
            {
                return true;
            }
            if (Stopwatch.GetElapsedTime(start) > most)
            {
                return false;
            }
            await Task.Delay(1, cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask<NvmeStatus> IdentifyAsync(uint what, uint number, byte[] data, CancellationToken cancellationToken)
        => await RunAsync(_admin, new(Identify, number) { Word10 = what, Into = data }, cancellationToken).ConfigureAwait(false);

    private async ValueTask<NvmeStatus> RunAsync(NvmeQueue queue, NvmeCommand command, CancellationToken cancellationToken)
    {
        for (bool isAgain = false; ; isAgain = true)
        {
            NvmeStatus? answer = await queue.RunAsync(command, GiveUp, _breaking.Token, cancellationToken).ConfigureAwait(false);
            if (answer is not { } status)
            {
                CheckWhole();
                throw Error(DiskImageErrorKind.Io, "the controller was closed while a command was under way");
            }
            if (status.IsGood || status.IsFinal || isAgain)
            {
                return status;
            }
        }
    }

    /// <summary>Takes answers as they come, and looks after a controller that gives none.</summary>
    private void Pump()
    {
        try
        {
            while (!_isLeaving)
            {
                bool isBusy = _admin.IsBusy || _io.IsBusy;
                _function.Wait(isBusy && !_function.HasInterrupts ? TimeSpan.FromMilliseconds(1) : _timing.Tick);
                int taken = Take(_admin) + Take(_io);
                if (taken == 0 && isBusy)
                {
                    LookAfter();
                }
            }
        }
#pragma warning disable CA1031 // whatever it is, whoever waits must be told
        catch (Exception e)
#pragma warning restore CA1031
        {
            Break(Error(DiskImageErrorKind.Io, $"the controller cannot be looked after any more: {e.Message}"));
        }
        finally
        {
            _pumped.SetResult();
        }
    }

    private int Take(NvmeQueue queue)
    {
        int taken = queue.Process(out string? fault);
        if (fault is not null)
        {
            GiveUp(fault);
        }
        return taken;
    }

    private void LookAfter()
    {
        uint status = Read(Status);
        if (status == Gone)
        {
            Break(Error(DiskImageErrorKind.Io, "the controller does not answer any more: all its registers read as ones. Was it removed?"));
        }
        else if ((status & Fatal) != 0)
        {
            Break(Error(
                DiskImageErrorKind.Io, "the controller reports a fatal error (CSTS.CFS) and was given up, with all that was under way"));
        }
        else if ((_admin.Late(Environment.TickCount64) ?? _io.Late(Environment.TickCount64)) is { } opcode)
        {
            Break(Error(
                DiskImageErrorKind.Io,
                $"the controller did not answer command 0x{opcode:x2} within {_timing.Command.TotalSeconds:0.###} s (CSTS 0x{status:x}) "
                    + "and was given up; what was under way is lost. Opening it again resets it"));
        }
    }

    private void GiveUp(string fault)
        => Break(Error(DiskImageErrorKind.Io, $"the controller {fault}: it does not keep to the rules, and was given up"));

    private void Break(DiskImageException cause)
    {
        if (Interlocked.CompareExchange(ref _broken, cause, null) is null)
        {
            _admin.Break();
            _io.Break();
            _breaking.Cancel();
        }
    }

    private DiskImageException NotReady(string what)
    {
        uint status = Read(Status);
        return Error(
            DiskImageErrorKind.Io,
            status == Gone ? "the controller does not answer any more: all its registers read as ones"
                : (status & Fatal) != 0 ? $"the controller {what}: it reports a fatal error (CSTS.CFS)"
                : $"the controller {what} within {_readiness.TotalSeconds:0.###} s, the time that it asks for (CSTS 0x{status:x})");
    }

    private void Require(NvmeStatus status, string doing)
    {
        if (!status.IsGood)
        {
            throw Error(DiskImageErrorKind.Io, $"the controller does not {doing}: {status}");
        }
    }

    private uint Read(int register) => _function.Read(register);

    private void Write64(int register, ulong value)
    {
        _function.Write(register, (uint)value);
        _function.Write(register + 4, (uint)(value >> 32));
    }

    private DiskImageException Error(DiskImageErrorKind kind, Wording what) => new(kind, $"{Name}: {what}.", Name);
}
