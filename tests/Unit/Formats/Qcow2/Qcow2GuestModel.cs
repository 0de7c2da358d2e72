using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>What of an image's making the model has to know.</summary>
internal sealed record Qcow2Shape(
    int Version, int ClusterSize, int UnitSize, bool HasBacking, bool HasDataFile, bool DataFileIsRaw, bool ByQemu)
{
    public bool HasSubclusters => UnitSize != ClusterSize;
}

/// <summary>
/// What a qcow2 disk should hold, byte by byte, and what its tables should say, unit by unit (a subcluster, or a cluster where
/// there are none). Where an implementation is free to choose, all that is right is kept.
/// </summary>
internal sealed class Qcow2GuestModel
{
    private readonly Qcow2Shape _shape;
    private readonly byte[] _backing;
    private SpecKinds[] _kinds; // by unit
    private bool[] _isShared; // by cluster: a snapshot may hold it too

    /// <summary>A new disk.</summary>
    /// <param name="shape">How the image was made.</param>
    /// <param name="size">Its virtual size.</param>
    /// <param name="below">What shows where the image holds nothing: the backing file, or the raw data file that was wrapped.</param>
    /// <param name="isPreallocated">True if every cluster has its place already.</param>
    public Qcow2GuestModel(Qcow2Shape shape, long size, byte[] below, bool isPreallocated)
    {
        _shape = shape;
        _backing = shape.HasBacking ? below : [];
        Contents = new byte[size];
        below.AsSpan(0, Math.Min(below.Length, Contents.Length)).CopyTo(Contents);
        SpecKinds preallocated = shape.ByQemu ? SpecKinds.Data | SpecKinds.AnyZero | SpecKinds.Unallocated
            // a place is reserved, no subcluster is in it
            : shape.HasSubclusters && !shape.DataFileIsRaw ? SpecKinds.Unallocated : SpecKinds.Data;
        _kinds = [.. Enumerable.Repeat(isPreallocated ? preallocated : SpecKinds.Unallocated, UnitsOf(size))];
        _isShared = new bool[ClustersOf(size)];
    }

    private Qcow2GuestModel(Qcow2GuestModel other)
        => (
            _shape,
            _backing,
            _kinds,
            _isShared,
            Contents) = (other._shape, other._backing, [.. other._kinds], [.. other._isShared], [.. other.Contents]);

    public Qcow2Shape Shape => _shape;

    public byte[] Contents { get; private set; }

    public int Size => Contents.Length;

    public List<(string Name, Qcow2GuestModel State)> Snapshots { get; } = [];

    public List<BitmapModel> Bitmaps { get; } = [];

    public void Write(int offset, byte[] data)
    {
        data.CopyTo(Contents, offset);
        Record(offset, data.Length);
        Stored(offset, data.Length);
    }

    public void WriteCompressed(int cluster, byte[] data, bool isCompressed)
    {
        data.CopyTo(Contents, cluster);
        Record(cluster, data.Length);
        for (int unit = cluster / _shape.UnitSize; unit < UnitsOf(cluster + data.Length); unit++)
        {
            _kinds[unit] = isCompressed ? SpecKinds.Compressed : SpecKinds.Data;
        }
        _isShared[cluster / _shape.ClusterSize] = false;
    }

    /// <summary>QEMU 7.2 stores a compressed cluster only where there is none yet.</summary>
    public bool CanQemuCompress(int cluster)
        => _kinds.AsSpan(cluster / _shape.UnitSize, _shape.ClusterSize / _shape.UnitSize).IndexOfAnyExcept(SpecKinds.Unallocated) < 0;

    public void WriteZeroes(int offset, int length)
    {
        Contents.AsSpan(offset, length).Clear();
        Record(offset, length);
        Zeroed(offset, length);
    }

    /// <summary>A discarded range may read as before or as zeroes; <paramref name="now"/> is what it does read as.</summary>
    public void Discard(int offset, int length, byte[] now)
    {
        (int first, int end) = WholeUnits(offset, length);
        (int recorded, int recordedEnd) = _shape.ByQemu
            ? (offset, offset + length)
            : (first * _shape.UnitSize, Math.Min(end * _shape.UnitSize, Size));
        Record(recorded, recordedEnd - recorded);
        for (int at = 0; at < length; at += SectorModel.Bytes)
        {
            int unit = (offset + at) / _shape.UnitSize;
            ReadOnlySpan<byte> sector = now.AsSpan(at, SectorModel.Bytes);
            bool isOld = sector.SequenceEqual(Contents.AsSpan(offset + at, SectorModel.Bytes)), isZero = !sector.ContainsAnyExcept((byte)0);
            bool mustBeZero = unit >= first && unit < end && GoesAway(unit, first, end) && (_kinds[unit] & SpecKinds.Unallocated) == 0;
            Assert.True(isZero
                || (isOld && !mustBeZero), $"sector {(offset + at) / SectorModel.Bytes} was discarded and reads neither as "
                    + $"{(mustBeZero ? "zeroes" : "before nor as zeroes")}");
        }
        now.CopyTo(Contents, offset);
        for (int unit = first; unit < end; unit++)
        {
            SpecKinds gone = _shape.Version < 3 ? SpecKinds.Unallocated
                : SpecKinds.AnyZero | (_kinds[unit] & SpecKinds.Unallocated) | (_shape is { ByQemu: true, HasDataFile: true }
                ? SpecKinds.Unallocated : 0);
            _kinds[unit] = GoesAway(unit, first, end) ? gone : _kinds[unit] | (_shape.ByQemu ? gone : 0);
        }
    }

    public void Resize(int size)
    {
        int old = Size;
        Bitmaps.ForEach(b => b.Resize(size));
        if (size < old)
        {
            int end = Math.Min(old, ClustersOf(size) * _shape.ClusterSize);
            if (end > size)
            {
                Zeroed(size, end - size);
            }
        }
        byte[] contents = new byte[size];
        Contents.AsSpan(0, Math.Min(old, size)).CopyTo(contents);
        Contents = contents;
        SpecKinds fresh = _shape.DataFileIsRaw ? SpecKinds.Data | (_shape.ByQemu ? SpecKinds.AnyZero | SpecKinds.Unallocated : 0)
            : !_shape.HasBacking ? SpecKinds.Unallocated
            : SpecKinds.Unallocated | (_shape.Version < 3 ? SpecKinds.Data : SpecKinds.AnyZero);
        if (size > old && old % _shape.UnitSize != 0)
        {
            _kinds[^1] |= SpecKinds.Data | SpecKinds.AnyZero;
        }
        int units = _kinds.Length, clusters = _isShared.Length;
        Array.Resize(ref _kinds, UnitsOf(size));
        Array.Resize(ref _isShared, ClustersOf(size));
        _kinds.AsSpan(Math.Min(units, _kinds.Length)).Fill(fresh);
        if (_shape.HasSubclusters && size > old && old % _shape.ClusterSize != 0) // the rest of the last cluster was there already
        {
            int rest = Math.Min(_kinds.Length, clusters * _shape.ClusterSize / _shape.UnitSize);
            for (int unit = units; unit < rest; unit++)
            {
                _kinds[unit] |= SpecKinds.Data | SpecKinds.AnyZero | SpecKinds.Compressed;
            }
        }
    }

    public void CreateSnapshot(string name)
    {
        Array.Fill(_isShared, true);
        Snapshots.Add((name, new Qcow2GuestModel(this)));
    }

    public void RestoreSnapshot(string name)
    {
        Qcow2GuestModel state = new(Snapshots.Single(s => s.Name == name).State);
        (_kinds, _isShared, Contents) = (state._kinds, state._isShared, state.Contents);
    }

    /// <summary>The tables must say what was predicted, and what they lead to must be the contents.</summary>
    public void Verify(Qcow2SpecView view, string what)
    {
        Assert.Equal(Size, view.Size);
        for (int unit = 0; unit < _kinds.Length; unit++)
        {
            SpecKinds kind = view.KindOf(unit);
            Assert.True((kind & _kinds[unit]) != 0, $"{what}: unit {unit} of {_shape.UnitSize} bytes is {kind}; expected: {_kinds[unit]}");
            int at = unit * _shape.UnitSize, length = Math.Min(_shape.UnitSize, Size - at);
            ReadOnlySpan<byte> expected = Contents.AsSpan(at, length), found = view.Read(unit);
            if (kind == SpecKinds.Unallocated && _shape.HasBacking)
            {
                byte[] shown = new byte[length];
                _backing.AsSpan(Math.Min(at, _backing.Length)..Math.Min(at + length, _backing.Length)).CopyTo(shown);
                found = shown;
            }
            Assert.True(
                expected.SequenceEqual(found),
                $"{what}: unit {unit} of {_shape.UnitSize} bytes ({kind}) differs at byte {expected.CommonPrefixLength(found)}");
        }
    }

    private int UnitsOf(long size) => (int)((size + _shape.UnitSize - 1) / _shape.UnitSize);

    private int ClustersOf(long size) => (int)((size + _shape.ClusterSize - 1) / _shape.ClusterSize);

    private void Record(int offset, int length) => Bitmaps.ForEach(b => b.Record(offset, length));

    /// <summary>The units that lie in a range as a whole; the last of the disk counts as whole.</summary>
    private (int First, int End) WholeUnits(int offset, int length)
    {
        int first = UnitsOf(offset), end = offset + length == Size ? UnitsOf(Size) : (offset + length) / _shape.UnitSize;
        return (first, Math.Max(first, end));
    }

    /// <summary>True if a discard of the units [first, end) takes this one.</summary>
    private bool GoesAway(int unit, int first, int end)
    {
        int perCluster = _shape.ClusterSize / _shape.UnitSize, start = unit / perCluster * perCluster;
        bool isWholeCluster = first <= start && (end >= start + perCluster || end == _kinds.Length);
        return !_shape.DataFileIsRaw && !(_shape.Version < 3 && _shape.HasBacking)
            && (isWholeCluster || (!_shape.ByQemu && (_kinds[unit] & SpecKinds.Compressed) == 0));
    }

    /// <summary>Data was stored: its units hold it, and the rest of a cluster that had to be copied may have been copied with it.</summary>
    private void Stored(int offset, int length)
    {
        int first = offset / _shape.UnitSize, end = UnitsOf(offset + length);
        CopyClusters(offset, length, isSure: true);
        Array.Fill(_kinds, SpecKinds.Data, first, end - first);
    }

    /// <summary>Clusters are written to in part: a compressed or shared one gets a place of its own, with all that it holds.</summary>
    private void CopyClusters(int offset, int length, bool isSure)
    {
        int perCluster = _shape.ClusterSize / _shape.UnitSize;
        for (int cluster = offset / _shape.ClusterSize; cluster < ClustersOf(offset + length); cluster++)
        {
            for (int unit = cluster * perCluster; unit < Math.Min(_kinds.Length, (cluster + 1) * perCluster); unit++)
            {
                _kinds[unit] = isSure && _kinds[unit] == SpecKinds.Compressed ? SpecKinds.Data
                    : (_kinds[unit] & SpecKinds.Compressed) != 0 || (_isShared[cluster] && _shape.HasSubclusters)
                    ? _kinds[unit] | SpecKinds.Data
                    : _kinds[unit];
            }
            _isShared[cluster] &= !isSure;
        }
    }

    private void Zeroed(int offset, int length)
    {
        if (_shape.DataFileIsRaw)
        {
            for (int unit = offset / _shape.UnitSize; unit < UnitsOf(offset + length); unit++)
            {
                _kinds[unit] |= _shape.ByQemu ? SpecKinds.AnyZero : SpecKinds.Data;
            }
            return;
        }
        (int first, int end) = WholeUnits(offset, length);

        // Where a part of a range is a part of a compressed cluster, QEMU writes all of the range.
        SpecKinds orWritten = _shape is { ByQemu: true, HasSubclusters: true }
            && _kinds.AsSpan(
                offset / _shape.UnitSize,
                UnitsOf(offset + length) - (offset / _shape.UnitSize)).ContainsAny(SpecKinds.Compressed,
                SpecKinds.Compressed | SpecKinds.Data) ? SpecKinds.Data : 0;
        for (int unit = offset / _shape.UnitSize; unit < UnitsOf(offset + length); unit++)
        {
            bool isPart = unit < first || unit >= end;
            if (isPart || IsPartOfCompressed(unit, first, end) || (_shape.Version < 3 && _shape.HasBacking))
            {
                CopyClusters(unit * _shape.UnitSize, 1, isSure: false); // what reads as zeroes already may be left as it is
                _kinds[unit] |= SpecKinds.Data | (_shape.Version >= 3 && ReadsZero(unit) ? SpecKinds.AnyZero : 0);
            }
            else
            {
                _kinds[unit] = _shape.Version < 3 ? SpecKinds.Unallocated
                    : SpecKinds.AnyZero | orWritten | (_shape.HasBacking ? 0 : _kinds[unit] & SpecKinds.Unallocated);
            }
        }
    }

    private bool IsPartOfCompressed(int unit, int first, int end)
    {
        int perCluster = _shape.ClusterSize / _shape.UnitSize, start = unit / perCluster * perCluster;
        return (_kinds[unit] & SpecKinds.Compressed) != 0 && !(first <= start && (end >= start + perCluster || end == _kinds.Length));
    }

    private bool ReadsZero(int unit)
        => !Contents.AsSpan(unit * _shape.UnitSize, Math.Min(_shape.UnitSize, Size - (unit * _shape.UnitSize))).ContainsAnyExcept((byte)0);
}
