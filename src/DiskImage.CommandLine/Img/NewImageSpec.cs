using System.Globalization;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Operations;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary>A new image as the arguments describe it: place, format, options, with QEMU's defaults.</summary>
internal sealed class NewImageSpec
{
    private readonly Dictionary<string, string> _values = new(StringComparer.Ordinal);

    /// <summary>Begins the description of an image.</summary>
    /// <param name="path">As it was named.</param>
    /// <param name="format">The name of its format.</param>
    /// <param name="options">The texts of <c>-o</c>.</param>
    /// <param name="isMeasured">It is not made: then its name says nothing.</param>
    /// <exception cref="CommandException">The format is unknown or cannot be made, or an option is not one of its.</exception>
    public NewImageSpec(string path, string format, IEnumerable<string> options, bool isMeasured = false)
    {
        Path = path;
        Format = FrontEnd.Registry.Formats.FirstOrDefault(f => f.IsCalled(format))
            ?? throw new CommandException($"{(isMeasured ? "" : $"{path}: ")}Unknown file format '{format}'");
        Schema = (Format as ICreatable)?.CreateOptions
            ?? throw new CommandException($"{path}: Format driver '{format}' does not support image creation");
        foreach ((string name, object? value) in OptionSchema.Split(string.Join(',', options)))
        {
            string text = Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
            _values[name] = Schema.Find(name) is not null ? text
                : throw new CommandException($"{path}: Invalid parameter '{name}'");
        }
    }

    /// <summary>As it was named.</summary>
    public string Path { get; }

    /// <summary>Its format.</summary>
    public FormatDriver Format { get; }

    /// <summary>The options that the format has.</summary>
    public OptionSchema Schema { get; }

    /// <summary>What is not the default, by QEMU's names.</summary>
    public IReadOnlyDictionary<string, string> Values => _values;

    /// <summary>An option as it was given; null if it was not.</summary>
    public string? this[string name]
    {
        get => _values.GetValueOrDefault(name);
        set => _ = value is null ? _values.Remove(name) : Set(name, value);
    }

    /// <summary>Sets the virtual size, in bytes.</summary>
    public long Size
    {
        set => _ = Set("size", value.ToString(CultureInfo.InvariantCulture));
    }

    /// <summary>Sets the backing image.</summary>
    /// <exception cref="CommandException">Images of the format stand on none.</exception>
    public void SetBacking(string file, string? format)
    {
        if (Schema.Find("backing_file") is null)
        {
            throw new CommandException($"{Path}: Backing file not supported for file format '{Format.Name}'");
        }
        _ = Set("backing_file", file);
        if (format is not null)
        {
            _ = Set("backing_fmt", format);
        }
    }

    /// <summary>
    /// The format's record. A VHD's size is rounded to a geometry unless <c>force_size</c> is on: that is QEMU's default.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public object Bind()
    {
        var values = _values.Where(v => !IsAutomatic(v.Key, v.Value)).ToDictionary(
            v => v.Key, v => (object?)v.Value, StringComparer.Ordinal);
        if (Schema.Find("force_size") is not null)
        {
            _ = values.TryAdd("force_size", "off");
        }
        return Schema.Bind(values);
    }

    /// <summary>What it stands on need not be there: it is made and no more.</summary>
    public bool IsUnsafe { get; init; }

    /// <summary>Makes it. What is there is replaced, or written over where it has other names, too.</summary>
    public async Task<NewImage> CreateAsync(FrontEnd front, CancellationToken cancellationToken)
    {
        object record = Bind();
        string full = ImageLocator.Parse(Path) is { IsFile: true, IsDescription: false, Address: var path } ? front.Io.Full(path) : Path;
        ImageOpener opener = front.Opener.Naming(record, full);
        var creator = new ImageCreator(opener)
        {
            Secrets = front.Secrets, SecretsBelow = front.Secrets, Cache = front.Policy.Cache, WithBacking = !IsUnsafe,
        };
        StoragePlace place = await creator.LookAsync(
            full, Format, record, TargetMode.Replace, cancellationToken).ConfigureAwait(false);
        TargetMode mode = place.OtherNames > 0 ? TargetMode.InPlace : TargetMode.Replace;
        var operation = new CreateOperation(front, opener, creator, new CreateRequest(full, Format, record, mode));
        return await operation.RunAsync(cancellationToken).ConfigureAwait(false);
    }

    private bool Set(string name, string value)
    {
        _values[name] = value;
        return true;
    }

    /// <summary>QEMU's word for what the format decides itself.</summary>
    private static bool IsAutomatic(string name, string value) => (name, value) is ("block_size", "0") or ("hwversion", "undefined");
}
