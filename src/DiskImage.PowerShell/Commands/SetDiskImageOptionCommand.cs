using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary><c>Set-DiskImageOption</c>: changes options of existing images.</summary>
[Cmdlet(VerbsCommon.Set, "DiskImageOption", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class SetDiskImageOptionCommand : OpenImageCmdlet, IDynamicParameters
{
    private const string Lack = "have no options that could be changed";

    private RuntimeDefinedParameterDictionary? _formatParameters;

    /// <summary>The options to change.</summary>
    [Parameter(Position = 1)]
    [ArgumentCompleter(typeof(AmendOptionCompleter))]
    public object? Option { get; set; }

    /// <summary>Returns the image as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    public object? GetDynamicParameters()
        => _formatParameters = TargetFormat.TryOf(Format, Path.Concat(LiteralPath).FirstOrDefault()) is IAmendable amendable
            ? GivenOptions.Parameters(amendable.AmendOptions, GetType(), typeof(AmendOptionValueCompleter))
            : null;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        // What is wrong with the options is found out before the image is opened for writing.
        (string name, string files, GivenOptions options, bool withBacking, Wording? warning) = await LookAsync(
            path,
            image =>
            {
                GivenOptions given = Given(image);
                IAmendable format = image.RequireOfFormat<IAmendable>(Lack);
                return new ValueTask<(string, string, GivenOptions, bool, Wording?)>(
                    (image.Path, WrittenFiles.Of(image), given, !format.AmendsWithoutBacking, format.AmendWarning(given.Bind())));
            },
            cancellationToken,
            beforeWriting: true).ConfigureAwait(false);
        if (warning is not null)
        {
            await WarnAsync(RemedyWords.Say($"{name}: {warning}")).ConfigureAwait(false);
        }
        if (!await ConfirmAsync(files, $"Set {string.Join(", ", options.Names)}").ConfigureAwait(false))
        {
            return;
        }
        _ = await ChangeAsync(
            path,
            async image =>
            {
                IAmendable format = image.RequireOfFormat<IAmendable>(Lack);
                long length = image.Node.Length;
                return await ShowAsync(
                    $"Changing {Leaf(image.Path)}",
                    async progress =>
                    {
                        await format.AmendAsync(
                            image.Node,
                            options.Bind(),
                            new ByteProgress("Amend", progress, length),
                            cancellationToken).ConfigureAwait(false);
                        return true;
                    }).ConfigureAwait(false);
            },
            cancellationToken,
            withBacking).ConfigureAwait(false);
        if (PassThru)
        {
            await DescribeAsync(path, cancellationToken).ConfigureAwait(false);
        }
    }

    private GivenOptions Given(OpenedImage image)
    {
        OptionSchema known = image.RequireOfFormat<IAmendable>(Lack).AmendOptions;
        var options = new GivenOptions(known);
        options.Add(Option);
        options.Add(_formatParameters);
        OptionSchema? create = (image.Format as ICreatable)?.CreateOptions;
        if (options.Names.FirstOrDefault(n => known.Find(n) is null && create?.Find(n) is not null) is { } fixedOption)
        {
            string way = create!.Find(fixedOption)!.PropertyName is nameof(
                ICreateOptions.BackingFile) or nameof(ICreateOptions.BackingFormat)
                ? "Set-DiskImageBacking gives an image another backing image"
                : "Convert-DiskImage makes a new image with another value";
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{image.Path}: option '{fixedOption}' cannot be changed in place; {way}. Can be changed: "
                    + $"{string.Join(", ", known.Options.Select(o => o.Name))}.",
                image.Path);
        }
        _ = options.Bind();
        return options.Names.Count > 0
            ? options
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{image.Path}: no option to change is given. Give -Option.", image.Path);
    }
}
