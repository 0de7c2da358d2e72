using DiskImage.Block;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// A folder's disk with what was written to it: that is in a temporary file, everything else comes from the folder. Not for several at
/// once.
/// </summary>
internal sealed class FatOverlay : IDisposable
{
    private const int Sector = FatGeometry.Sector, Step = 1 << 20;

    private readonly string _name;
    private readonly FatVolume _volume;
    private readonly TreeFiles _files = new();
    private readonly SafeFileHandle _temporary;
    private readonly SectorSet _stored = new();
    private readonly HashSet<FatFile> _gone = [];

    /// <summary>Makes an empty one.</summary>
    /// <exception cref="DiskImageException">There can be no temporary file.</exception>
    public FatOverlay(string name, FatVolume volume)
    {
        (_name, _volume) = (name, volume);
        try
        {
            _temporary = HostFile.Current.OpenTemporary();
            HostFile.Current.AllowHoles(_temporary);
            HostFile.Current.SurviveFileSizeLimit();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw HostFile.Error(e, name, $"make a temporary file in {System.IO.Path.GetTempPath()}");
        }
    }

    /// <summary>Sectors that were written since it was last brought in.</summary>
    public SectorSet Fresh { get; } = new();

    /// <summary>Fills a buffer of whole sectors.</summary>
    public void Read(long offset, Span<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            bool isStored = _stored.Has(offset / Sector);
            int count = (int)_stored.Run(offset / Sector, buffer.Length / Sector) * Sector;
            if (isStored)
            {
                ReadStored(offset, buffer[..count]);
            }
            else
            {
                ReadFolder(offset, buffer[..count], cancellationToken);
            }
            offset += count;
            buffer = buffer[count..];
        }
    }

    /// <summary>Takes whole sectors that a guest writes.</summary>
    public void Write(long offset, ReadOnlySpan<byte> bytes)
    {
        Store(offset, bytes);
        Fresh.Add(offset / Sector, bytes.Length / Sector);
    }

    /// <summary>What lies at an offset.</summary>
    public BlockExtent ExtentAt(BlockNode node, long offset, long length)
    {
        long first = offset / Sector, count = Math.Min(length, (_stored.Run(first, (length / Sector) + 2) * Sector) - (offset % Sector));
        if (_stored.Has(first))
        {
            return new BlockExtent(offset, count, BlockStatus.Allocated | BlockStatus.Data, node, offset);
        }
        FatRun run = _volume.RunAt(offset, count);
        return run.File is { } file && _gone.Contains(file)
            ? new BlockExtent(offset, run.Length, BlockStatus.Allocated | BlockStatus.Zero, node, null)
            : VirtualFatNode.ExtentOf(node, _volume, _files, offset, count);
    }

    /// <summary>Takes over what a file of the folder holds of clusters that are in use, since the file is to go.</summary>
    /// <param name="file">The file.</param>
    /// <param name="isUsed">True for a cluster that is in use.</param>
    public void TakeOver(FatFile file, Func<uint, bool> isUsed)
    {
        if (_gone.Contains(file))
        {
            return;
        }
        byte[] buffer = new byte[_volume.Geometry.ClusterBytes];
        for (uint i = 0; i < file.Clusters; i++)
        {
            uint cluster = file.FirstCluster + i;
            long at = _volume.Geometry.OffsetOf(cluster);
            int sectors = buffer.Length / Sector;
            if (isUsed(cluster) && !(_stored.Has(at / Sector) && _stored.Run(at / Sector, sectors) == sectors))
            {
                Read(at, buffer, CancellationToken.None);
                Store(at, buffer);
            }
        }
        _files.Forget(file);
        _ = _gone.Add(file);
    }

    /// <summary>Throws if a file of the folder is not what it was.</summary>
    public void Check(FatFile file)
    {
        if (!_gone.Contains(file))
        {
            _files.Check(file);
        }
    }

    /// <summary>Writes all of the disk to a new file; what cannot be read of the folder any more is zeroes there.</summary>
    public void Save(string path)
    {
        using SafeFileHandle file = System.IO.File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write, FileShare.None);
        HostFile.Current.AllowHoles(file);
        HostFile.Current.SetLength(file, _volume.Geometry.DiskBytes);
        byte[] buffer = new byte[Step];
        for (long at = 0, end = _volume.Geometry.DiskBytes; at < end;)
        {
            FatRun run = _volume.RunAt(at, Math.Min(Step, end - at));
            long stored = _stored.Run(at / Sector, Step / Sector) * Sector;
            int count = (int)Math.Min(((run.Length + Sector - 1) / Sector) * Sector, stored);
            count = (int)Math.Min(count, end - at);
            if (!run.IsZero || _stored.Has(at / Sector))
            {
                Span<byte> part = buffer.AsSpan(0, count);
                try
                {
                    Read(at, part, CancellationToken.None);
                    RandomAccess.Write(file, part, at);
                }
                catch (DiskImageException)
                {
                    // gone from the folder
                }
            }
            at += count;
        }
        HostFile.Current.Flush(file);
    }

    public void Dispose()
    {
        _files.Dispose();
        HostFile.Current.Close(_temporary);
    }

    private void ReadFolder(long offset, Span<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            FatRun run = _volume.RunAt(offset, buffer.Length);
            Span<byte> part = buffer[..(int)run.Length];
            if (run.File is { } file && _gone.Contains(file))
            {
                part.Clear();
            }
            else
            {
                VirtualFatNode.Read(_volume, _files, offset, part, cancellationToken);
            }
            offset += part.Length;
            buffer = buffer[part.Length..];
        }
    }

    private void ReadStored(long offset, Span<byte> buffer)
    {
        try
        {
            for (int done = 0; done < buffer.Length;)
            {
                int count = RandomAccess.Read(_temporary, buffer[done..], offset + done);
                done += count > 0 ? count : throw new IOException("it is shorter than what was written to it");
            }
        }
        catch (IOException e)
        {
            throw HostFile.Error(e, _name, "read what was written to it", offset);
        }
    }

    private void Store(long offset, ReadOnlySpan<byte> bytes)
    {
        try
        {
            RandomAccess.Write(_temporary, bytes, offset);
        }
        catch (Exception e) when (e is IOException or ArgumentOutOfRangeException)
        {
            throw HostFile.Error(
                e, _name, $"keep what is written in {System.IO.Path.GetTempPath()}", offset, DiskImageErrorKind.WriteFailed);
        }
        _stored.Add(offset / Sector, bytes.Length / Sector);
    }
}
