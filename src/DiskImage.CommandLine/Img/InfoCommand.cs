using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img info</c>.</summary>
internal sealed class InfoCommand : ImgCommand
{
    public override string Name => "info";

    public override string Summary => "Show what an image says about itself";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('\0', "backing-chain", null, "show the images below it, too"),
        ForceShareOption,
        new('t', "cache", "CACHE", "cache mode of what is read"),
        OutputOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string given = OneImage();
        OpenRequest request = Request(given, Arguments.Last("format"));
        FrontEnd front = Front.With(Cache("cache", CacheMode.Writeback));
        var found = new List<(Facts Members, string Text)>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        for (string? name = Arguments.Has("image-opts") ? null : given; ;)
        {
            OpenedImage image = await OpenAsync(
                front, name ?? given, request with { WithBacking = false, ToDescribe = true }, cancellationToken).ConfigureAwait(false);
            await using (image.ConfigureAwait(false))
            {
                name = name is null ? image.Path : ShownName.Given(name);
                if (!seen.Add(image.Path))
                {
                    throw new CommandException($"Backing file '{Printable.Of(name)}' creates an infinite loop.");
                }
                ImageDescription? said = image.Node.As<IDescribed>()?.Describe();
                string? backing = said?.BackingFile is { Length: > 0 } recorded ? ShownName.Beside(name, recorded) : null;
                InfoFacts facts = await new InfoFacts(image, name, backing).LoadAsync(cancellationToken).ConfigureAwait(false);
                found.Add((facts.Members(), IsJson ? "" : facts.Text()));
                if (!Arguments.Has("backing-chain") || backing is null)
                {
                    break;
                }
                request = new OpenRequest(backing) { Format = Named(said!.BackingFormat) };
                name = backing;
            }
        }
        Write(found);
        return 0;
    }

    private void Write(List<(Facts Members, string Text)> found)
    {
        if (!IsJson)
        {
            Io.Output.Write(string.Join('\n', found.Select(f => f.Text)));
        }
        else if (Arguments.Has("backing-chain"))
        {
            Io.Output.WriteLine(Facts.Json(found.Select(object (f) => f.Members).ToList()));
        }
        else
        {
            Io.Output.WriteLine(Facts.Json(found[0].Members));
        }
    }
}
