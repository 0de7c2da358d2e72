using System.Globalization;
using System.Text.RegularExpressions;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Protocols.Nvme;

/// <summary>Options when a namespace of an NVMe controller is opened. The names are QEMU's.</summary>
internal sealed record NvmeOptions
{
    /// <summary>The controller.</summary>
    [DriverOption("device", "PCI address of the controller, as 0000:44:00.0")]
    public string Device { get; init; } = "";

    /// <summary>The namespace.</summary>
    [DriverOption("namespace", "Number of the namespace", Minimum = 1, Maximum = NvmeLocator.LastNamespace)]
    public long Namespace { get; init; }

    /// <summary>The namespace as a URI.</summary>
    public string Url => $"{NvmeLocator.Scheme}://{Device}/{Namespace.ToString(CultureInfo.InvariantCulture)}";
}

/// <summary>From URIs to options: <c>nvme://DOMAIN:BUS:SLOT.FUNCTION/NAMESPACE</c>, as QEMU has them.</summary>
internal static partial class NvmeLocator
{
    /// <summary>The scheme, which is the driver's name, too.</summary>
    public const string Scheme = "nvme";

    /// <summary>The greatest number of a namespace; the one behind it means all. Spec: NVM Express Base 2.0, section 3.2.1.</summary>
    public const long LastNamespace = 0xFFFF_FFFE;

    /// <summary>The options that a URI stands for.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none.</exception>
    public static Dictionary<string, object?> Parse(string locator)
    {
        string start = $"{Scheme}://";
        string[] parts = locator.StartsWith(start, StringComparison.OrdinalIgnoreCase) ? locator[start.Length..].Split('/') : [];
        return parts is [{ Length: > 0 } device, { Length: > 0 } number]
            && long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out long value)
            ? new Dictionary<string, object?>(StringComparer.Ordinal) { ["device"] = device, ["namespace"] = value }
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"'{locator}' is no namespace of an NVMe controller. One is nvme://0000:44:00.0/1: domain, bus, slot and function of the "
                    + "controller in hexadecimal, and the number of the namespace.");
    }

    /// <summary>The options with the address in one form: small letters, all digits.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is no address, or no namespace is given.</exception>
    public static NvmeOptions Checked(NvmeOptions options)
    {
        Match match = Address().Match(options.Device);
        if (!match.Success)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"'{options.Device}' is no PCI address. One is domain:bus:slot.function in hexadecimal, as 0000:44:00.0; 'device' names "
                    + "the controller so.");
        }
        return options.Namespace == 0
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{options.Device}: 'namespace' is missing, the number of the namespace; the first is 1.")
            : options with { Device = match.Value.ToLowerInvariant() };
    }

    [GeneratedRegex(
        "^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]\\z",
        RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture,
        matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Address();
}
