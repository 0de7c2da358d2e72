namespace DiskImage.Protocols.Iscsi;

/// <summary>One command on its way: what is asked, and what came back so far.</summary>
internal sealed class ScsiTask
{
    private readonly TaskCompletionSource<bool> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The command: 6 to 16 bytes.</summary>
    public required ReadOnlyMemory<byte> Cdb { get; init; }

    /// <summary>The logical unit it is for.</summary>
    public int Lun { get; init; }

    /// <summary>What is sent with it.</summary>
    public ReadOnlyMemory<byte> Payload { get; private set; }

    /// <summary>Bytes of it, whether or not they are there still.</summary>
    public int PayloadLength { get; private init; }

    /// <summary>Where what comes back goes; empty once nobody waits for it any more.</summary>
    public Memory<byte> Buffer { get; private set; }

    /// <summary>Bytes that may come back.</summary>
    public int Expected { get; private init; }

    /// <summary>By which PDUs name it; <see cref="IscsiWire.NoTag"/> before it is sent.</summary>
    public uint Tag { get; set; } = IscsiWire.NoTag;

    /// <summary>Bytes that have come back.</summary>
    public int Received { get; set; }

    /// <summary>Bytes of the payload that went out without being asked for, with the command and behind it.</summary>
    public int Unasked { get; set; }

    /// <summary>Requests for data that have come, counted.</summary>
    public uint Asked { get; set; }

    /// <summary>The end of the part of the payload that was asked for last.</summary>
    public int AskedEnd { get; set; }

    /// <summary>Bytes that the target says it did not take or bring.</summary>
    public uint Missing { get; set; }

    /// <summary>Nobody waits for it any more.</summary>
    public bool IsAbandoned { get; private set; }

    /// <summary>All of the data that were to be moved were.</summary>
    public bool IsWhole => Received == Expected && Missing == 0;

    /// <summary>How it ended.</summary>
    public ScsiStatus Status { get; set; }

    /// <summary>Why it failed.</summary>
    public ScsiSense Sense { get; set; }

    /// <summary>Ends with the answer (true), or with the connection (false).</summary>
    public Task<bool> Done => _done.Task;

    /// <summary>It did what it was to do.</summary>
    public bool IsGood => Status is ScsiStatus.Good or ScsiStatus.ConditionMet
        || (Status == ScsiStatus.CheckCondition && Sense.Key == ScsiSenseKey.RecoveredError);

    /// <summary>The target does not know the command, or not with these fields.</summary>
    public bool IsUnknown
        => Status == ScsiStatus.CheckCondition && Sense is { Key: ScsiSenseKey.IllegalRequest, Asc: 0x20 or 0x24 or 0x26 };

    /// <summary>A command that brings nothing and takes nothing.</summary>
    public static ScsiTask Plain(int lun, byte[] cdb) => new() { Cdb = cdb, Lun = lun };

    /// <summary>A command that brings data.</summary>
    public static ScsiTask In(int lun, byte[] cdb, Memory<byte> buffer)
        => new() { Cdb = cdb, Lun = lun, Buffer = buffer, Expected = buffer.Length };

    /// <summary>A command that takes data.</summary>
    public static ScsiTask Out(int lun, byte[] cdb, ReadOnlyMemory<byte> payload)
        => new() { Cdb = cdb, Lun = lun, Payload = payload, PayloadLength = payload.Length };

    /// <summary>
    /// Nobody waits for it any more: what is still to be sent of it is a copy from now on, and what comes is dropped.
    /// </summary>
    /// <param name="isOver">Nothing of it is sent any more.</param>
    public void Abandon(bool isOver)
    {
        IsAbandoned = true;
        Buffer = default;
        Payload = isOver || Payload.IsEmpty ? default : Payload.ToArray();
    }

    /// <summary>The answer is there, or there will be none.</summary>
    public void Complete(bool isAnswered) => _done.TrySetResult(isAnswered);
}
