using DiskImage.Filters.BlkDebug;
using DiskImage.Filters.BlkLogWrites;
using DiskImage.Filters.BlkVerify;
using DiskImage.Filters.Compress;
using DiskImage.Filters.CopyOnRead;
using DiskImage.Filters.Error;
using DiskImage.Filters.Preallocate;
using DiskImage.Filters.Quorum;
using DiskImage.Filters.Throttle;
using DiskImage.Formats.Bochs;
using DiskImage.Formats.Cloop;
using DiskImage.Formats.Dmg;
using DiskImage.Formats.Luks;
using DiskImage.Formats.Parallels;
using DiskImage.Formats.Qcow;
using DiskImage.Formats.Qcow2;
using DiskImage.Formats.Qed;
using DiskImage.Formats.Raw;
using DiskImage.Formats.Vdi;
using DiskImage.Formats.Vhdx;
using DiskImage.Formats.Vmdk;
using DiskImage.Formats.Vpc;
using DiskImage.Platform;
using DiskImage.Protocols.File;
using DiskImage.Protocols.Gluster;
using DiskImage.Protocols.HostDevice;
using DiskImage.Protocols.Http;
using DiskImage.Protocols.Iscsi;
using DiskImage.Protocols.Nbd;
using DiskImage.Protocols.Null;
using DiskImage.Protocols.Nvme;
using DiskImage.Protocols.Sheepdog;
using DiskImage.Protocols.Ssh;
using DiskImage.Protocols.VirtualFat;

namespace DiskImage.Drivers;

/// <summary>The drivers that come with the library: the one visible list. A new format, filter or protocol is one line here.</summary>
public static class BuiltInDrivers
{
    /// <summary>A registry of all of them.</summary>
    public static DriverRegistry CreateRegistry() => new(
        formats:
        [
            new RawDriver(),
            new Qcow2Driver(),
            new VpcDriver(),
            new VhdxDriver(),
            new VdiDriver(),
            new VmdkDriver(),
            new ParallelsDriver(),
            new QedDriver(),
            new BochsDriver(),
            new CloopDriver(),
            new DmgDriver(),
            new QcowDriver(),
            new LuksDriver(),
        ],
        protocols:
        [
            new FileDriver(),
            new HostDeviceDriver(HostDevices.Current),
            new HostCdRomDriver(HostDevices.Current),
            new NullDriver(isLate: false),
            new NullDriver(isLate: true),
            new NbdDriver(),
            new HttpDriver(),
            new HttpsDriver(),
            new SshDriver(),
            new IscsiDriver(),
            new VirtualFatDriver(),
            new SheepDriver(),
            new GlusterDriver(),
            new NvmeDriver(NvmeControllers.Current),
        ],
        filters:
        [
            new ThrottleDriver(),
            new BlkDebugDriver(),
            new BlkLogWritesDriver(),
            new BlkVerifyDriver(),
            new CompressDriver(),
            new CopyOnReadDriver(),
            new ErrorDriver(),
            new PreallocateDriver(),
            new QuorumDriver(),
        ]);
}
