using System.Buffers.Binary;
using System.Security;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>A logical unit that a target says it has, or a target that has none or shows none.</summary>
public sealed record ListedUnit
{
    /// <summary>The target's name.</summary>
    public required string Target { get; init; }

    /// <summary>Where it listens.</summary>
    public required IReadOnlyList<string> Portals { get; init; }

    /// <summary>What leads to the unit; to the target where no unit is known.</summary>
    public required string Url { get; init; }

    /// <summary>The unit's number; null where none is known.</summary>
    public int? Lun { get; init; }

    /// <summary>What kind of device it is.</summary>
    public string? Kind { get; init; }

    /// <summary>Its bytes; null for what has none, or no medium.</summary>
    public long? Length { get; init; }

    /// <summary>Bytes of a block; null likewise.</summary>
    public int? BlockSize { get; init; }

    /// <summary>Who made it, and what they call it.</summary>
    public string? Model { get; init; }

    /// <summary>Its serial number.</summary>
    public string? Serial { get; init; }

    /// <summary>It does not take changes.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>Its blocks need not have a place.</summary>
    public bool IsThin { get; init; }

    /// <summary>Why no more is known of it; null if all is.</summary>
    public DiskImageException? Problem { get; init; }
}

/// <summary>Whom to ask, and as whom.</summary>
/// <param name="Server">The portal: host, host:port, or a URL of one of its units.</param>
public sealed record IscsiListing(string Server)
{
    /// <summary>The initiator's name; this machine's if null.</summary>
    public string? InitiatorName { get; init; }

    /// <summary>User at the targets; null for none, or what the URL or the environment says.</summary>
    public string? User { get; init; }

    /// <summary>That user's password.</summary>
    public SecureString? Password { get; init; }

    /// <summary>Name that the targets are to prove; null for none.</summary>
    public string? TargetUser { get; init; }

    /// <summary>That name's password.</summary>
    public SecureString? TargetPassword { get; init; }
}

/// <summary>Asks servers what targets and units they have. Spec: RFC 7143, appendix C (SendTargets); SPC-4, REPORT LUNS.</summary>
public static class IscsiTargetList
{
    private const int MostUnits = 4096; // of a target. Ours

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(10); // for a login, and for an answer. Ours

    /// <summary>The targets of a server and their units, as they are found out.</summary>
    /// <param name="listing">Whom to ask.</param>
    /// <param name="isMeant">Tells which targets, by name, are to be looked at.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">The server cannot be asked. What one target says is in its row.</exception>
    public static async IAsyncEnumerable<ListedUnit> OfAsync(
        IscsiListing listing,
        Predicate<string> isMeant,
        [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        IscsiOptions options = OptionsOf(listing);
        foreach ((string target, List<string> portals) in await DiscoverAsync(options, cancellationToken).ConfigureAwait(false))
        {
            if (!isMeant(target))
            {
                continue;
            }
            var row = new ListedUnit { Target = target, Portals = portals, Url = $"iscsi://{options.Address}/{target}" };
            foreach (ListedUnit unit in await LookAsync(
                options with { Target = target, Portal = Reachable(portals, options.Address).ToString() }, row, cancellationToken)
                .ConfigureAwait(false))
            {
                yield return unit;
            }
        }
    }

    private static IscsiOptions OptionsOf(IscsiListing listing)
    {
        IscsiOptions said = new IscsiDriver().Bound(IscsiLocator.ParseServer(listing.Server));
        said = said with { InitiatorName = listing.InitiatorName };
        if (listing.User is not null)
        {
            said = said with { User = listing.User, Password = listing.Password };
        }
        if (listing.TargetUser is not null)
        {
            said = said with { TargetUser = listing.TargetUser, TargetPassword = listing.TargetPassword };
        }
        said.Check(needsTarget: false);
        return said;
    }

    private static IscsiWishes WishesOf(IscsiOptions options)
        => IscsiDriver.WishesOf(options, new Dictionary<string, SecureString>(StringComparer.Ordinal));

    /// <summary>The targets by name, each with where it listens.</summary>
    private static async ValueTask<List<(string Target, List<string> Portals)>> DiscoverAsync(
        IscsiOptions options, CancellationToken cancellationToken)
    {
        string name = $"iscsi://{options.Address}";
        // what is told is no secret, and many servers know no user before a target is named: only targets prove who they are
        IscsiWishes wishes = WishesOf(options);
        using IscsiCredentials credentials = wishes.Credentials;
        wishes = wishes with { Credentials = credentials with { TargetUser = null, TargetSecret = null } };
        IscsiConnection connection = await IscsiConnection.OpenAsync(
            name, options.Address, wishes, s_limit, cancellationToken).ConfigureAwait(false);
        await using (connection.ConfigureAwait(false))
        {
            byte[] answer = await connection.AskAsync(
                IscsiText.Write([new("SendTargets", "All")]), cancellationToken).ConfigureAwait(false);
            var targets = new List<(string Target, List<string> Portals)>();
            foreach ((string key, string value) in IscsiText.Read(name, answer))
            {
                if (key is "TargetName" && IscsiLocator.IsName(value))
                {
                    targets.Add((value, []));
                }
                else if (key is "TargetAddress" && targets.Count > 0 && IscsiPortal.Parse(value) is { } portal)
                {
                    targets[^1].Portals.Add($"{portal}");
                }
            }
            return targets;
        }
    }

    /// <summary>Where a target is reached: where it was asked for, if it listens there, else where it says first.</summary>
    private static IscsiPortal Reachable(List<string> portals, IscsiPortal asked)
    {
        if (portals.Count == 0 || portals.Contains($"{asked}", StringComparer.OrdinalIgnoreCase))
        {
            return asked;
        }
        IscsiPortal first = IscsiPortal.Parse(portals[0])!;
        return first.Host is "0.0.0.0" or "::" ? first with { Host = asked.Host } : first;
    }

    private static async ValueTask<List<ListedUnit>> LookAsync(IscsiOptions options, ListedUnit row, CancellationToken cancellationToken)
    {
        var units = new List<ListedUnit>();
        try
        {
            IscsiWishes wishes = WishesOf(options);
            using IscsiCredentials credentials = wishes.Credentials;
            IscsiConnection connection = await IscsiConnection.OpenAsync(
                row.Url, options.Address, wishes, s_limit, cancellationToken).ConfigureAwait(false);
            await using (connection.ConfigureAwait(false))
            {
                async ValueTask<ScsiTask> RunAsync(Func<ScsiTask> make, CancellationToken stop)
                    => await IscsiLink.AnswerAsync(connection, s_limit, make, stop).ConfigureAwait(false) ?? throw connection.Broken!;

                foreach (int lun in await LunsAsync(row.Url, RunAsync, cancellationToken).ConfigureAwait(false))
                {
                    units.Add(await LookAtAsync(row, lun, RunAsync, cancellationToken).ConfigureAwait(false));
                }
            }
        }
        catch (DiskImageException e)
        {
            units.Add(row with { Problem = e });
        }
        return units.Count > 0 ? units : [row];
    }

    private static async ValueTask<ListedUnit> LookAtAsync(
        ListedUnit row, int lun, ScsiRunner run, CancellationToken cancellationToken)
    {
        row = row with { Lun = lun, Url = $"{row.Url}/{lun}" };
        try
        {
            ScsiUnit unit = await ScsiUnit.AskAsync(row.Url, lun, run, needsMedium: false, cancellationToken).ConfigureAwait(false);
            bool hasBlocks = unit.Length > 0;
            return row with
            {
                Kind = unit.Kind,
                Length = hasBlocks ? unit.Length : null,
                BlockSize = hasBlocks ? unit.BlockSize : null,
                Model = $"{unit.Vendor} {unit.Product}".Trim(),
                Serial = unit.Serial,
                IsReadOnly = unit.IsReadOnly,
                IsThin = unit.IsThin,
            };
        }
        catch (DiskImageException e)
        {
            return row with { Problem = e };
        }
    }

    private static async ValueTask<List<int>> LunsAsync(string name, ScsiRunner run, CancellationToken cancellationToken)
    {
        byte[] answer = [];
        ScsiTask task = await run(
            () => ScsiTask.In(0, ScsiCommands.ReportLuns(8 + (8 * MostUnits)), answer = new byte[8 + (8 * MostUnits)]), cancellationToken)
            .ConfigureAwait(false);
        ScsiUnit.Require(name, task, "ask for its units");
        int length = (int)Math.Min(task.Received - 8L, task.Received < 8 ? 0 : BinaryPrimitives.ReadUInt32BigEndian(answer));
        var luns = new List<int>();
        for (int at = 8; at + 8 <= 8 + length; at += 8)
        {
            int method = answer[at] >> 6; // SAM-5: peripheral and flat addressing
            if (method <= 1)
            {
                luns.Add(((answer[at] & 0x3F) << 8) | answer[at + 1]);
            }
        }
        return luns;
    }
}
