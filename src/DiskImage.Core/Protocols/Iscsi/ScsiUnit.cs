using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>Has a command answered, whatever it takes.</summary>
/// <param name="make">Makes it, anew for each time that it is sent.</param>
/// <param name="cancellationToken">Stops waiting.</param>
internal delegate ValueTask<ScsiTask> ScsiRunner(Func<ScsiTask> make, CancellationToken cancellationToken);

/// <summary>What a logical unit is, as it says itself. Spec: SPC-4, SBC-3, MMC-6.</summary>
internal sealed record ScsiUnit
{
    private const int LargestBlock = 1 << 16; // ours
    private const byte DirectAccess = 0x00, CdRom = 0x05, Optical = 0x07, SimplifiedDirectAccess = 0x0E; // peripheral device types
    private const int PageLength = 255;

    /// <summary>Number within the target.</summary>
    public int Lun { get; init; }

    /// <summary>Peripheral device type.</summary>
    public byte Type { get; init; }

    /// <summary>Bytes of it all; 0 for what is no disk.</summary>
    public long Length { get; init; }

    /// <summary>Bytes of a block.</summary>
    public int BlockSize { get; init; } = 512;

    /// <summary>Who made it.</summary>
    public string Vendor { get; init; } = "";

    /// <summary>What they call it.</summary>
    public string Product { get; init; } = "";

    /// <summary>Its serial number; empty if it does not say.</summary>
    public string Serial { get; init; } = "";

    /// <summary>What names it among all units, whatever led there; empty if it does not say.</summary>
    public string Identification { get; init; } = "";

    /// <summary>It does not take changes.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>Commands of 16 bytes are understood.</summary>
    public bool IsLong { get; init; }

    /// <summary>Writes may be asked to be on the medium when they are answered.</summary>
    public bool TakesFua { get; init; }

    /// <summary>Not all blocks need have a place (LBPME).</summary>
    public bool IsThin { get; init; }

    /// <summary>Blocks without a place read as zeroes (LBPRZ).</summary>
    public bool ReadsZeroes { get; init; }

    /// <summary>UNMAP is understood (LBPU).</summary>
    public bool TakesUnmap { get; init; }

    /// <summary>WRITE SAME(16) gives space back (LBPWS).</summary>
    public bool TakesUnmapSame { get; init; }

    /// <summary>Blocks of a transfer at most; 0 if nothing is said.</summary>
    public uint MaxTransfer { get; init; }

    /// <summary>Blocks of a transfer that goes well; 0 if nothing is said.</summary>
    public uint OptimalTransfer { get; init; }

    /// <summary>Blocks of an UNMAP at most; 0 if nothing is said.</summary>
    public uint MaxUnmap { get; init; }

    /// <summary>Blocks of a WRITE SAME at most; 0 if nothing is said.</summary>
    public ulong MaxSame { get; init; }

    /// <summary>It holds blocks that can be read.</summary>
    public bool IsDisk => Type is DirectAccess or CdRom or Optical or SimplifiedDirectAccess;

    /// <summary>What kind of device it is.</summary>
    public string Kind => Type switch
    {
        DirectAccess or SimplifiedDirectAccess => "disk",
        0x01 => "tape",
        CdRom => "CD-ROM",
        Optical => "optical disk",
        0x08 => "changer",
        0x0C => "controller",
        0x0D => "enclosure",
        0x1E => "well known unit",
        _ => $"device of type {Type:X2}h",
    };

    /// <summary>The same unit as one that was seen before, so that what was meant for that may be done to this.</summary>
    public bool IsSame(ScsiUnit other)
        => (Type, Length, BlockSize, IsReadOnly, Serial, Identification)
            == (other.Type, other.Length, other.BlockSize, other.IsReadOnly, other.Serial, other.Identification);

    /// <summary>Asks a unit what it is.</summary>
    /// <param name="name">What it is called in messages.</param>
    /// <param name="lun">Its number.</param>
    /// <param name="run">Has commands answered.</param>
    /// <param name="needsMedium">A drive without a medium is an error; else it has no length.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">NotFound: there is none. Unsupported; what the unit says.</exception>
    public static async ValueTask<ScsiUnit> AskAsync(
        string name, int lun, ScsiRunner run, bool needsMedium, CancellationToken cancellationToken)
    {
        (ScsiTask task, byte[] about) = await InAsync(ScsiCommands.Inquiry(PageLength), PageLength).ConfigureAwait(false);
        Require(name, task, "ask what it is");
        if (about.Length < 5 || about[0] >> 5 != 0)
        {
            throw new DiskImageException(DiskImageErrorKind.NotFound, $"{name}: the target has no logical unit {lun}", name);
        }
        var unit = new ScsiUnit
        {
            Lun = lun, Type = (byte)(about[0] & 0x1F), Vendor = Ascii(about, 8, 8), Product = Ascii(about, 16, 16),
        };
        if (!unit.IsDisk)
        {
            return unit;
        }
        ScsiTask ready = await run(() => ScsiTask.Plain(lun, ScsiCommands.TestUnitReady()), cancellationToken).ConfigureAwait(false);
        if (!needsMedium && ready is { Status: ScsiStatus.CheckCondition, Sense: { Key: ScsiSenseKey.NotReady, Asc: 0x3A } })
        {
            return unit;
        }
        Require(name, ready, "use it");
        unit = await CapacityAsync(unit).ConfigureAwait(false);
        unit = await PagesAsync(unit).ConfigureAwait(false);
        (task, byte[] mode) = await InAsync(ScsiCommands.ModeSense(PageLength), PageLength).ConfigureAwait(false);
        bool says = task.IsGood && mode.Length >= 4;
        return unit with
        {
            IsReadOnly = unit.Type == CdRom || (says && (mode[2] & 0x80) != 0), TakesFua = says && (mode[2] & 0x10) != 0,
        };

        async ValueTask<(ScsiTask Task, byte[] Answer)> InAsync(byte[] cdb, int length)
        {
            byte[] buffer = [];
            ScsiTask done = await run(() => ScsiTask.In(lun, cdb, buffer = new byte[length]), cancellationToken).ConfigureAwait(false);
            return (done, buffer[..done.Received]);
        }

        async ValueTask<ScsiUnit> CapacityAsync(ScsiUnit of)
        {
            (ScsiTask asked, byte[] answer) = await InAsync(ScsiCommands.ReadCapacity16(32), 32).ConfigureAwait(false);
            bool isLong = asked.IsGood && answer.Length >= 12;
            if (!isLong)
            {
                if (!asked.IsUnknown && !asked.IsGood)
                {
                    Require(name, asked, "ask how long it is");
                }
                (asked, answer) = await InAsync(ScsiCommands.ReadCapacity10(), 8).ConfigureAwait(false);
                Require(name, asked, "ask how long it is");
            }
            if (answer.Length < (isLong ? 12 : 8))
            {
                throw IscsiText.Wrong(name, $"it tells its length in {answer.Length:#,0} bytes");
            }
            ulong last = isLong ? BinaryPrimitives.ReadUInt64BigEndian(answer) : BinaryPrimitives.ReadUInt32BigEndian(answer);
            uint block = BinaryPrimitives.ReadUInt32BigEndian(answer.AsSpan(isLong ? 8 : 4));
            if (block is < 512 or > LargestBlock || (block & (block - 1)) != 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{name}: has blocks of {block:#,0} bytes; supported: powers of two from 512 to {LargestBlock:#,0}",
                    name);
            }
            if (last >= (ulong)long.MaxValue / block || (!isLong && last == uint.MaxValue))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{name}: has its last block at {last:#,0}, which is more than can be addressed", name);
            }
            bool isThin = isLong && answer.Length >= 16 && (answer[14] & 0x80) != 0;
            return of with
            {
                Length = (long)(last + 1) * block,
                BlockSize = (int)block,
                IsLong = isLong && of.Type != CdRom, // MMC has no READ(16)
                IsThin = isThin,
                ReadsZeroes = isThin && (answer[14] & 0x40) != 0,
            };
        }

        async ValueTask<ScsiUnit> PagesAsync(ScsiUnit of)
        {
            (_, byte[] pages) = await InAsync(ScsiCommands.InquiryOf(0, PageLength), PageLength).ConfigureAwait(false);
            foreach (byte page in pages.Length > 4 ? pages[4..Math.Min(pages.Length, 4 + pages[3])] : [])
            {
                if (page is not (ScsiCommands.SerialPage or ScsiCommands.IdentificationPage or ScsiCommands.LimitsPage
                    or ScsiCommands.ProvisioningPage))
                {
                    continue;
                }
                (ScsiTask asked, byte[] said) = await InAsync(ScsiCommands.InquiryOf(page, PageLength), PageLength).ConfigureAwait(false);
                of = asked.IsGood && said.Length > 4 && said[1] == page ? of.With(page, said) : of;
            }
            return of;
        }
    }

    /// <summary>Throws what the unit says if a command failed.</summary>
    /// <param name="name">What it is called in messages.</param>
    /// <param name="task">The command.</param>
    /// <param name="doing">What cannot be done.</param>
    /// <param name="offset">Where, if that matters.</param>
    /// <param name="changes">It would have changed something.</param>
    /// <exception cref="DiskImageException">It failed.</exception>
    public static void Require(string name, ScsiTask task, string doing, long? offset = null, bool changes = false)
    {
        if (task.IsGood)
        {
            return;
        }
        DiskImageErrorKind otherwise = changes ? DiskImageErrorKind.WriteFailed : DiskImageErrorKind.Io;
        (DiskImageErrorKind kind, string what) = task.Status switch
        {
            ScsiStatus.CheckCondition => (
                task.Sense switch
                {
                    { Key: ScsiSenseKey.DataProtect, Asc: 0x27, Ascq: 0x07 } => DiskImageErrorKind.NoSpace,
                    { Key: ScsiSenseKey.DataProtect } => DiskImageErrorKind.ReadOnly,
                    { Key: ScsiSenseKey.IllegalRequest, Asc: 0x25 } => DiskImageErrorKind.NotFound,
                    { Key: ScsiSenseKey.IllegalRequest, Asc: 0x20, Ascq: not 0 } => DiskImageErrorKind.AccessDenied,
                    _ => otherwise,
                },
                task.Sense.ToString()),
            ScsiStatus.ReservationConflict => (DiskImageErrorKind.Locked, "another initiator has reserved it (RESERVATION CONFLICT)"),
            ScsiStatus.Busy => (otherwise, "it is busy (BUSY)"),
            ScsiStatus.TaskSetFull => (otherwise, "it has as many commands as it can hold (TASK SET FULL)"),
            ScsiStatus.TaskAborted => (otherwise, "somebody else had the command aborted (TASK ABORTED)"),
            _ => (otherwise, $"status {(int)task.Status:X2}h"),
        };
        throw new DiskImageException(kind, $"{name}: cannot {doing}: the target says {what}", name, offset);
    }

    private ScsiUnit With(byte page, byte[] said)
    {
        int length = Math.Min(said.Length, 4 + BinaryPrimitives.ReadUInt16BigEndian(said.AsSpan(2)));
        uint U32(int at) => at + 4 <= length ? BinaryPrimitives.ReadUInt32BigEndian(said.AsSpan(at)) : 0;
        return page switch
        {
            ScsiCommands.SerialPage => this with { Serial = Ascii(said, 4, length - 4) },
            ScsiCommands.IdentificationPage => this with { Identification = Convert.ToHexString(said.AsSpan(4, length - 4)) },
            ScsiCommands.LimitsPage => this with
            {
                MaxTransfer = U32(8), OptimalTransfer = U32(12), MaxUnmap = U32(20), MaxSame = ((ulong)U32(36) << 32) | U32(40),
            },
            _ => this with
            {
                TakesUnmap = length > 5 && (said[5] & 0x80) != 0,
                TakesUnmapSame = length > 5 && (said[5] & 0x40) != 0,
                ReadsZeroes = ReadsZeroes || (IsThin && length > 5 && (said[5] & 0x04) != 0),
            },
        };
    }

    private static string Ascii(byte[] bytes, int at, int length)
        => at >= bytes.Length ? "" : Encoding.ASCII.GetString(bytes, at, Math.Min(length, bytes.Length - at)).Trim('\0', ' ');
}
