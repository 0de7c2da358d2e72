using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>What a cluster's answers mean to people.</summary>
internal static class SheepWords
{
    /// <summary>The kind of error that an answer is.</summary>
    /// <param name="result">The answer.</param>
    /// <param name="changes">What was asked for would have changed something.</param>
    public static DiskImageErrorKind KindOf(SheepResult result, bool changes) => result switch
    {
        SheepResult.NoVdi or SheepResult.NoTag or SheepResult.NoBaseVdi => DiskImageErrorKind.NotFound,
        SheepResult.VdiExists => DiskImageErrorKind.AlreadyExists,
        SheepResult.VdiLocked => DiskImageErrorKind.Locked,
        SheepResult.NoSpace or SheepResult.NoVdiFree => DiskImageErrorKind.NoSpace,
        SheepResult.ReadOnly => DiskImageErrorKind.ReadOnly,
        SheepResult.VersionMismatch => DiskImageErrorKind.Unsupported,
        _ => changes ? DiskImageErrorKind.WriteFailed : DiskImageErrorKind.Io,
    };

    /// <summary>An answer in words.</summary>
    public static string Of(SheepResult result) => result switch
    {
        SheepResult.Unknown => "unknown error",
        SheepResult.NoObject => "there is no such object",
        SheepResult.InputOutput => "input or output failed",
        SheepResult.VdiExists => "a VDI of that name is there already",
        SheepResult.InvalidParameters => "invalid parameters",
        SheepResult.SystemError => "system error",
        SheepResult.VdiLocked => "another client has locked it. If that client is gone for good, 'dog vdi lock unlock' takes the lock away",
        SheepResult.NoVdi => "there is no VDI of that name",
        SheepResult.NoBaseVdi => "the VDI that it is to stand on is not there",
        SheepResult.VdiRead => "the VDI cannot be read",
        SheepResult.VdiWrite => "the VDI cannot be written",
        SheepResult.BaseVdiRead => "the VDI that it is to stand on cannot be read",
        SheepResult.BaseVdiWrite => "the VDI that it is to stand on cannot be written",
        SheepResult.NoTag => "there is no snapshot of that number or tag",
        SheepResult.StartingUp => "it is starting",
        SheepResult.VdiNotLocked => "it is not locked",
        SheepResult.ShuttingDown => "it is shutting down",
        SheepResult.NoMemory => "it has no memory left",
        SheepResult.NoVdiFree => "it has as many VDIs as it can have",
        SheepResult.VersionMismatch => "it does not speak this version of the protocol",
        SheepResult.NoSpace => "it has no room for new objects",
        SheepResult.WaitForFormat => "it waits to be formatted ('dog cluster format')",
        SheepResult.WaitForJoin => "it waits for other nodes",
        SheepResult.JoinFailed => "a node could not join it",
        SheepResult.Halted => "it has stopped, for too few nodes are left",
        SheepResult.ReadOnly => "the object belongs to a snapshot and is read-only",
        _ => $"error {(uint)result:x2}",
    };
}
