using System.Buffers.Binary;
using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>What a cluster does with VDIs and their objects, by way of one gateway.</summary>
/// <param name="connection">The way to the gateway; its own.</param>
internal sealed class SheepGateway(SheepConnection connection) : IAsyncDisposable
{
    private const int EntriesAtOnce = 64 << 10; // of a list of objects, in one request. Ours
    private const int InodesAtOnce = 16; // that are asked for while snapshots are looked for. Ours
    private const int MostInFamily = 1 << 16; // VDIs that are looked at for the snapshots of one. Ours

    /// <summary>What the VDI is called in messages.</summary>
    public string Name => connection.Name;

    /// <summary>Why it is of no more use; null while it is.</summary>
    public DiskImageException? Broken => connection.Broken;

    /// <summary>Sends a request and waits for its answer, whatever it is.</summary>
    public ValueTask<SheepRequest> RunAsync(SheepRequest request, CancellationToken cancellationToken)
        => connection.RunAsync(request, cancellationToken);

    /// <summary>Sends a request that is to succeed.</summary>
    /// <param name="request">It.</param>
    /// <param name="doing">What fails if it does, for the message.</param>
    /// <param name="offset">Where in the disk; null for nowhere.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <exception cref="DiskImageException">What the cluster says.</exception>
    public async ValueTask<SheepRequest> RequireAsync(
        SheepRequest request, Wording doing, long? offset, CancellationToken cancellationToken)
    {
        SheepRequest answered = await RunAsync(request, cancellationToken).ConfigureAwait(false);
        return answered.Result == SheepResult.Success && answered.Received == answered.Expected
            ? answered
            : throw Error(answered, doing, offset);
    }

    /// <summary>What the cluster says to a request, as an error.</summary>
    public DiskImageException Error(SheepRequest request, Wording doing, long? offset = null)
        => request.Result == SheepResult.Success
            ? new(
                DiskImageErrorKind.Io,
                $"{Name}: cannot {doing}: the server says that all went well, and gives {request.Received:#,0} bytes of "
                    + $"{request.Expected:#,0}",
                Name,
                offset)
            : new(
                SheepWords.KindOf(request.Result, request.Flags.HasFlag(SheepFlags.Write)),
                $"{Name}: cannot {doing}: the Sheepdog cluster says: {SheepWords.Of(request.Result)}",
                Name,
                offset);

    /// <summary>The number of a VDI, or of a snapshot of it; null if there is none.</summary>
    public async ValueTask<uint?> FindAsync(string name, string tag, uint snapshot, CancellationToken cancellationToken)
    {
        SheepRequest found = await RunAsync(
            SheepRequest.Find(SheepOperation.GetVdiInfo, name, tag, snapshot), cancellationToken).ConfigureAwait(false);
        return found.Result switch
        {
            SheepResult.Success => found.AnsweredVdi,
            SheepResult.NoVdi or SheepResult.NoTag => null,
            _ => throw Error(found, "find it"),
        };
    }

    /// <summary>Locks a VDI as its one writer, where the cluster keeps locks, and tells its number.</summary>
    /// <exception cref="DiskImageException">NotFound, Locked; what the cluster says.</exception>
    public async ValueTask<uint> LockAsync(string name, CancellationToken cancellationToken)
        => (await RequireAsync(
            SheepRequest.Find(SheepOperation.LockVdi, name, "", 0), "open it", null, cancellationToken).ConfigureAwait(false)).AnsweredVdi;

    /// <summary>Lets go of a lock. That there is none is no error.</summary>
    public async ValueTask ReleaseAsync(string name, uint vdi, CancellationToken cancellationToken)
        => _ = await RunAsync(SheepRequest.Release(name, vdi), cancellationToken).ConfigureAwait(false);

    /// <summary>What the inode of a VDI says.</summary>
    public async ValueTask<SheepInode> InodeAsync(uint vdi, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[SheepInode.Length];
        _ = await RequireAsync(
            SheepRequest.Read(SheepWire.InodeOf(vdi), 0, bytes), "read its inode", null, cancellationToken).ConfigureAwait(false);
        return SheepInode.Parse(bytes, vdi, Name);
    }

    /// <summary>The list of the objects of a VDI: for each the number of the VDI that it belongs to, 0 for none.</summary>
    public async ValueTask<uint[]> EntriesAsync(SheepInode inode, CancellationToken cancellationToken)
    {
        uint[] entries = new uint[inode.Objects];
        byte[] bytes = new byte[Math.Min(entries.Length, EntriesAtOnce) * sizeof(uint)];
        for (int at = 0; at < entries.Length;)
        {
            int count = Math.Min(EntriesAtOnce, entries.Length - at);
            _ = await RequireAsync(
                SheepRequest.Read(
                    SheepWire.InodeOf(inode.Vdi), SheepInode.EntryAt(at), bytes.AsMemory(0, count * sizeof(uint))),
                "read the list of its objects",
                null,
                cancellationToken).ConfigureAwait(false);
            for (int i = 0; i < count; i++)
            {
                uint entry = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(i * sizeof(uint)));
                entries[at + i] = entry < SheepWire.Vdis ? entry : throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{Name}: object {at + i} is said to belong to VDI {entry:x}. Numbers of VDIs have 24 bits.",
                    Name,
                    (long)(at + i) << inode.Shift);
            }
            at += count;
        }
        return entries;
    }

    /// <summary>Writes a part of a VDI's inode.</summary>
    public async ValueTask WriteInodeAsync(
        SheepInode inode, int at, ReadOnlyMemory<byte> bytes, Wording doing, CancellationToken cancellationToken)
        => _ = await RequireAsync(
            SheepRequest.Write(SheepWire.InodeOf(inode.Vdi), at, bytes, inode), doing, null, cancellationToken).ConfigureAwait(false);

    /// <summary>Has a VDI none of some objects any more. Those that nobody else has are gone.</summary>
    /// <param name="inode">The VDI.</param>
    /// <param name="entries">The list of its objects, which is changed as far as it goes.</param>
    /// <param name="from">The first one.</param>
    /// <param name="to">The one behind the last.</param>
    /// <param name="cancellationToken">Stops it between two steps.</param>
    public async ValueTask ClearAsync(SheepInode inode, uint[] entries, int from, int to, CancellationToken cancellationToken)
    {
        const int AtOnce = 1024; // the gateway has work to do for each. Ours
        byte[] none = new byte[Math.Min(AtOnce, to - from) * sizeof(uint)];
        for (int at = from; at < to; at += AtOnce)
        {
            int count = Math.Min(AtOnce, to - at);
            if (entries.AsSpan(at, count).ContainsAnyExcept(0u))
            {
                cancellationToken.ThrowIfCancellationRequested();
                await WriteInodeAsync(
                    inode,
                    SheepInode.EntryAt(at),
                    none.AsMemory(0, count * sizeof(uint)),
                    "give its objects up",
                    CancellationToken.None).ConfigureAwait(false);
                entries.AsSpan(at, count).Clear();
            }
        }
    }

    /// <summary>Makes a VDI and tells its number.</summary>
    public async ValueTask<uint> NewAsync(SheepRequest request, CancellationToken cancellationToken)
        => (await RequireAsync(request, "make it", null, cancellationToken).ConfigureAwait(false)).AnsweredVdi;

    /// <summary>Deletes a VDI, or one of its snapshots, with the objects that nobody else has.</summary>
    public async ValueTask DeleteAsync(string name, SheepInode inode, CancellationToken cancellationToken)
    {
        uint[] entries = await EntriesAsync(inode, cancellationToken).ConfigureAwait(false);
        await ClearAsync(inode, entries, 0, entries.Length, cancellationToken).ConfigureAwait(false);
        _ = await RequireAsync(
            SheepRequest.Find(SheepOperation.DeleteVdi, name, "", inode.IsSnapshot ? inode.SnapshotId : 0),
            "delete it",
            null,
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The snapshots of a VDI, oldest first.</summary>
    public async ValueTask<IReadOnlyList<SheepInode>> SnapshotsAsync(string name, CancellationToken cancellationToken)
    {
        byte[] taken = new byte[SheepWire.Vdis / 8];
        _ = await RequireAsync(SheepRequest.ReadVdis(taken), "list its snapshots", null, cancellationToken).ConfigureAwait(false);
        var found = new List<SheepInode>();
        int at = SheepWire.HashOf(name);
        for (int looked = 0; looked < MostInFamily && IsTaken(at);)
        {
            var asked = new List<Task<SheepInode?>>(InodesAtOnce);
            for (; asked.Count < InodesAtOnce && IsTaken(at); at = (at + 1) % SheepWire.Vdis)
            {
                asked.Add(TryInodeAsync((uint)at));
            }
            found.AddRange((await Task.WhenAll(asked).ConfigureAwait(false)).OfType<SheepInode>());
            looked += asked.Count;
        }
        return [.. found.OrderBy(s => s.SnapshotId)];

        bool IsTaken(int vdi) => (taken[vdi / 8] >> (vdi % 8) & 1) != 0;

        async Task<SheepInode?> TryInodeAsync(uint vdi)
        {
            byte[] bytes = new byte[SheepInode.Length];
            SheepRequest read = await RunAsync(
                SheepRequest.Read(SheepWire.InodeOf(vdi), 0, bytes), cancellationToken).ConfigureAwait(false);
            return read.Result == SheepResult.NoObject ? null
                : read.Result != SheepResult.Success || read.Received != bytes.Length ? throw Error(read, "list its snapshots")
                : SheepWire.Name(bytes.AsSpan(0, SheepWire.NameLength)).Equals(name, StringComparison.Ordinal)
                    && SheepInode.Parse(bytes, vdi, Name) is { IsSnapshot: true } inode ? inode
                : null;
        }
    }

    /// <summary>A snapshot of a VDI by what a user calls it: by its number, else by its tag, the latest with that.</summary>
    /// <exception cref="DiskImageException">NotFound.</exception>
    public async ValueTask<SheepInode> SnapshotAsync(
        string name, string wanted, bool byTagFirst, CancellationToken cancellationToken)
    {
        IReadOnlyList<SheepInode> all = await SnapshotsAsync(name, cancellationToken).ConfigureAwait(false);
        SheepInode? byId = uint.TryParse(wanted, NumberStyles.None, CultureInfo.InvariantCulture, out uint id)
            ? all.FirstOrDefault(s => s.SnapshotId == id) : null;
        SheepInode? byTag = byTagFirst
            ? all.FirstOrDefault(s => s.Tag.Equals(wanted, StringComparison.Ordinal))
            : all.LastOrDefault(s => s.Tag.Equals(wanted, StringComparison.Ordinal));
        return (byTagFirst ? byTag ?? byId : byId ?? byTag) ?? throw new DiskImageException(
            DiskImageErrorKind.NotFound,
            $"{Name}: has no snapshot '{wanted}'. "
                + (all.Count == 0 ? "It has none." : $"It has: {string.Join(", ", all.Take(20).Select(s => $"{s.SnapshotId} {s.Tag}"))}."),
            Name);
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => connection.DisposeAsync();
}
