using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img snapshot</c>.</summary>
internal sealed class SnapshotCommand : ImgCommand
{
    public override string Name => "snapshot";

    public override string Summary => "List, take, go back to or remove snapshots inside an image";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('l', "list", null, "list them"),
        new('c', "create", "SNAPSHOT", "take one"),
        new('a', "apply", "SNAPSHOT", "go back to one"),
        new('d', "delete", "SNAPSHOT", "remove one"),
        ForceShareOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        (string Key, string? Value)[] actions = [.. Arguments.Given.Where(g => g.Key is "list" or "create" or "apply" or "delete")];
        if (actions.Length > 1)
        {
            throw CommandException.Usage("Cannot mix '-l', '-a', '-c', '-d'");
        }
        string given = OneImage();
        (string action, string? name) = actions.Length == 0 ? ("list", null) : actions[0];
        bool isList = action is "list";
        OpenedImage image = await OpenAsync(
            given,
            Request(given, Arguments.Last("format")) with { WithBacking = !isList, Writable = !isList },
            cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            ISnapshots? kept = image.Node.As<ISnapshots>();
            if (actions.Length == 0)
            {
                return 0;
            }
            if (isList)
            {
                Io.Output.Write(SnapshotTable.Of(
                    kept is null ? [] : await kept.GetSnapshotsAsync(cancellationToken).ConfigureAwait(false)));
                return 0;
            }
            await ChangeAsync(kept, action, name!, cancellationToken).ConfigureAwait(false);
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        return 0;
    }

    private static async Task ChangeAsync(ISnapshots? kept, string action, string name, CancellationToken cancellationToken)
    {
        string doing = $"Could not {action} snapshot '{Printable.Of(name)}'";
        if (kept is null)
        {
            throw new CommandException($"{doing}: -95 (Operation not supported)");
        }
        try
        {
            _ = action switch
            {
                "create" => await kept.CreateSnapshotAsync(name, DateTimeOffset.UtcNow, cancellationToken).ConfigureAwait(false),
                "apply" => await kept.RestoreSnapshotAsync(name, cancellationToken).ConfigureAwait(false),
                _ => await kept.DeleteSnapshotAsync(name, cancellationToken).ConfigureAwait(false),
            };
        }
        catch (DiskImageException e)
        {
            string why = (action, e.Kind) switch
            {
                ("delete", DiskImageErrorKind.NotFound) => "snapshot not found",
                ("apply", DiskImageErrorKind.NotFound) => $"Failed to load snapshot: {RemedyOptions.Say(e)}",
                _ => RemedyOptions.Say(e),
            };
            throw new CommandException($"{doing}: {why}");
        }
    }
}
