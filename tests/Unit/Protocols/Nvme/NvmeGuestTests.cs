using System.Globalization;
using DiskImage.Tests.Exports;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Nvme;

/// <summary>QEMU's NVMe controller, bound to vfio-pci in a Linux guest, where our qemu-io drives it (see <see cref="GuestFactAttribute"/>).</summary>
public sealed class NvmeGuestTests : IDisposable
{
    private const int Size = 16 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [GuestFact]
    public async Task A_controller_under_vfio_has_the_bytes_that_were_written()
    {
        byte[][] before = [new byte[Size], new byte[Size]];
        for (int i = 0; i < 2; i++)
        {
            new Random(i).NextBytes(before[i]);
            await File.WriteAllBytesAsync(_folder[$"n{i}"], before[i]);
        }
        // a program is qemu-io if it is called so
        string command = $$"""
            set -e
            modprobe nvme; modprobe vfio_iommu_type1; modprobe vfio-pci
            mkdir /tmp/io; cp {{AppContext.BaseDirectory}}*.dll /tmp/io
            for e in dll runtimeconfig.json deps.json; do cp {{AppContext.BaseDirectory}}DiskImage.CommandLine.$e /tmp/io/qemu-io.$e; done
            for d in /sys/bus/pci/devices/*; do if [ $(cat $d/class) = 0x010802 ]; then bdf=$(basename $d); dev=$d; fi; done
            dotnet /tmp/io/qemu-io.dll -f raw -c 'read 0 512' nvme://$bdf/1 2>&1 | grep 'driver_override' || exit 9
            echo vfio-pci > $dev/driver_override; echo $bdf > $dev/driver/unbind; echo $bdf > /sys/bus/pci/drivers_probe
            for n in 1 2; do
              dotnet /tmp/io/qemu-io.dll -f raw -c 'write -P 0xab 0 1M' -c 'write -P 0xcd 1049088 3k' -c 'write -P 0x11 2M 4M' \
                -c 'write -z 3M 1M' -c 'discard 8M 1M' -c flush -c 'read -P 0xab 0 1M' -c 'read -P 0xcd 1049088 3k' -c 'read -P 0 3M 1M' \
                -c 'read -P 0x11 2M 1M' -c 'write -P 0x77 16776704 512' -c 'read -P 0x77 16776704 512' nvme://$bdf/$n
            done
            dotnet /tmp/io/qemu-io.dll -f raw -c 'read 0 512' nvme://$bdf/3 2>&1 | grep 'It has: 1, 2'
            """;
        string output = await Programs.RunAsync(
            GuestFactAttribute.Program!, ["run", _folder["out"], command, "-device", "nvme,serial=A,id=ctl", .. Drive(0, 512), .. Drive(1, 4096)]);
        Assert.DoesNotContain("verification failed", output, StringComparison.Ordinal);
        for (int i = 0; i < 2; i++)
        {
            byte[] after = await File.ReadAllBytesAsync(_folder[$"n{i}"]), expected = before[i];
            expected.AsSpan(0, 1 << 20).Fill(0xAB);
            expected.AsSpan(1_049_088, 3072).Fill(0xCD);
            expected.AsSpan(2 << 20, 4 << 20).Fill(0x11);
            expected.AsSpan(3 << 20, 1 << 20).Clear();
            expected.AsSpan(16_776_704, 512).Fill(0x77);
            after.AsSpan(8 << 20, 1 << 20).CopyTo(expected.AsSpan(8 << 20)); // a discard leaves what it likes
            Assert.Equal(expected, after);
        }
    }

    private string[] Drive(int number, int block) =>
    [
        "-drive", $"file={_folder[$"n{number}"]},format=raw,if=none,id=n{number},discard=unmap", "-device",
        string.Create(
            CultureInfo.InvariantCulture,
            $"nvme-ns,drive=n{number},bus=ctl,nsid={number + 1},logical_block_size={block},physical_block_size={block}"),
    ];
}
