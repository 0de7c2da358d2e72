using System.Globalization;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img check</c>.</summary>
internal sealed class CheckCommand : ImgCommand
{
    private const int CheckErrors = 1, Corruptions = 2, Leaks = 3, NoChecks = 63; // qemu-img's manual, "check"

    public override string Name => "check";

    public override string Summary => "Check an image's structures, and repair them";

    public override string OperandText => "FILE";

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        FormatOption,
        ImageOptsOption,
        new('T', "source-cache", "CACHE", "cache mode of the image"),
        new('r', "repair", "leaks|all", "what to repair"),
        ForceShareOption,
        OutputOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        string given = OneImage();
        RepairMode? mode = Arguments.Last("repair") switch
        {
            null => null,
            "leaks" => RepairMode.Leaks,
            "all" => RepairMode.All,
            _ => throw new CommandException("Unknown option value for -r"), // qemu-img: -r expects 'leaks' or 'all'
        };
        FrontEnd front = Front.With(Cache("source-cache", CacheMode.Writeback));
        OpenRequest request = Request(given, Arguments.Last("format"));
        if (!await CanCheckAsync(front, given, request, cancellationToken).ConfigureAwait(false))
        {
            throw new CommandException("This image format does not support checks", NoChecks);
        }
        CheckOutcome outcome = await new CheckOperation(front, request).RunAsync(
            mayLackCheck: false, looked: null, cancellationToken).ConfigureAwait(false);
        var (corruptions, leaks) = (outcome.Corruptions, outcome.Report.Leaks);
        if (mode is { } repair && corruptions + leaks > 0)
        {
            using var operation = new RepairOperation(front, request);
            outcome = await operation.RunAsync(repair, cancellationToken).ConfigureAwait(false);
        }
        foreach (CheckFinding finding in outcome.Findings.Where(f => f.Severity != CheckSeverity.Warning))
        {
            string text = finding.Wording is { } wording ? RemedyOptions.Say(wording) : finding.Message;
            string kind = finding.Severity == CheckSeverity.Leak ? "Leaked: " : "ERROR ";
            await Io.Error.WriteLineAsync(kind + text).ConfigureAwait(false);
        }
        Write(outcome, given);
        return outcome.Corruptions > 0 ? Corruptions : outcome.Report.Leaks > 0 ? Leaks : outcome.CheckErrors > 0 ? CheckErrors : 0;
    }

    /// <summary>False for a format that has no structures to check. One that does not open is for the check to tell.</summary>
    private static async Task<bool> CanCheckAsync(FrontEnd front, string given, OpenRequest request, CancellationToken cancellationToken)
    {
        try
        {
            OpenedImage image = await front.OpenAsync(
                request with { WithBacking = false, ToDescribe = true }, cancellationToken).ConfigureAwait(false);
            await using (image.ConfigureAwait(false))
            {
                return image.Node.As<ICheckable>() is not null;
            }
        }
        catch (DiskImageException e) when (e.Kind is DiskImageErrorKind.Corrupt)
        {
            return true;
        }
        catch (DiskImageException e)
        {
            throw new CommandException(CouldNotOpen(given, e));
        }
    }

    private void Write(CheckOutcome outcome, string given)
    {
        CheckReport report = Counted(outcome);
        if (IsJson)
        {
            Io.Output.WriteLine(Facts.Json(new Facts()
                .Add("image-end-offset", EndOf(outcome))
                .Add("total-clusters", Some(report.TotalClusters))
                .Add("check-errors", outcome.CheckErrors)
                .Add("leaks", Some(report.Leaks))
                .Add("leaks-fixed", Some(report.LeaksFixed))
                .Add("corruptions", Some(outcome.Corruptions))
                .Add("corruptions-fixed", Some(report.CorruptionsFixed))
                .Add("allocated-clusters", Some(report.AllocatedClusters))
                .Add("fragmented-clusters", Some(report.FragmentedClusters))
                .Add("compressed-clusters", Some(report.CompressedClusters))
                .Add("filename", given)
                .Add("format", outcome.Format ?? "unknown")));
            return;
        }
        if (report.CorruptionsFixed + report.LeaksFixed > 0)
        {
            Say($"The following inconsistencies were found and repaired:\n\n    {Number(report.LeaksFixed)} leaked clusters\n"
                + $"    {Number(report.CorruptionsFixed)} corruptions\n\nDouble checking the fixed image now...");
        }
        Say(Sentences(outcome));
        if (report is { TotalClusters: > 0 and var total, AllocatedClusters: > 0 and var allocated })
        {
            Say($"{Number(allocated)}/{Number(total)} = {Percent(allocated, total)} allocated, "
                + $"{Percent(report.FragmentedClusters ?? 0, allocated)} fragmented, "
                + $"{Percent(report.CompressedClusters ?? 0, allocated)} compressed clusters");
        }
        if (EndOf(outcome) is long end)
        {
            Say($"Image end offset: {Number(end)}");
        }
    }

    private static string Sentences(CheckOutcome outcome)
    {
        var text = new List<string>();
        if (outcome.Corruptions > 0)
        {
            text.Add($"\n{Number(outcome.Corruptions)} errors were found on the image.\n"
                + "Data may be corrupted, or further writes to the image may corrupt it.");
        }
        if (outcome.Report.Leaks > 0)
        {
            text.Add($"\n{Number(outcome.Report.Leaks)} leaked clusters were found on the image.\n"
                + "This means waste of disk space, but no harm to data.");
        }
        if (outcome.CheckErrors > 0)
        {
            text.Add($"\n{Number(outcome.CheckErrors)} internal errors have occurred during the check.");
        }
        return text.Count == 0 ? "No errors were found on the image." : string.Join('\n', text);
    }

    /// <summary>Where the image ends, for formats of which QEMU tells it.</summary>
    private static long? EndOf(CheckOutcome outcome)
        => outcome.Format is "qcow2" or "parallels" ? Some(outcome.Report.ImageEndOffset) : null;

    /// <summary>The report, without counts of clusters for formats of which QEMU tells none.</summary>
    private static CheckReport Counted(CheckOutcome outcome) => outcome.Format is "qcow2" or "parallels" ? outcome.Report
        : outcome.Format is "qed" ? outcome.Report with { FragmentedClusters = null }
        : outcome.Report with { TotalClusters = null, AllocatedClusters = null, FragmentedClusters = null, CompressedClusters = null };

    private static long? Some(long? value) => value is > 0 ? value : null;

    private static string Number(long? value) => (value ?? 0).ToString(CultureInfo.InvariantCulture);

    private static string Percent(long? part, long? whole)
        => ((double)(part ?? 0) * 100 / (whole ?? 1)).ToString("0.00", CultureInfo.InvariantCulture) + "%";
}
