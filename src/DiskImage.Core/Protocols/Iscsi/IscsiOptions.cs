using System.Security;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Protocols.Iscsi;

/// <summary>How PDUs are carried.</summary>
internal enum IscsiTransport
{
    /// <summary>By TCP.</summary>
    Tcp,

    /// <summary>By RDMA, which is not here.</summary>
    Iser,
}

/// <summary>Whether PDUs have digests.</summary>
internal enum IscsiDigest
{
    /// <summary>No digest.</summary>
    None,

    /// <summary>A CRC-32C, or no login.</summary>
    Crc32C,

    /// <summary>A CRC-32C if the target has it.</summary>
    [OptionText("crc32c-none")]
    Crc32CNone,

    /// <summary>A CRC-32C only if the target insists.</summary>
    [OptionText("none-crc32c")]
    NoneCrc32C,
}

/// <summary>
/// Options when a logical unit of an iSCSI target is opened. The names are QEMU's; data-digest, target-user, target-password-secret, config
/// and reconnect-delay are ours.
/// </summary>
internal sealed record IscsiOptions
{
    private const int LastLun = 16_383; // of flat addressing. Spec: SAM-5

    /// <summary>How PDUs are carried.</summary>
    [DriverOption("transport", "How PDUs are carried: tcp")]
    public IscsiTransport Transport { get; init; }

    /// <summary>Where the target listens.</summary>
    [DriverOption("portal", "The target's host or host:port; port 3260 if not given")]
    public string Portal { get; init; } = "";

    /// <summary>The target.</summary>
    [DriverOption("target", "The target's name, as iqn.2010-05.com.example:storage")]
    public string Target { get; init; } = "";

    /// <summary>The logical unit.</summary>
    [DriverOption("lun", "Number of the logical unit", Minimum = 0, Maximum = LastLun)]
    public long Lun { get; init; }

    /// <summary>Who one is.</summary>
    [DriverOption("user", "Name of the user at the target (CHAP)")]
    public string? User { get; init; }

    /// <summary>The secret that has the password.</summary>
    [DriverOption("password-secret", "Name of the secret with the user's password")]
    public string? PasswordSecret { get; init; }

    /// <summary>Who the target is to prove to be.</summary>
    [DriverOption("target-user", "Name under which the target proves who it is (mutual CHAP)")]
    public string? TargetUser { get; init; }

    /// <summary>The secret that has that password.</summary>
    [DriverOption("target-password-secret", "Name of the secret with the target's password")]
    public string? TargetPasswordSecret { get; init; }

    /// <summary>Who one is to the target.</summary>
    [DriverOption("initiator-name", "The initiator's name; one of this machine's if not given")]
    public string? InitiatorName { get; init; }

    /// <summary>Digests of headers.</summary>
    [DriverOption("header-digest", "CRC-32C over headers: crc32c, none, crc32c-none, none-crc32c, the preferred one first")]
    public IscsiDigest? HeaderDigest { get; init; }

    /// <summary>Digests of data.</summary>
    [DriverOption("data-digest", "CRC-32C over data, as header-digest")]
    public IscsiDigest DataDigest { get; init; }

    /// <summary>How long a command may go without an answer.</summary>
    [DriverOption("timeout", "Seconds that a command may go without an answer; 0 for ever", Minimum = 0, Maximum = 86400)]
    public long? Timeout { get; init; }

    /// <summary>How long commands wait for a lost connection to come back.</summary>
    [DriverOption("reconnect-delay", "Seconds that commands wait for a lost connection to come back", Minimum = 0, Maximum = 86400)]
    public long ReconnectDelay { get; init; } = 10;

    /// <summary>A file with further options.</summary>
    [DriverOption("config", "File in QEMU's form with sections [iscsi] and [iscsi \"target\"]: user, password, initiator-name …")]
    public string? Config { get; init; }

    /// <summary>The user's password, if it was given with the place itself. It is never shown.</summary>
    public SecureString? Password { get; init; }

    /// <summary>The target's password, likewise.</summary>
    public SecureString? TargetPassword { get; init; }

    /// <summary>The unit as a URL, in one form whatever was given, and without secrets.</summary>
    public string Url => $"iscsi://{Address}/{Target}/{Lun}";

    /// <summary>Where the target listens.</summary>
    /// <exception cref="DiskImageException">InvalidOption: nothing says where.</exception>
    public IscsiPortal Address => IscsiPortal.Parse(Portal) ?? throw new DiskImageException(
        DiskImageErrorKind.InvalidOption, $"'{Portal}' is no portal of an iSCSI target. A portal is host or host:port.");

    /// <summary>Throws if the options lead nowhere.</summary>
    /// <exception cref="DiskImageException">InvalidOption; Unsupported: RDMA.</exception>
    public void Check(bool needsTarget)
    {
        if (Transport == IscsiTransport.Iser)
        {
            throw IscsiLocator.NoRdma();
        }
        _ = Address;
        if (needsTarget && !IscsiLocator.IsName(Target))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"'{Target}' is no name of an iSCSI target. Names begin with iqn., eui. or naa. and have {IscsiWire.LongestName} bytes at "
                    + "most.");
        }
    }
}
