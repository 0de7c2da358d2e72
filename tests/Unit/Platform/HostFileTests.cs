using DiskImage.Block;
using DiskImage.Platform;
using DiskImage.Tests.Support;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Tests.Platform;

/// <summary>What the host can do with holes. Where its file system cannot, the answer must be "no", not something wrong.</summary>
public sealed class HostFileTests : IDisposable
{
    private const int Part = 1 << 20;

    private readonly TestFolder _folder = new();
    private readonly HostFile _host = HostFile.Current;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Holes_and_data_are_found_from_any_offset()
    {
        using SafeFileHandle file = Make((1, true), (2, false), (1, true), (1, false));
        long length = RandomAccess.GetLength(file);
        var found = new List<(long Start, long End, bool IsData)>();
        for (long offset = 0; offset < length;)
        {
            if (!_host.TryFindExtent(file, offset, length, out bool isData, out long end))
            {
                Assert.Equal((true, length), (isData, end)); // cannot tell: all is data
                return;
            }
            Assert.InRange(end, offset + 1, length);
            long middle = offset + ((end - offset) / 2);
            Assert.True(_host.TryFindExtent(file, middle, length, out bool sameKind, out long sameEnd));
            Assert.Equal((isData, end), (sameKind, sameEnd));
            if (found.Count > 0 && found[^1].IsData == isData)
            {
                found[^1] = (found[^1].Start, end, isData);
            }
            else
            {
                found.Add((offset, end, isData));
            }
            offset = end;
        }
        Assert.Equal([(0, Part, true), (Part, 3 * Part, false), (3 * Part, 4 * Part, true), (4 * Part, 5 * Part, false)], found);
        Assert.True(_host.TryFindExtent(file, 0, 100, out bool inside, out long clipped));
        Assert.Equal((true, 100L), (inside, clipped));
    }

    [Fact]
    public void A_file_that_is_one_hole()
    {
        using SafeFileHandle file = Make((3, false));
        if (_host.TryFindExtent(file, 5, 3 * Part, out bool isData, out long end))
        {
            Assert.Equal((false, 3L * Part), (isData, end));
            Assert.InRange(_host.AllocatedLength(file) ?? 0, 0, Part);
        }
    }

    [Fact]
    public void A_punched_hole_reads_as_zeroes_and_gives_its_space_back()
    {
        using SafeFileHandle file = Make((4, true));
        long? before = _host.AllocatedLength(file);
        if (!_host.TryPunchHole(file, Part + 100, 2 * Part))
        {
            return;
        }
        byte[] all = ReadAll(file);
        Assert.Equal(4 * Part, all.Length);
        Assert.False(all.AsSpan(Part + 100, 2 * Part).ContainsAnyExcept((byte)0));
        Assert.False(all.AsSpan(0, Part + 100).Contains((byte)0));
        Assert.False(all.AsSpan((3 * Part) + 100).Contains((byte)0));
        Assert.True(_host.AllocatedLength(file) is null || _host.AllocatedLength(file) < before - Part);
    }

    [Fact]
    public void A_zeroed_range_keeps_its_space()
    {
        using SafeFileHandle file = Make((4, true));
        long? before = _host.AllocatedLength(file);
        if (!_host.TryZeroRange(file, Part, 2 * Part))
        {
            return;
        }
        byte[] all = ReadAll(file);
        Assert.False(all.AsSpan(Part, 2 * Part).ContainsAnyExcept((byte)0));
        Assert.False(all.AsSpan(0, Part).Contains((byte)0));
        Assert.False(all.AsSpan(3 * Part).Contains((byte)0));
        Assert.True(_host.AllocatedLength(file) >= before);
    }

    [Fact]
    public void Reserved_space_makes_the_file_longer_and_changes_nothing()
    {
        using SafeFileHandle file = Make((1, true));
        if (!_host.TryAllocate(file, Part, 2 * Part))
        {
            return;
        }
        Assert.Equal(3 * Part, RandomAccess.GetLength(file));
        Assert.True(_host.AllocatedLength(file) is null or >= 3 * Part);
        byte[] all = ReadAll(file);
        Assert.False(all.AsSpan(0, Part).Contains((byte)0));
        Assert.False(all.AsSpan(Part).ContainsAnyExcept((byte)0));
    }

    [Fact]
    public void Kinds_are_told_apart_without_opening()
    {
        File.WriteAllText(_folder["file"], "");
        Assert.Equal(HostFileKind.Regular, _host.KindOf(_folder["file"]));
        Assert.Equal(HostFileKind.Directory, _host.KindOf(_folder.Root));
        Assert.Equal(HostFileKind.None, _host.KindOf(_folder["missing"]));
        if (!OperatingSystem.IsWindows())
        {
            File.CreateSymbolicLink(_folder["link"], _folder["file"]);
            File.CreateSymbolicLink(_folder["dangling"], _folder["missing"]);
            Assert.Equal(HostFileKind.Regular, _host.KindOf(_folder["link"]));
            Assert.Equal(HostFileKind.None, _host.KindOf(_folder["dangling"]));
            Assert.Equal(HostFileKind.Device, _host.KindOf("/dev/null"));
        }
    }

    [Fact]
    public void Errors_of_the_host_keep_their_kind()
    {
        Assert.Equal(DiskImageErrorKind.NotFound, HostFile.Error(new FileNotFoundException(), "p", "open it").Kind);
        Assert.Equal(DiskImageErrorKind.AccessDenied, HostFile.Error(new UnauthorizedAccessException(), "p", "open it").Kind);
        DiskImageException full = HostFile.Error(
            new IOException("x", OperatingSystem.IsWindows() ? unchecked((int)0x80070070) : 28), "p", "write", 4096);
        Assert.Equal((DiskImageErrorKind.NoSpace, "p", 4096L), (full.Kind, full.Path, full.Offset));
        Assert.Contains("4,096", full.Message, StringComparison.Ordinal);
        Assert.Equal(DiskImageErrorKind.Io, HostFile.Error(new IOException("odd"), "p", "read").Kind);
    }

    private SafeFileHandle Make(params (int Parts, bool IsData)[] parts)
    {
        SafeFileHandle file = File.OpenHandle(_folder["disk"], FileMode.Create, FileAccess.ReadWrite);
        _host.AllowHoles(file);
        byte[] data = new byte[Part];
        Array.Fill(data, (byte)1);
        long at = 0;
        foreach ((int count, bool isData) in parts)
        {
            for (int i = 0; i < count; i++, at += Part)
            {
                if (isData)
                {
                    RandomAccess.Write(file, data, at);
                }
            }
        }
        RandomAccess.SetLength(file, at);
        return file;
    }

    private static byte[] ReadAll(SafeFileHandle file)
    {
        byte[] all = new byte[RandomAccess.GetLength(file)];
        Assert.Equal(all.Length, RandomAccess.Read(file, all, 0));
        return all;
    }
}
