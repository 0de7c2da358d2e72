using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Locking;
using DiskImage.Options;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Protocols.HostDevice;

/// <summary>
/// Disks of this machine. Reading needs the host's permission, writing the user's too; a disk that something uses is not written to.
/// </summary>
/// <param name="devices">The host.</param>
internal class HostDeviceDriver(HostDevices devices) : ProtocolDriver, IStorage
{
    public override string Name => "host_device";

    public override string Description => "A disk or partition of this machine";

    public override IReadOnlyList<string> Schemes => [Name];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<HostDeviceOptions>();

    public override bool TakesPaths => true;

    public override bool NeedsPermissionToWrite => true;

    private protected virtual HostDeviceKind Kind => HostDeviceKind.Disk;

    public override string NameOf(object options) => ((HostDeviceOptions)options).FileName;

    public override NodeIdentity? IdentityOf(object options) => HostNames.Current.Find(NameOf(options))?.Identity;

    public override ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        var options = (HostDeviceOptions)context.Options;
        ImageLocking locking = options.Locking == ImageLocking.Auto ? context.Locking : options.Locking;
        return new(Open(options.FileName, context.Access, locking, force: false, context.Direct, context.Warn));
    }

    public async ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        BlockNode there = Open(locator, Access.Writing, ImageLocking.Auto, IsForced(mode), direct: false, static _ => { });
        await using (there.ConfigureAwait(false))
        {
            // It is not replaced, whatever is asked for: what is made is written into it.
            return new StoragePlace(locator, locator, mode == TargetMode.New ? TargetMode.InPlace : mode, there.Identity, OtherNames: 0);
        }
    }

    public ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        bool force = IsForced(place.Mode);
        return OccupiedPlace.BeginAsync(
            place,
            (writable, _) => new(Open(
                place.Locator, writable ? Access.Writing : Access.Reading, ImageLocking.Auto, force, traits.Direct, static _ => { })),
            cancellationToken);
    }

    private static bool IsForced(TargetMode mode) => mode == TargetMode.Replace;

    private HostDeviceNode Open(string path, Access access, ImageLocking locking, bool force, bool direct, Action<Wording> warn)
    {
        if (devices.KindOf(path) != Kind)
        {
            throw new DiskImageException(
                HostFile.Current.KindOf(path) == HostFileKind.None ? DiskImageErrorKind.NotFound : DiskImageErrorKind.InvalidOption,
                $"{path}: is no {(Kind == HostDeviceKind.CdRom ? "drive for CDs" : "disk")} of this machine",
                path);
        }
        CheckUses(path, access, force, warn);
        SafeFileHandle handle = Try(path, access, () => HostFile.Current.Open(path, access.Writes, HostSharing.Everybody));
        try
        {
            HostDeviceFacts facts = Try(path, access, () => devices.FactsOf(handle, path));
            if (access.Writes && (facts.IsReadOnly || facts.MustBeWrittenInOrder))
            {
                string why = facts.IsReadOnly ? "is write-protected" : "is zoned (host-managed): it is written from front to back only";
                throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{path}: {why}, so it is not written to", path);
            }
            if (locking != ImageLocking.Off && ImageLock.Take(handle, path, access) == LockStrength.None && locking == ImageLocking.On)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{path}: this system has no locks that programs of QEMU heed, and locking=on asks for them. Use locking=auto.",
                    path);
            }
            int memoryAlignment = 1;
            if (direct)
            {
                (handle, _, memoryAlignment) = HostFile.Current.GoRoundCache(
                    path, path, handle, access.Writes, HostSharing.Everybody);
            }
            return new HostDeviceNode(path, handle, facts, devices, isReadOnly: !access.Writes, memoryAlignment);
        }
        catch
        {
            HostFile.Current.Close(handle);
            throw;
        }
    }

    /// <summary>What the running system stands on is never written to; other use can be overridden by whoever knows why.</summary>
    private void CheckUses(string path, Access access, bool force, Action<Wording> warn)
    {
        IReadOnlyList<HostDeviceUse> uses = devices.UsesOf(path);
        string text = string.Join(", ", uses.Select(u => u.What));
        if (uses.Count == 0)
        {
            return;
        }
        if (!access.Writes)
        {
            warn($"{path}: is in use ({text}), so it may change while it is read.");
            return;
        }
        if (uses.Any(u => u.IsSystem))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Locked, $"{path}: the running system stands on it ({text}). It is not written to.", path);
        }
        if (!force)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Locked,
                $"{path}: is in use ({text}). Unmount it, or take it out of what it is part of; it is not written to otherwise.",
                path);
        }
    }

    private static T Try<T>(string path, Access access, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is not DiskImageException and (IOException or UnauthorizedAccessException))
        {
            DiskImageException error = HostFile.Error(e, path, "open it");
            throw error.Kind == DiskImageErrorKind.AccessDenied
                ? new DiskImageException(
                    error.Kind,
                    $"{path}: {(access.Writes ? "writing" : "reading")} a disk takes rights that this session does not have. "
                        + "Run it as root, or have the disk given to your user or group.",
                    path,
                    cause: e)
                : error;
        }
    }
}

/// <summary>Drives for CDs, which have a disc or not.</summary>
/// <param name="devices">The host.</param>
internal sealed class HostCdRomDriver(HostDevices devices) : HostDeviceDriver(devices)
{
    public override string Name => "host_cdrom";

    public override string Description => "A CD in a drive of this machine";

    private protected override HostDeviceKind Kind => HostDeviceKind.CdRom;
}
