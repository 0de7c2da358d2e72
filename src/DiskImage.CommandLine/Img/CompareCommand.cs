using System.Globalization;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.CommandLine;

/// <summary><c>qemu-img compare</c>.</summary>
internal sealed class CompareCommand : ImgCommand
{
    private const int Different = 1, NotOpened = 2, NotRead = 4; // qemu-img's manual, "compare"
    private const int Sector = 512; // a difference is told by the sector it is in

    public override string Name => "compare";

    public override string Summary => "Tell whether two disks read the same";

    public override string OperandText => "FILE1 FILE2";

    public override int FailureStatus => NotOpened;

    public override IReadOnlyList<CommandOption> Options { get; } =
    [
        new('f', "a-format", "FMT", "format of the first image"),
        new('F', "b-format", "FMT", "format of the second image"),
        ImageOptsOption,
        new('T', "source-cache", "CACHE", "cache mode of both"),
        new('s', "strict", null, "sizes and what is stored must be the same, too"),
        ForceShareOption,
        ProgressOption,
        QuietOption,
        ObjectOption,
    ];

    private protected override async Task<int> WorkAsync(CancellationToken cancellationToken)
    {
        if (Operands.Count != 2)
        {
            throw CommandException.Usage("Expecting two image file names");
        }
        FrontEnd front = Front.With(Cache("source-cache", CacheMode.Writeback));
        OpenedImage left = await OpenAsync(
            front, Operands[0], Request(Operands[0], Arguments.Last("a-format")), cancellationToken).ConfigureAwait(false);
        await using (left.ConfigureAwait(false))
        {
            OpenedImage right = await OpenAsync(
                front,
                Operands[1],
                Request(Operands[1], Arguments.Last("b-format")) with { Role = ImageRole.Difference },
                cancellationToken).ConfigureAwait(false);
            await using (right.ConfigureAwait(false))
            {
                return await CompareAsync(front, left.Node, right.Node, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task<int> CompareAsync(FrontEnd front, BlockNode left, BlockNode right, CancellationToken cancellationToken)
    {
        CompareResult result;
        try
        {
            result = await front.ShowAsync(
                "Comparing",
                progress => new CompareJob(left, right, Arguments.Has("strict")).RunAsync(
                    progress, cancellationToken)).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            throw new CommandException(RemedyOptions.Say(e), NotRead);
        }
        if (result.Difference == DifferenceKind.Size)
        {
            Say("Strict mode: Image size mismatch!");
            return Different;
        }
        if (result.SizesDiffer && (result.Identical || result.FirstDifference >= Math.Min(left.Length, right.Length)))
        {
            Say("Warning: Image size mismatch!");
        }
        if (result.Identical)
        {
            Say("Images are identical.");
            return 0;
        }
        long at = result.FirstDifference ?? 0;
        Say(result.Difference == DifferenceKind.Allocation
            ? $"Strict mode: Offset {at.ToString(CultureInfo.InvariantCulture)} block status mismatch!"
            : $"Content mismatch at offset {(at / Sector * Sector).ToString(CultureInfo.InvariantCulture)}!");
        return Different;
    }
}
