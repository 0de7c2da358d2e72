namespace DiskImage.Block;

/// <summary>
/// A file that wants to know what the format above it is about to do with it: an error injector. A format asks its file for this once, when
/// it is opened, and where there is none pays one comparison with null.
/// </summary>
internal interface IDebugEvents
{
    /// <summary>
    /// Told before the thing itself, by whoever is about to do it. It may wait, and so hold that request up where it is; it never fails.
    /// </summary>
    ValueTask RaiseAsync(DebugEvent what);
}

/// <summary>
/// What is told. In text each is called by QEMU's name, which is the member's with underscores (<c>l1_update</c>). QEMU,
/// docs/devel/testing/blkdebug.rst and BlkdebugEvent of qapi/block-core.json.
/// </summary>
internal enum DebugEvent
{
    /// <summary>The error injector was opened.</summary>
    None,

    /// <summary>An entry of the table that leads to tables is written.</summary>
    L1Update,

    /// <summary>That table grows: its new place is taken.</summary>
    L1GrowAllocTable,

    /// <summary>It grows: it is written there.</summary>
    L1GrowWriteTable,

    /// <summary>It grows: the header is to point there.</summary>
    L1GrowActivateTable,

    /// <summary>A table of places is read.</summary>
    L2Load,

    /// <summary>Entries of one are written.</summary>
    L2Update,

    /// <summary>An entry is to point to compressed data.</summary>
    L2UpdateCompressed,

    /// <summary>A table is copied from one that it shared.</summary>
    L2AllocCowRead,

    /// <summary>A new table is filled.</summary>
    L2AllocWrite,

    /// <summary>The disk's data is read.</summary>
    ReadAio,

    /// <summary>It is read from the backing image.</summary>
    ReadBackingAio,

    /// <summary>Compressed data is read.</summary>
    ReadCompressed,

    /// <summary>The disk's data is written.</summary>
    WriteAio,

    /// <summary>Compressed data is written.</summary>
    WriteCompressed,

    /// <summary>The machine's state is read.</summary>
    VmstateLoad,

    /// <summary>The machine's state is written.</summary>
    VmstateSave,

    /// <summary>Old bytes are read that a new place must hold, too.</summary>
    CowRead,

    /// <summary>They are written there.</summary>
    CowWrite,

    /// <summary>The table of refcount blocks is read.</summary>
    ReftableLoad,

    /// <summary>It grows.</summary>
    ReftableGrow,

    /// <summary>It is made anew for an image that is emptied.</summary>
    ReftableUpdate,

    /// <summary>A refcount block is read.</summary>
    RefblockLoad,

    /// <summary>One is written as a whole. Nobody tells this.</summary>
    RefblockUpdate,

    /// <summary>Refcounts of one are written.</summary>
    RefblockUpdatePart,

    /// <summary>A new block is needed.</summary>
    RefblockAlloc,

    /// <summary>The table of refcount blocks is to lead to a new one.</summary>
    RefblockAllocHookup,

    /// <summary>A new block is filled.</summary>
    RefblockAllocWrite,

    /// <summary>The table grows: the blocks that count it are written.</summary>
    RefblockAllocWriteBlocks,

    /// <summary>It grows: it is written at its new place.</summary>
    RefblockAllocWriteTable,

    /// <summary>It grows: the header is to point there.</summary>
    RefblockAllocSwitchTable,

    /// <summary>Clusters are taken.</summary>
    ClusterAlloc,

    /// <summary>Bytes for compressed data are taken.</summary>
    ClusterAllocBytes,

    /// <summary>Clusters are given back.</summary>
    ClusterFree,

    /// <summary>A flush begins: what is in memory goes to the file.</summary>
    FlushToOs,

    /// <summary>It goes on: the file is flushed.</summary>
    FlushToDisk,

    /// <summary>A write that begins inside a unit: the unit is read.</summary>
    PwritevRmwHead,

    /// <summary>That unit is read.</summary>
    PwritevRmwAfterHead,

    /// <summary>A write that ends inside a unit: the unit is read.</summary>
    PwritevRmwTail,

    /// <summary>That unit is read.</summary>
    PwritevRmwAfterTail,

    /// <summary>The error injector itself is written to.</summary>
    Pwritev,

    /// <summary>It is to write zeroes.</summary>
    PwritevZero,

    /// <summary>It has written, or failed to.</summary>
    PwritevDone,

    /// <summary>An image is emptied: its new tables are prepared.</summary>
    EmptyImagePrepare,

    /// <summary>The disk becomes shorter: entries go.</summary>
    L1ShrinkWriteTable,

    /// <summary>The disk becomes shorter: what they led to goes.</summary>
    L1ShrinkFreeL2Clusters,

    /// <summary>What was read is kept in the layer above. Nobody tells this.</summary>
    CorWrite,

    /// <summary>Space for a cluster is claimed by writing zeroes. Nobody tells this.</summary>
    ClusterAllocSpace,
}
