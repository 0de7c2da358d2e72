using System.Buffers.Binary;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>One request on its way: what is asked, and what came back.</summary>
internal sealed class SheepRequest
{
    private readonly TaskCompletionSource<bool> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private SheepRequest(SheepOperation operation, SheepFlags flags) => (Operation, Flags) = (operation, flags);

    /// <summary>What is asked for.</summary>
    public SheepOperation Operation { get; }

    /// <summary>How.</summary>
    public SheepFlags Flags { get; }

    /// <summary>The part of the header that the operation has for itself; that of the answer once it is there.</summary>
    public byte[] Fields { get; } = new byte[SheepWire.FieldsLength];

    /// <summary>What is sent with it.</summary>
    public ReadOnlyMemory<byte> Payload { get; private set; }

    /// <summary>Where what comes back goes; empty once nobody waits for it any more.</summary>
    public Memory<byte> Buffer { get; private set; }

    /// <summary>Bytes that may come back.</summary>
    public int Expected { get; private init; }

    /// <summary>Bytes of the payload, whether or not they are there still.</summary>
    public int PayloadLength { get; private init; }

    /// <summary>By which its answer names it.</summary>
    public uint Id { get; set; }

    /// <summary>Bytes that have come back.</summary>
    public int Received { get; set; }

    /// <summary>How it ended.</summary>
    public SheepResult Result { get; set; }

    /// <summary>The VDI that an answer names.</summary>
    public uint AnsweredVdi => BinaryPrimitives.ReadUInt32LittleEndian(Fields.AsSpan(8));

    /// <summary>Ends with the answer (true), or with the connection (false).</summary>
    public Task<bool> Done => _done.Task;

    /// <summary>Reads a part of an object.</summary>
    public static SheepRequest Read(ulong id, int offset, Memory<byte> buffer)
        => new SheepRequest(SheepOperation.ReadObject, SheepFlags.Cache) { Buffer = buffer, Expected = buffer.Length }.OfObject(id, offset);

    /// <summary>Writes a part of an object that is there.</summary>
    public static SheepRequest Write(ulong id, int offset, ReadOnlyMemory<byte> bytes, SheepInode vdi)
        => new SheepRequest(SheepOperation.WriteObject, SheepFlags.Write | SheepFlags.Cache)
        {
            Payload = bytes,
            PayloadLength = bytes.Length,
        }.OfObject(id, offset, vdi);

    /// <summary>Makes an object, of zeroes or as a copy of another, and writes a part of it.</summary>
    public static SheepRequest Create(ulong id, ulong? from, int offset, ReadOnlyMemory<byte> bytes, SheepInode vdi)
    {
        SheepFlags copy = from is null ? SheepFlags.None : SheepFlags.CopyOnWrite;
        SheepRequest request = new SheepRequest(SheepOperation.CreateObject, SheepFlags.Write | SheepFlags.Cache | copy)
        {
            Payload = bytes,
            PayloadLength = bytes.Length,
        }.OfObject(id, offset, vdi);
        BinaryPrimitives.WriteUInt64LittleEndian(request.Fields.AsSpan(8), from ?? 0);
        return request;
    }

    /// <summary>Has what a gateway holds back of a VDI written.</summary>
    public static SheepRequest Flush(uint vdi)
        => new SheepRequest(SheepOperation.FlushVdi, SheepFlags.None).OfObject(SheepWire.InodeOf(vdi), 0);

    /// <summary>Asks for the map of numbers that are taken.</summary>
    public static SheepRequest ReadVdis(Memory<byte> buffer)
        => new(SheepOperation.ReadVdis, SheepFlags.None) { Buffer = buffer, Expected = buffer.Length };

    /// <summary>Looks for a VDI, locks or deletes it.</summary>
    /// <param name="operation">Which of the three.</param>
    /// <param name="name">Its name.</param>
    /// <param name="tag">The tag of a snapshot; empty for none.</param>
    /// <param name="snapshot">The number of a snapshot; 0 for none.</param>
    public static SheepRequest Find(SheepOperation operation, string name, string tag, uint snapshot)
    {
        SheepRequest request = OfVdi(operation, SheepWire.Names(name, tag));
        BinaryPrimitives.WriteUInt32LittleEndian(request.Fields.AsSpan(16), snapshot);
        return request;
    }

    /// <summary>Lets go of a lock.</summary>
    public static SheepRequest Release(string name, uint vdi)
    {
        SheepRequest request = OfVdi(SheepOperation.ReleaseVdi, SheepWire.Names(name));
        BinaryPrimitives.WriteUInt32LittleEndian(request.Fields.AsSpan(8), vdi);
        return request;
    }

    /// <summary>
    /// Makes a VDI; one that begins as another one is if that is given, and that keeps the present one of the name as a snapshot if asked.
    /// </summary>
    public static SheepRequest New(string name, long size, uint from, bool keepsPresent, SheepRedundancy redundancy, int shift)
    {
        SheepRequest request = OfVdi(SheepOperation.NewVdi, SheepWire.Names(name));
        BinaryPrimitives.WriteInt64LittleEndian(request.Fields, size);
        BinaryPrimitives.WriteUInt32LittleEndian(request.Fields.AsSpan(8), from);
        (request.Fields[12], request.Fields[13], request.Fields[15]) = (redundancy.Copies, redundancy.Policy, (byte)shift);
        BinaryPrimitives.WriteUInt32LittleEndian(request.Fields.AsSpan(16), keepsPresent ? 1u : 0);
        return request;
    }

    /// <summary>Nobody waits for it any more: what is still to be sent of it is a copy from now on, and what comes is dropped.</summary>
    /// <param name="isOver">Nothing of it is sent any more.</param>
    public void Abandon(bool isOver)
    {
        Buffer = default;
        Payload = isOver || Payload.IsEmpty ? default : Payload.ToArray();
    }

    /// <summary>The answer is there, or there will be none.</summary>
    public void Complete(bool isAnswered) => _done.TrySetResult(isAnswered);

    private static SheepRequest OfVdi(SheepOperation operation, byte[] names)
        => new(operation, SheepFlags.Write) { Payload = names, PayloadLength = names.Length };

    private SheepRequest OfObject(ulong id, int offset, SheepInode? vdi = null)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(Fields, id);
        (Fields[16], Fields[17]) = vdi is null ? default : (vdi.Redundancy.Copies, vdi.Redundancy.Policy);
        BinaryPrimitives.WriteInt32LittleEndian(Fields.AsSpan(24), offset);
        return this;
    }
}
