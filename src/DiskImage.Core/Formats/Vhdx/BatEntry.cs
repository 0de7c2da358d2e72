using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>What a BAT entry says about its block. Spec: MS-VHDX 2.5.1.1, 2.5.1.2.</summary>
internal enum BlockState
{
    /// <summary>Payload: not in this file, the parent decides; without parent it reads as zeroes. Bitmap: no such block.</summary>
    NotPresent = 0,

    /// <summary>Contents are undefined; here they read as zeroes.</summary>
    Undefined = 1,

    /// <summary>Reads as zeroes.</summary>
    Zero = 2,

    /// <summary>Was discarded; here it reads as zeroes.</summary>
    Unmapped = 3,

    /// <summary>Unmapped, as version 0.95 of the specification numbered it; reads as zeroes, as in QEMU. Never written.</summary>
    UnmappedOld = 5,

    /// <summary>Payload: all of it is in this file. Bitmap: the block is present.</summary>
    FullyPresent = 6,

    /// <summary>The sector bitmap says which sectors are in this file; the parent has the others.</summary>
    PartiallyPresent = 7,
}

/// <summary>One entry of the BAT: a state and a place in whole MiB. Spec: MS-VHDX 2.5.1.</summary>
internal readonly record struct BatEntry(ulong Raw)
{
    private const ulong StateMask = 7, OffsetMask = ~(ulong)(VhdxLayout.MiB - 1);

    public BatEntry(BlockState state, HostOffset place = default)
        : this((ulong)place.Value | (ulong)state)
    {
    }

    public BlockState State => (BlockState)(Raw & StateMask);

    /// <summary>Where the block lies in the file, a multiple of 1 MiB; negative if the field is beyond all sense.</summary>
    public long FileOffset => (long)(Raw & OffsetMask);

    /// <summary>Where the block lies in the file.</summary>
    public HostOffset Place => new(FileOffset);

    /// <summary>Bits between state and offset, which must be zero.</summary>
    public bool HasReservedBits => (Raw & ~(StateMask | OffsetMask)) != 0;

    /// <summary>True if bytes of the block are stored.</summary>
    public bool IsStored => State is BlockState.FullyPresent or BlockState.PartiallyPresent;

    /// <summary>True if the block reads as zeroes whatever a parent holds.</summary>
    public bool ReadsZero => State is BlockState.Zero or BlockState.Unmapped or BlockState.UnmappedOld or BlockState.Undefined;
}
