using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Platform;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// A folder as a disk that is written to. What is written is kept in a temporary file, and brought into the folder when it is flushed and
/// when the disk is closed. One request at a time: what a disk holds while it is brought in must stand still.
/// </summary>
/// <remarks>
/// A flush may come while a guest is in the middle of something; what cannot be understood then waits for the next one, and nothing is
/// removed on the strength of it. What is left at the end is an error, and the whole disk is kept beside the folder.
/// </remarks>
internal sealed class WritableFatNode : BlockNode
{
    private const int Sector = FatGeometry.Sector, MostNamed = 5;

    private readonly string _name;
    private readonly NodeIdentity? _identity;
    private readonly FatVolume _volume;
    private readonly FatOverlay _overlay;
    private readonly KnownTree _known;
    private readonly SemaphoreSlim _gate = new(1, 1);
    private readonly byte[] _described; // the sectors that say where everything is, as they were made
    private IReadOnlyList<FatProblem> _problems = [];
    private DiskImageException? _failure;

    public WritableFatNode(string name, NodeIdentity? identity, FatVolume volume)
    {
        (_name, _identity, _volume, _known) = (name, identity, volume, KnownTree.Of(volume));
        _overlay = new FatOverlay(name, volume);
        _described = Described();
    }

    public override string Name => _name;

    public override long Length => _volume.Geometry.DiskBytes;

    public override bool IsReadOnly => false;

    public override NodeIdentity? Identity => _identity;

    /// <summary>Told before each change of the folder what it is. For tests.</summary>
    internal Action<string>? OnStep { get; set; }

    protected override BlockBinding Binding => new(RequestAlignment: Sector);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => AloneAsync(() => _overlay.Read(offset, buffer.Span, cancellationToken), cancellationToken);

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => AloneAsync(() => _overlay.Write(offset, buffer.Span), cancellationToken);

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        BlockExtent extent = default;
        await AloneAsync(() => extent = _overlay.ExtentAt(this, offset, length), cancellationToken).ConfigureAwait(false);
        return extent;
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken) => AloneAsync(BringIn, cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            if (_failure is null)
            {
                BringIn();
            }
        }
        catch (DiskImageException e)
        {
            _failure = e;
        }
        finally
        {
            try
            {
                KeepWhatIsLeft();
            }
            finally
            {
                _overlay.Dispose();
                _gate.Dispose();
            }
        }
    }

    private async ValueTask AloneAsync(Action action, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            action();
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    private void BringIn()
    {
        if (_overlay.Fresh.IsEmpty && _problems.Count == 0)
        {
            return;
        }
        if (!Described().AsSpan().SequenceEqual(_described))
        {
            _problems = [new FatProblem("", "its partition table or its boot sector was changed: it was divided or formatted anew")];
            return;
        }
        var reader = new GuestReader(_volume.Geometry, Read);
        GuestTree guest = reader.Read(_volume.Root.FirstCluster);
        FolderPlan plan = FolderPlan.Make(_known, guest, IsFresh);
        var writer = new FolderWriter(_known, Read, _volume.Geometry.OffsetOf, OnStep);
        if (!plan.IsEmpty)
        {
            try
            {
                Bring(plan, writer, reader.Table);
            }
            catch (DiskImageException e)
            {
                _failure = e;
                BreakWriting(e);
                throw;
            }
        }
        _overlay.Fresh.Clear();
        _problems = [.. plan.Problems, .. writer.Problems];
    }

    private void Bring(FolderPlan plan, FolderWriter writer, GuestTable table)
    {
        List<FileMade> made = writer.Prepare(plan);
        // A file that only gets another name goes on being read; what else goes is read no more.
        var kept = new HashSet<KnownFile>(made.Where(m => m.IsLinked).Select(m => m.Arrival.MovedFrom!));
        foreach (KnownFile file in plan.RemovedFiles.Concat(made.Select(m => m.Arrival.Replaces).OfType<KnownFile>()))
        {
            if (file.Source is { } source && !kept.Contains(file))
            {
                _overlay.TakeOver(source, table.IsUsed);
            }
        }
        writer.Apply(plan, made);
    }

    private bool IsFresh(IReadOnlyList<ClusterRun> runs) => runs.Any(r => _overlay.Fresh.HasAny(
        _volume.Geometry.OffsetOf(r.First) / Sector, (long)r.Count * _volume.Geometry.SectorsPerCluster));

    private void Read(long offset, Span<byte> buffer) => _overlay.Read(offset, buffer, CancellationToken.None);

    /// <summary>The partition's entry, and of the boot sector what says where things are; not code, marks and label.</summary>
    private byte[] Described()
    {
        const int EntryAt = 446, EntryBytes = 16, From = 11, Fields = 25, Fields32 = 53;
        byte[] sector = new byte[Sector];
        int count = _volume.Geometry.Type == FatType.Fat32 ? Fields32 - From : Fields;
        byte[] described = new byte[EntryBytes + count];
        if (_volume.Geometry.Start > 0)
        {
            Read(0, sector);
            sector.AsSpan(EntryAt + 1, EntryBytes - 1).CopyTo(described); // whether it is the active one does not matter
        }
        Read(_volume.Geometry.VolumeAt, sector);
        sector.AsSpan(From, count).CopyTo(described.AsSpan(EntryBytes));
        return described;
    }

    /// <summary>Throws what could not be brought in, once the disk is saved.</summary>
    private void KeepWhatIsLeft()
    {
        if (_problems.Count == 0 && _failure is null)
        {
            return;
        }
        string[] all = [.. _problems.Select(p => $"{(p.Path.Length == 0 ? "the disk" : p.Path)}: {p.Reason}")];
        string what = _failure is not null ? $"what was written could not be brought into the folder: {_failure.Message}"
            : $"{all.Length:#,0} of the changes could not be brought into the folder: {string.Join("; ", all.Take(MostNamed))}"
                + (all.Length > MostNamed ? $"; and {all.Length - MostNamed:#,0} more" : "");
        var error = new DiskImageException(DiskImageErrorKind.WriteFailed, $"{_name}: {what}. {Save()}", _name, cause: _failure);
        error.Data["Problems"] = all;
        throw error;
    }

    private string Save()
    {
        string folder = _volume.Root.Path, name = $"{Path.GetFileName(folder)}.recovery-{RandomNumberGenerator.GetHexString(8, true)}.raw";
        string? why = null;
        foreach (string place in new[] { Path.GetDirectoryName(folder), Path.GetTempPath() }.OfType<string>())
        {
            string path = Path.Combine(place, name);
            try
            {
                _overlay.Save(path);
                return $"The whole disk as it was written is kept in {path}.";
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                why = HostFile.Error(e, path, "keep the disk").Message;
            }
        }
        return $"The disk could not be kept either: {why}.";
    }
}
