using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Platform;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>Folders of this machine as disks with a FAT volume, made up as they are read.</summary>
internal sealed class VirtualFatDriver : ProtocolDriver
{
    public override string Name => "vvfat";

    public override string Description
        => "A folder as a disk with a FAT volume: fat:folder, fat:rw:folder, fat:floppy:folder, fat:32:folder";

    public override IReadOnlyList<string> Schemes => ["fat"];

    public override bool IsDisk => true;

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<VirtualFatOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => VirtualFatText.Parse(locator);

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        var options = (VirtualFatOptions)OpenOptions.Bind(values);
        return options.Dir.Length > 0 ? options : throw new DiskImageException(
            DiskImageErrorKind.InvalidOption, "A virtual FAT disk needs the folder that it is made of: fat:FOLDER, or the option 'dir'.");
    }

    public override object From(object options, PathFrom pathFrom)
        => (VirtualFatOptions)options with { Dir = pathFrom(((VirtualFatOptions)options).Dir) };

    public override string NameOf(object options) => VirtualFatText.Of(WithFullPath((VirtualFatOptions)options));

    public override NodeIdentity? IdentityOf(object options)
    {
        VirtualFatOptions given = WithFullPath((VirtualFatOptions)options);
        return HostNames.Current.Find(given.Dir) is { } found
            ? new NodeIdentity(VirtualFatText.Of(given with { Dir = $"{found.Identity.Text}:{given.Label}:{given.Size}:{given.Free}" }))
            : null;
    }

    public override ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        VirtualFatOptions options = WithFullPath((VirtualFatOptions)context.Options);
        string name = VirtualFatText.Of(options);
        if (context.Access.Writes && !options.ReadWrite)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly,
                $"{name}: a folder is only read as a disk. To have what is written brought into it, name it fat:rw:FOLDER, or set the "
                    + $"option 'rw'.",
                name);
        }
        FatFolder tree = new HostTree(options.Dir, followsLinks: !options.ReadWrite, context.Warn).List(cancellationToken);
        var volume = new FatVolume(tree, options);
        return new(context.Access.Writes
            ? new WritableFatNode(name, IdentityOf(options), volume)
            : new VirtualFatNode(name, IdentityOf(options), volume));
    }

    private static VirtualFatOptions WithFullPath(VirtualFatOptions options)
    {
        try
        {
            return options with { Dir = Path.TrimEndingDirectorySeparator(Path.GetFullPath(options.Dir)) };
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException or PathTooLongException)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"'{options.Dir}' is not a path: {e.Message}", cause: e);
        }
    }
}
