using System.Management.Automation.Runspaces;
using System.Management.Automation;
using System.Net.Sockets;
using System.Net;
using DiskImage.Block;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Start-DiskImageExport</c>: serves images to NBD clients, until it is stopped or the session ends.</summary>
[Cmdlet(VerbsLifecycle.Start, "DiskImageExport", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageExport))]
public sealed class StartDiskImageExportCommand : ReadImageCmdlet
{
    private const int DefaultPort = 10809;

    private readonly List<string> _images = [];

    /// <summary>By which clients ask for the images, in their order; the names of their files if absent.</summary>
    [Parameter]
    [ValidateNotNull]
    public string[] Name { get; set; } = [];

    /// <summary>What is told of them to people.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Description { get; set; }

    /// <summary>The TCP port to listen at; 0 for a free one.</summary>
    [Parameter]
    [ValidateRange(0, 65535)]
    public int Port { get; set; } = DefaultPort;

    /// <summary>The unix socket to listen at, instead of a port.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Socket { get; set; }

    /// <summary>The address of this machine to listen at.</summary>
    [Parameter]
    [ValidateNotNull]
    public IPAddress Address { get; set; } = IPAddress.Loopback;

    /// <summary>Nobody may change the images.</summary>
    [Parameter]
    public SwitchParameter ReadOnly { get; set; }

    /// <summary>Clients at a time that each image may have; 0 for any number.</summary>
    [Parameter]
    [ValidateRange(0, 256)]
    public int Share { get; set; }

    /// <summary>What clients write goes to a temporary overlay, which is gone at the end.</summary>
    [Parameter]
    public SwitchParameter TemporaryOverlay { get; set; }

    /// <summary>A snapshot inside the image, by identifier or name, which is served instead of the present state.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Snapshot { get; set; }

    /// <summary>Dirty bitmaps of the image that clients may ask for.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] Bitmap { get; set; } = [];

    /// <summary>Where in the disk the part begins that is served.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Offset { get; set; }

    /// <summary>Bytes of the part that is served; to the end if absent.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long? Length { get; set; }

    /// <summary>The folder with server-cert.pem and server-key.pem: connections must be under TLS.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? TlsCertificate { get; set; }

    /// <summary>The file with keys that clients know, too: connections must be under TLS.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? TlsPsk { get; set; }

    /// <summary>Serves until Ctrl+C.</summary>
    [Parameter]
    public SwitchParameter Wait { get; set; }

    /// <inheritdoc/>
    protected override Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        _images.Add(path); // one server serves them all
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        if (_images.Count > 0)
        {
            Runspace? runspace = Runspace.DefaultRunspace;
            Run(token => RunItemAsync(string.Join(", ", _images), () => StartAsync(runspace, token)));
        }
    }

    private async Task StartAsync(Runspace? runspace, CancellationToken cancellationToken)
    {
        RequireFit();
        (EndPoint address, ExportSecurity? security) = await AskAsync(() => (EndPoint(), Security())).ConfigureAwait(false);
        string where = Socket ?? new IPEndPoint(Address, Port).ToString();
        if (!await ConfirmAsync(string.Join(", ", _images), $"Serve at {where}").ConfigureAwait(false))
        {
            return;
        }
        var opened = new List<OpenedImage>();
        var states = new List<IAsyncDisposable>();
        RunningExport running;
        try
        {
            var disks = new List<ExportDisk>();
            foreach ((int i, string path) in _images.Index())
            {
                disks.Add(await OpenDiskAsync(path, i, opened, states, cancellationToken).ConfigureAwait(false));
            }
            ExportServer server = await ExportServer.StartAsync(address, disks, security, cancellationToken).ConfigureAwait(false);
            running = RunningExports.Add(server, [.. opened], [.. states], runspace);
        }
        catch
        {
            await Closing.AllAsync(states.Concat(opened).Select(i => (Func<ValueTask>)i.DisposeAsync)).ConfigureAwait(false);
            throw;
        }
        try
        {
            foreach (DiskImageExport export in running.Exports())
            {
                await OutputAsync(export).ConfigureAwait(false);
            }
            if (Wait)
            {
                await Task.Delay(Timeout.InfiniteTimeSpan, cancellationToken).ConfigureAwait(false);
            }
        }
        catch
        {
            await RunningExports.StopAsync(running.Id).ConfigureAwait(false);
            throw;
        }
    }

    private async Task<ExportDisk> OpenDiskAsync(
        string path, int index, List<OpenedImage> opened, List<IAsyncDisposable> states, CancellationToken cancellationToken)
    {
        bool writes = !ReadOnly && Snapshot is null;
        OpenedImage image = await OpenAsync(
            Request(path) with { Writable = writes, TemporaryOverlay = writes && TemporaryOverlay, BeforeWriting = writes },
            cancellationToken).ConfigureAwait(false);
        opened.Add(image);
        BlockNode node = image.Node;
        if (Snapshot is not null)
        {
            DiskState state = await DiskState.OpenAsync(image, Snapshot, cancellationToken).ConfigureAwait(false);
            states.Add(state);
            node = state.Disk;
        }
        bool isProbedRaw = image.WasProbed && image.Format == Registry.Formats[0];
        var disk = new ExportDisk(index < Name.Length ? Name[index] : Leaf(image.Path), node)
        {
            Description = Description,
            IsReadOnly = !writes,
            Share = Share,
            Bitmaps = Bitmap,
            ProbedBy = isProbedRaw ? Registry : null,
        };
        if (Offset != 0 || Length is not null)
        {
            disk.Narrow(Offset, Length);
        }
        return disk;
    }

    private void RequireFit()
    {
        if (Name.Length > 0 && Name.Length != _images.Count)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{_images.Count:#,0} images, and {Name.Length:#,0} names for them (-{nameof(Name)}).");
        }
        if (TemporaryOverlay && (ReadOnly || Snapshot is not null))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"-{nameof(TemporaryOverlay)} takes what is written, and with -{(ReadOnly ? nameof(ReadOnly) : nameof(Snapshot))} "
                    + "nothing is.");
        }
        if (TlsCertificate is not null && TlsPsk is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"-{nameof(TlsPsk)} is instead of -{nameof(TlsCertificate)}.");
        }
        if (Socket is not null && (MyInvocation.BoundParameters.ContainsKey(nameof(Port))
            || MyInvocation.BoundParameters.ContainsKey(nameof(Address))))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"-{nameof(Socket)} is instead of -{nameof(Port)} and -{nameof(Address)}.");
        }
    }

    private EndPoint EndPoint()
    {
        if (Socket is null)
        {
            return new IPEndPoint(Address, Port);
        }
        string path = SessionPath.Literal(SessionState.Path, Socket);
        try
        {
            return new UnixDomainSocketEndPoint(path);
        }
        catch (ArgumentException e)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{path}: no unix socket can have that path: {e.Message}", path);
        }
    }

    private ExportSecurity? Security()
        => TlsPsk is not null ? ExportSecurity.ByKeys(SessionPath.Literal(SessionState.Path, TlsPsk))
            : TlsCertificate is null ? null : ExportSecurity.ByCertificate(SessionPath.Literal(SessionState.Path, TlsCertificate));
}
