using System.Net;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Tests.Exports;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.VirtualFat;

/// <summary>Folders that are served over NBD, and what others make of them.</summary>
public sealed class VirtualFatExportTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public VirtualFatExportTests()
    {
        _ = Directory.CreateDirectory(Path.Combine(Tree, "inner"));
        File.WriteAllText(Path.Combine(Tree, "one.txt"), "the first");
        File.WriteAllBytes(Path.Combine(Tree, "inner", "Grüße 😀.bin"), [.. Enumerable.Range(0, 100_000).Select(i => (byte)(i / 7))]);
    }

    private string Tree => _folder["tree"];

    public void Dispose() => _folder.Dispose();

    [OracleFact("nbdcopy")]
    public async Task What_mtools_changed_and_nbdcopy_wrote_is_in_the_folder()
    {
        if (!FatTools.AreThere)
        {
            return;
        }
        await File.WriteAllTextAsync(_folder["new"], "the second");
        string locator = FatTools.Json(Tree, ("rw", true), ("size", "16M"));
        await using (OpenedImage image = await Images.Opener.OpenAsync(new OpenRequest(locator) { Writable = true }, CancellationToken.None))
        {
            await using ExportServer server = await ExportServer.StartAsync(
                new IPEndPoint(IPAddress.Loopback, 0), [new ExportDisk("", image.Node)], null, CancellationToken.None);
            string url = $"nbd://127.0.0.1:{((IPEndPoint)server.Address).Port}";
            await Programs.RunAsync("nbdcopy", url, _folder["disk.raw"]);
            string at = FatTools.At(_folder["disk.raw"], isFloppy: false);
            _ = FatTools.Run("mcopy", ["-i", at, _folder["new"], "::/inner/two.txt"]);
            _ = FatTools.Run("mdel", ["-i", at, "::/one.txt"]);
            await Programs.RunAsync("nbdcopy", "--flush", _folder["disk.raw"], url);
            Assert.Equal("the second", await File.ReadAllTextAsync(Path.Combine(Tree, "inner", "two.txt")));
        }
        Assert.False(File.Exists(Path.Combine(Tree, "one.txt")));
        FatTools.Compare(_folder["disk.raw"], isFloppy: false, Tree, _folder["out"]);
    }

    [GuestFact]
    public async Task The_kernels_file_system_reads_and_writes_the_folder()
    {
        string locator = FatTools.Json(Tree, ("rw", true), ("size", "64M"));
        await using (OpenedImage image = await Images.Opener.OpenAsync(new OpenRequest(locator) { Writable = true }, CancellationToken.None))
        {
            await using ExportServer server = await ExportServer.StartAsync(
                new IPEndPoint(IPAddress.Loopback, 0), [new ExportDisk("disk", image.Node)], null, CancellationToken.None);
            // the guest has this machine's loopback at 10.0.2.2
            string command = $"""
                set -e
                export PATH=$PATH:/usr/sbin:/sbin
                modprobe virtio_net; modprobe nbd; modprobe vfat; modprobe nls_cp437 || true; modprobe nls_iso8859-1 || true; modprobe nls_utf8 || true
                busybox ifconfig eth0 10.0.2.15 up
                nbd-client -N disk 10.0.2.2 {((IPEndPoint)server.Address).Port} /dev/nbd0
                mkdir -p /mnt/a; mount -t vfat -o offset=1048576,utf8 /dev/nbd0 /mnt/a 2>/dev/null || mount -t vfat -o utf8 /dev/nbd0p1 /mnt/a
                sha256sum /mnt/a/inner/*
                cat /mnt/a/one.txt
                mkdir /mnt/a/made; echo hello > "/mnt/a/made/from the guest 😀.txt"; mv /mnt/a/one.txt /mnt/a/made/moved.txt
                sync; umount /mnt/a
                nbd-client -d /dev/nbd0
                """;
            string digest = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(
                await File.ReadAllBytesAsync(Path.Combine(Tree, "inner", "Grüße 😀.bin"))));
            string output = await Programs.RunAsync(
                GuestFactAttribute.Program!, "run", _folder["out"], command, "-nic", "user,model=virtio-net-pci");
            Assert.Contains(digest, output, StringComparison.Ordinal);
            Assert.Contains("the first", output, StringComparison.Ordinal);
        }
        Assert.Equal("hello\n", await File.ReadAllTextAsync(Path.Combine(Tree, "made", "from the guest 😀.txt")));
        Assert.Equal("the first", await File.ReadAllTextAsync(Path.Combine(Tree, "made", "moved.txt")));
        Assert.False(File.Exists(Path.Combine(Tree, "one.txt")));
    }
}
