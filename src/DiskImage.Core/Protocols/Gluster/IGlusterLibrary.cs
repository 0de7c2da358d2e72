namespace DiskImage.Protocols.Gluster;

/// <summary>What a file of a volume is like.</summary>
/// <param name="Mode">Kind and access rights, as Linux has them.</param>
/// <param name="Owner">User.</param>
/// <param name="Group">Group.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Blocks">Units of 512 bytes that are stored.</param>
/// <param name="Modified">Seconds since 1970.</param>
/// <param name="Inode">Its number in the volume.</param>
internal readonly record struct GlusterStat(uint Mode, uint Owner, uint Group, long Length, long Blocks, long Modified, ulong Inode)
{
    /// <summary>It is neither folder nor device, pipe or link.</summary>
    public bool IsRegular => (Mode & 0xF000) == 0x8000;
}

/// <summary>How a call to the library ended.</summary>
/// <param name="Value">What it returned; less than 0 if it failed.</param>
/// <param name="Error">The error number if it failed.</param>
internal readonly record struct GlusterResult(long Value, int Error)
{
    /// <summary>It did what it was to do.</summary>
    public bool IsGood => Value >= 0;
}

/// <summary>
/// The calls of the system's libgfapi that are used: each waits until it is done. Source: glusterfs, api/src/glfs.h, version 6 and later.
/// </summary>
internal interface IGlusterLibrary
{
    /// <summary>Begins a connection to a volume; 0 if there is no memory.</summary>
    nint New(string volume);

    /// <summary>Adds a server that may be asked where the volume is.</summary>
    GlusterResult AddServer(nint volume, string transport, string host, int port);

    /// <summary>Has what happens written to a file.</summary>
    GlusterResult Log(nint volume, string path, int level);

    /// <summary>Connects.</summary>
    GlusterResult Connect(nint volume);

    /// <summary>Ends a connection, connected or not.</summary>
    GlusterResult End(nint volume);

    /// <summary>Opens a file; the handle, or less than 0.</summary>
    GlusterResult Open(nint volume, string path, int flags);

    /// <summary>Makes a file and opens it.</summary>
    GlusterResult Create(nint volume, string path, int flags, uint mode);

    /// <summary>Closes a file.</summary>
    GlusterResult Close(nint file);

    /// <summary>Reads; fewer bytes than asked for at the end.</summary>
    GlusterResult Read(nint file, Span<byte> buffer, long offset);

    /// <summary>Writes.</summary>
    GlusterResult Write(nint file, ReadOnlySpan<byte> bytes, long offset);

    /// <summary>Looks for data or holes.</summary>
    GlusterResult Seek(nint file, long offset, int whence);

    /// <summary>Makes a file longer or shorter.</summary>
    GlusterResult SetLength(nint file, long length);

    /// <summary>Has what was written made durable.</summary>
    GlusterResult Flush(nint file);

    /// <summary>Reserves space, and makes the file longer if it has to.</summary>
    GlusterResult Allocate(nint file, long offset, long length);

    /// <summary>Gives space back: a hole.</summary>
    GlusterResult Discard(nint file, long offset, long length);

    /// <summary>Writes zeroes.</summary>
    GlusterResult Zero(nint file, long offset, long length);

    /// <summary>What an open file is like.</summary>
    GlusterResult Stat(nint file, out GlusterStat stat);

    /// <summary>What a path leads to; through links if asked.</summary>
    GlusterResult Stat(nint volume, string path, bool follows, out GlusterStat stat);

    /// <summary>Renames; what has the new name is replaced.</summary>
    GlusterResult Rename(nint volume, string from, string to);

    /// <summary>Gives a file a second name, which nothing may have.</summary>
    GlusterResult Link(nint volume, string from, string to);

    /// <summary>Removes a name.</summary>
    GlusterResult Remove(nint volume, string path);

    /// <summary>Changes access rights.</summary>
    GlusterResult SetMode(nint file, uint mode);

    /// <summary>Changes the owner.</summary>
    GlusterResult SetOwner(nint file, uint owner, uint group);
}
