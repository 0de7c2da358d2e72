using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>A function that vfio-pci gave to this process. Source: linux/vfio.h.</summary>
internal sealed unsafe class LinuxVfioFunction : IPciFunction
{
    /// <summary>Bytes of memory at most: below what an ordinary user may pin on the kernels of these years (8 MiB). Ours.</summary>
    public const int MostMemory = 6 << 20;

    private const int Bar0 = 0, Configuration = 7; // VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX
    private const uint CanMap = 4; // VFIO_REGION_INFO_FLAG_MMAP
    private const uint Msi = 1, MsiX = 2; // VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX
    private const uint ByEvent = 1; // VFIO_IRQ_INFO_EVENTFD
    private const uint TriggerEvent = 4 | 32; // VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_ACTION_TRIGGER
    private const int CommandRegister = 4; // of the configuration space. Spec: PCI Local Bus 3.0, section 6.2.2
    private const ushort MemorySpace = 2, BusMaster = 4;
    private const long MostRegisters = 16 << 20; // mapped. Ours
    private const int NoMemory = 12; // ENOMEM

    private readonly string _name;
    private readonly SafeFileHandle _container, _group, _device, _event;
    private byte* _registers, _memory;
    private int _memoryBytes;

    /// <summary>Takes the handles over if it succeeds, and closes the device's if it does not.</summary>
    public LinuxVfioFunction(
        string name, SafeFileHandle container, SafeFileHandle group, SafeFileHandle device, ulong memoryAddress)
    {
        (_name, _container, _group, _device, MemoryAddress) = (name, container, group, device, memoryAddress);
        _event = new SafeFileHandle();
        try
        {
            _event = new SafeFileHandle(LinuxVfio.Require(VfioCalls.NewEvent(), name, "make an event"), ownsHandle: true);
            (uint flags, long length, long offset) = RegionOf(Bar0);
            RegisterBytes = Math.Min(length, MostRegisters);
            _registers = (flags & CanMap) != 0 && length > 0 ? VfioCalls.Map(device, RegisterBytes, offset) : null;
            if (_registers is null)
            {
                throw LinuxVfio.Error(DiskImageErrorKind.Unsupported, name, $"its registers ({length:#,0} bytes) cannot be mapped");
            }
            (_, _, long configuration) = RegionOf(Configuration);
            _ = LinuxVfio.Require(
                VfioCalls.Read16(device, configuration + CommandRegister, out ushort command), name, "read its registers");
            ushort wanted = (ushort)(command | MemorySpace | BusMaster);
            _ = LinuxVfio.Require(
                VfioCalls.Write16(device, configuration + CommandRegister, wanted), name, "let it reach memory");
            HasInterrupts = TryInterrupt(MsiX) || TryInterrupt(Msi);
        }
        catch
        {
            Release(parents: false);
            throw;
        }
    }

    public long RegisterBytes { get; }

    public bool HasInterrupts { get; }

    public Span<byte> Memory => new(_memory, _memoryBytes);

    public ulong MemoryAddress { get; }

    public void MapMemory(int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, MostMemory);
        byte* memory = VfioCalls.Map(null, length, 0);
        if (memory is null)
        {
            throw LinuxVfio.Error(DiskImageErrorKind.NoSpace, _name, $"the system has no {length:#,0} bytes of memory for it");
        }
        Span<uint> map = stackalloc uint[8]; // struct vfio_iommu_type1_dma_map
        (map[0], map[1]) = (8 * sizeof(uint), 3); // readable and writable
        (map[2], map[3]) = Split((ulong)memory);
        (map[4], map[5]) = Split(MemoryAddress);
        (map[6], map[7]) = Split((ulong)length);
        int result = VfioCalls.Control(_container, VfioCalls.MapDma, map);
        if (result < 0)
        {
            VfioCalls.Unmap(memory, length);
            _ = -result == NoMemory ? throw LinuxVfio.Error(
                DiskImageErrorKind.NoSpace,
                _name,
                $"this session may not pin the {length:#,0} bytes of memory that the device is to reach. Raise the limit (ulimit -l), "
                    + "or run it as root.") : LinuxVfio.Require(result, _name, "let it reach memory");
        }
        _memory = memory;
        _memoryBytes = length;
    }

    public uint Read(long register) => Volatile.Read(ref *(uint*)(_registers + Checked(register)));

    public void Write(long register, uint value)
    {
        Interlocked.MemoryBarrier();
        Volatile.Write(ref *(uint*)(_registers + Checked(register)), value);
    }

    public void Wait(TimeSpan most) => VfioCalls.Wait(_event, (int)Math.Clamp(most.TotalMilliseconds, 0, int.MaxValue));

    public void Wake() => VfioCalls.Signal(_event);

    public void Dispose() => Release(parents: true);

    /// <summary>The device goes first: vfio resets it, and only then is its memory given back.</summary>
    private void Release(bool parents)
    {
        if (_registers is not null)
        {
            VfioCalls.Unmap(_registers, RegisterBytes);
            _registers = null;
        }
        _device.Dispose();
        if (parents)
        {
            _group.Dispose();
            _container.Dispose();
        }
        if (_memory is not null)
        {
            VfioCalls.Unmap(_memory, _memoryBytes);
            _memory = null;
            _memoryBytes = 0;
        }
        _event.Dispose();
    }

    private long Checked(long register)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(register);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(register, RegisterBytes - sizeof(uint));
        return _registers is null ? throw new ObjectDisposedException(nameof(LinuxVfioFunction)) : register;
    }

    private (uint Flags, long Length, long Offset) RegionOf(uint index)
    {
        Span<uint> region = stackalloc uint[8]; // struct vfio_region_info
        region.Clear();
        (region[0], region[2]) = (8 * sizeof(uint), index);
        _ = LinuxVfio.Require(VfioCalls.Control(_device, VfioCalls.GetRegion, region), _name, "ask where its registers are");
        return (region[1], (long)Joined(region[4..]), (long)Joined(region[6..]));
    }

    private bool TryInterrupt(uint index)
    {
        Span<uint> about = [4 * sizeof(uint), 0, index, 0]; // struct vfio_irq_info
        if (VfioCalls.Control(_device, VfioCalls.GetInterrupt, about) < 0 || (about[1] & ByEvent) == 0 || about[3] == 0)
        {
            return false;
        }
        using var borrowed = new BorrowedDescriptor(_event);
        Span<uint> set = [6 * sizeof(uint), TriggerEvent, index, 0, 1, (uint)borrowed.Number]; // struct vfio_irq_set
        return VfioCalls.Control(_device, VfioCalls.SetInterrupts, set) >= 0;
    }

    private static (uint Low, uint High) Split(ulong value) => ((uint)value, (uint)(value >> 32));

    private static ulong Joined(ReadOnlySpan<uint> words) => words[0] | ((ulong)words[1] << 32);
}
