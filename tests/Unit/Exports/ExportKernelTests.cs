using System.Net;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Exports;

/// <summary>
/// Our server and the kernel's client. It needs a Linux guest, and takes a minute or two: <c>DISKIMAGE_GUEST</c> names a program that takes
/// <c>run FOLDER COMMAND OPTIONS…</c>, boots a guest under QEMU with these options, runs the command in it as root, the folder at
/// <c>/out</c>, and gives its output.
/// </summary>
public sealed class ExportKernelTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [GuestFact]
    public async Task The_kernels_client_makes_a_file_system_on_an_export_and_finds_it_again()
    {
        await Images.CreateAsync(_folder["a.qcow2"], "qcow2", $"size={64 << 20}");
        await using (OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest(_folder["a.qcow2"]) { Format = "qcow2", Writable = true }, CancellationToken.None))
        {
            await using ExportServer server = await ExportServer.StartAsync(
                new IPEndPoint(IPAddress.Loopback, 0), [new ExportDisk("disk", image.Node)], null, CancellationToken.None);
            // the guest has this machine's loopback at 10.0.2.2
            string command = $"""
                set -e
                export PATH=$PATH:/usr/sbin:/sbin
                modprobe virtio_net; modprobe nbd; modprobe ext4
                busybox ifconfig eth0 10.0.2.15 up
                nbd-client -N disk -C 2 10.0.2.2 {((IPEndPoint)server.Address).Port} /dev/nbd0
                cat /sys/block/nbd0/size
                mkfs.ext4 -q /dev/nbd0
                mkdir -p /mnt/a; mount /dev/nbd0 /mnt/a
                head -c 20000000 /dev/urandom > /mnt/a/random; sha256sum < /mnt/a/random > /mnt/a/sum
                rm -f /mnt/a/none; fstrim -v /mnt/a; umount /mnt/a
                echo 3 > /proc/sys/vm/drop_caches
                mount -o ro /dev/nbd0 /mnt/a; sha256sum -c /mnt/a/sum < /mnt/a/random; umount /mnt/a
                sha256sum < /dev/nbd0
                nbd-client -d /dev/nbd0
                """;
            string output = await Programs.RunAsync(
                GuestFactAttribute.Program!, "run", _folder["out"], command, "-nic", "user,model=virtio-net-pci");
            Assert.Contains($"{(64 << 20) / 512}", output, StringComparison.Ordinal);
            Assert.Contains("OK", output, StringComparison.Ordinal);
            byte[] all = new byte[64 << 20];
            await image.Node.ReadAsync(0, all);
            string hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(all));
            Assert.Contains(hash, output, StringComparison.Ordinal);
            Assert.Equal(0, server.Disks[0].Errors);
        }
        await Programs.CheckAsync(_folder["a.qcow2"]);
    }
}

/// <summary>A fact that needs a Linux guest.</summary>
public sealed class GuestFactAttribute : FactAttribute
{
    public GuestFactAttribute() => Skip = Program is null ? "DISKIMAGE_GUEST names no program that boots a Linux guest" : null;

    /// <summary>What boots it.</summary>
    public static string? Program => Environment.GetEnvironmentVariable("DISKIMAGE_GUEST") is { Length: > 0 } program ? program : null;
}
