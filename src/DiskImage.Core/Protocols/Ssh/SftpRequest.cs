namespace DiskImage.Protocols.Ssh;

/// <summary>One request on its way: what is asked, and what came back.</summary>
/// <param name="type">What is asked.</param>
/// <param name="body">What it says, behind its number and before what it writes.</param>
internal sealed class SftpRequest(SftpPacket type, byte[] body)
{
    private readonly TaskCompletionSource<bool> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>What is asked.</summary>
    public SftpPacket Type => type;

    /// <summary>What it says.</summary>
    public ReadOnlySpan<byte> Body => body;

    /// <summary>What is written.</summary>
    public ReadOnlyMemory<byte> Payload { get; init; }

    /// <summary>It is answered with an extension's own bytes, not with a status alone.</summary>
    public bool IsQuestion { get; private init; }

    /// <summary>Bytes that are to be read.</summary>
    public int Length { get; private init; }

    /// <summary>Where what is read goes; empty once nobody waits for it any more.</summary>
    public Memory<byte> Buffer { get; set; }

    /// <summary>All of it is with the server, or on its way there.</summary>
    public bool IsSent { get; set; }

    /// <summary>By which the answer names it.</summary>
    public uint Id { get; set; }

    /// <summary>How it ended.</summary>
    public SftpStatus Status { get; set; }

    /// <summary>What the server says of that.</summary>
    public string? StatusText { get; set; }

    /// <summary>Bytes that were read; fewer than asked for are no error.</summary>
    public int Received { get; set; }

    /// <summary>What the answer holds else: a handle, a path, the bytes of an extension.</summary>
    public byte[] Answer { get; set; } = [];

    /// <summary>What the answer tells of a file.</summary>
    public SftpAttributes Attributes { get; set; }

    /// <summary>Ends with the answer (true), or with the connection (false).</summary>
    public Task<bool> Done => _done.Task;

    /// <summary>Reads a part of a file.</summary>
    public static SftpRequest Read(byte[] handle, long offset, Memory<byte> into)
        => new(SftpPacket.Read, new SftpText().Bytes(handle).Long(offset).Number((uint)into.Length).ToArray())
        {
            Buffer = into, Length = into.Length,
        };

    /// <summary>Writes a part of a file.</summary>
    public static SftpRequest Write(byte[] handle, long offset, ReadOnlyMemory<byte> bytes)
        => new(SftpPacket.Write, new SftpText().Bytes(handle).Long(offset).Number((uint)bytes.Length).ToArray()) { Payload = bytes };

    /// <summary>Opens a file.</summary>
    public static SftpRequest Open(string path, SftpOpen how, SftpAttributes attributes = default)
        => new(SftpPacket.Open, new SftpText().Text(path).Number((uint)how).Attributes(attributes).ToArray());

    /// <summary>Asks something of an open file.</summary>
    public static SftpRequest OfHandle(SftpPacket type, byte[] handle) => new(type, new SftpText().Bytes(handle).ToArray());

    /// <summary>Asks something of what has a path.</summary>
    public static SftpRequest OfPath(SftpPacket type, string path) => new(type, new SftpText().Text(path).ToArray());

    /// <summary>Changes what an open file is like.</summary>
    public static SftpRequest Set(byte[] handle, SftpAttributes attributes)
        => new(SftpPacket.FileSetStat, new SftpText().Bytes(handle).Attributes(attributes).ToArray());

    /// <summary>Renames, unless the new name is taken.</summary>
    public static SftpRequest Rename(string path, string newPath)
        => new(SftpPacket.Rename, new SftpText().Text(path).Text(newPath).ToArray());

    /// <summary>Renames, replacing what has the new name.</summary>
    public static SftpRequest Replace(string path, string newPath)
        => new(SftpPacket.Extended, new SftpText().Text(SftpWire.PosixRename).Text(path).Text(newPath).ToArray());

    /// <summary>Has the server's host write an open file back.</summary>
    public static SftpRequest Sync(byte[] handle)
        => new(SftpPacket.Extended, new SftpText().Text(SftpWire.FileSync).Bytes(handle).ToArray());

    /// <summary>Asks how much room the file system of an open file has.</summary>
    public static SftpRequest FileSystem(byte[] handle)
        => new(SftpPacket.Extended, new SftpText().Text(SftpWire.FileSystem).Bytes(handle).ToArray()) { IsQuestion = true };

    /// <summary>Asks how much one request may move.</summary>
    public static SftpRequest Limits() => new(SftpPacket.Extended, new SftpText().Text(SftpWire.Limits).ToArray()) { IsQuestion = true };

    /// <summary>The answer is there, or there will be none.</summary>
    public void Complete(bool isAnswered) => _done.TrySetResult(isAnswered);
}
