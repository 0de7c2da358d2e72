using DiskImage.Block;

namespace DiskImage.Platform;

/// <summary>A PCI function that this process drives by itself: its registers, its interrupt, memory that it can reach.</summary>
/// <remarks>Members may be called from several threads, except that nothing may run during or after disposal.</remarks>
internal interface IPciFunction : IDisposable
{
    /// <summary>Bytes of the registers that can be reached (BAR 0).</summary>
    long RegisterBytes { get; }

    /// <summary>The function interrupts. False: whoever waits for it must look from time to time.</summary>
    bool HasInterrupts { get; }

    /// <summary>The memory that both sides see; empty before <see cref="MapMemory"/>. It never moves.</summary>
    Span<byte> Memory { get; }

    /// <summary>Where the function sees the first byte of it; a multiple of 64 KiB.</summary>
    ulong MemoryAddress { get; }

    /// <summary>Makes the memory, all zeroes. Once.</summary>
    /// <exception cref="DiskImageException">NoSpace: the system does not let so much be pinned.</exception>
    void MapMemory(int length);

    /// <summary>Reads a register of 32 bits.</summary>
    uint Read(long register);

    /// <summary>Writes a register of 32 bits, after everything that was written to memory before.</summary>
    void Write(long register, uint value);

    /// <summary>Waits for an interrupt, for <see cref="Wake"/>, or for so long.</summary>
    void Wait(TimeSpan most);

    /// <summary>Ends a wait.</summary>
    void Wake();
}

/// <summary>What gives PCI functions to this process.</summary>
internal interface IPciHost
{
    /// <summary>The host of this machine.</summary>
    static IPciHost Current { get; } = OperatingSystem.IsLinux() ? new LinuxVfio("/") : new NoPciHost();

    /// <summary>Takes a function, which is nobody else's until it is disposed. It can reach no memory yet but its own.</summary>
    /// <param name="name">What it is called in messages.</param>
    /// <param name="address">Its address, <c>0000:44:00.0</c>.</param>
    /// <param name="kind">Class, subclass and interface that it must have, as <c>0x010802</c>.</param>
    /// <param name="what">What that is called: "NVMe controller".</param>
    /// <exception cref="DiskImageException">It is not to be had; what to do is said.</exception>
    IPciFunction Open(string name, string address, string kind, string what);

    /// <summary>A system where no process is given a PCI function.</summary>
    private sealed class NoPciHost : IPciHost
    {
        public IPciFunction Open(string name, string address, string kind, string what) => throw new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"{name}: an {what} is driven from here on Linux only, by way of vfio-pci. Name the disk that this system makes of it instead.",
            name);
    }
}
