using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary>Completes names that are kept inside the image at hand. An image that cannot be opened has none.</summary>
public abstract class ImageMemberCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string word = wordToComplete.Trim('\'', '"');
        string? path = OptionCompleter.Bound(fakeBoundParameters, PathParameters);
        return path is null ? [] : [.. Members(path, OptionCompleter.Bound(fakeBoundParameters, FormatParameter))
            .Where(m => m.Name.StartsWith(word, StringComparison.OrdinalIgnoreCase))
            .DistinctBy(m => m.Name, StringComparer.Ordinal)
            .Select(m => new CompletionResult(
                Quoted(m.Name), Printable.Of(m.Name), CompletionResultType.ParameterValue, Printable.Of(m.Help)))];
    }

    /// <summary>The parameters that name the image.</summary>
    private protected virtual string[] PathParameters => ["Path", "LiteralPath", "ImagePath", "FullName", "PSPath"];

    /// <summary>The parameter that names its format.</summary>
    private protected virtual string FormatParameter => "Format";

    /// <summary>The names in an open image, each with a line about it.</summary>
    private protected abstract ValueTask<IEnumerable<(string Name, string Help)>> MembersAsync(BlockNode disk);

    private static string Quoted(string name)
        => name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.')
            ? name
            : $"'{name.Replace("'", "''", StringComparison.Ordinal)}'";

    private IEnumerable<(string Name, string Help)> Members(string path, string? format)
    {
        try
        {
            using var shell = System.Management.Automation.PowerShell.Create(RunspaceMode.CurrentRunspace);
            string? full = shell.AddCommand("Convert-Path").AddParameter("Path", path).AddParameter(
                "ErrorAction", "Ignore").Invoke<string>().FirstOrDefault();
            return full is null ? [] : Task.Run(() => ReadAsync(full, format)).GetAwaiter().GetResult();
        }
        catch (Exception e) when (e is DiskImageException or RuntimeException)
        {
            return [];
        }
    }

    private async Task<IEnumerable<(string Name, string Help)>> ReadAsync(string path, string? format)
    {
        var opener = new ImageOpener(DiskImageCmdlet.Registry, OpenPolicy.Default with { ForceShare = true });
        OpenedImage image = await opener.OpenAsync(
            new OpenRequest(path) { Format = format, WithBacking = false, ToDescribe = true },
            CancellationToken.None).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            return await MembersAsync(image.Node).ConfigureAwait(false);
        }
    }
}

/// <summary>Completes the names of an image's snapshots.</summary>
public class SnapshotNameCompleter : ImageMemberCompleter
{
    private protected override async ValueTask<IEnumerable<(string Name, string Help)>> MembersAsync(BlockNode disk)
        => disk.As<ISnapshots>() is { } snapshots
            ? (await snapshots.GetSnapshotsAsync(CancellationToken.None).ConfigureAwait(false)).Select(
                s => (s.Name, $"{s.Id}, {s.Date.ToLocalTime():yyyy-MM-dd HH:mm:ss}"))
            : [];
}

/// <summary>Completes the names of the snapshots of the image that another one is compared with.</summary>
public sealed class DifferenceSnapshotNameCompleter : SnapshotNameCompleter
{
    private protected override string[] PathParameters => ["DifferencePath"];

    private protected override string FormatParameter => "DifferenceFormat";
}

/// <summary>Completes the names of an image's dirty bitmaps.</summary>
public sealed class BitmapNameCompleter : ImageMemberCompleter
{
    private protected override async ValueTask<IEnumerable<(string Name, string Help)>> MembersAsync(BlockNode disk)
        => disk.As<IBitmapList>() is { } bitmaps
            ? (await bitmaps.GetBitmapsAsync(CancellationToken.None).ConfigureAwait(false)).Select(
                b => (b.Name, $"granularity {ReadableSize.Of(b.Granularity)}, {ReadableSize.Of(b.DirtyBytes)} dirty"))
            : [];
}
