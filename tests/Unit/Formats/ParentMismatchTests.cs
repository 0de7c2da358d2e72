using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>
/// VHD and VHDX say the same of a parent that is not the recorded one, and let it pass the same way, wherever it is in a chain.
/// </summary>
public sealed class ParentMismatchTests
{
    [Fact]
    public async Task The_words_agree()
    {
        string[] texts = [await RefusalAsync("vhd", "vpc"), await RefusalAsync("vhdx", "vhdx")];
        const string Advice = "If you know that it is the right one, pass the permission (open option ignore_id_mismatch) to open it "
            + "anyway, or record it anew with a change of the recorded parent alone.";
        Assert.All(texts, t => Assert.EndsWith(Advice, t, StringComparison.Ordinal));
        Assert.All(texts, t => Assert.Contains("top: its parent must have the ", t, StringComparison.Ordinal));
        Assert.All(texts, t => Assert.Contains("it is another disk, or ", t, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("vhd", "vpc")]
    [InlineData("vhdx", "vhdx")]
    public async Task The_policy_lets_a_wrong_parent_pass_anywhere_in_a_chain(string ending, string format)
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder[$"base.{ending}"], format, "size=1M");
        await Images.CreateAsync(folder[$"mid.{ending}"], format, $"backing_file=base.{ending}");
        await Images.CreateAsync(folder["top.qcow2"], "qcow2", $"size=1M,backing_file=mid.{ending},backing_fmt={format}");
        File.Delete(folder[$"base.{ending}"]);
        await Images.CreateAsync(folder[$"base.{ending}"], format, "size=1M");
        Assert.Equal(
            DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder["top.qcow2"]))).Kind);
        await using BlockNode top = await Images.OpenAsync(
            folder["top.qcow2"], policy: OpenPolicy.Default with { IgnoreIdMismatch = true });
        Assert.NotNull(top.Child("backing")!.Child("backing"));
        await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(
            // what is given counts
            folder[$"mid.{ending}"], options: "ignore_id_mismatch=off", policy: OpenPolicy.Default with { IgnoreIdMismatch = true }));
    }

    /// <summary>What the child of another disk says, with the names of the files made equal.</summary>
    private static async Task<string> RefusalAsync(string ending, string format)
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder[$"base.{ending}"], format, "size=1M");
        await Images.CreateAsync(folder[$"top.{ending}"], format, $"backing_file=base.{ending}");
        File.Delete(folder[$"base.{ending}"]);
        await Images.CreateAsync(folder[$"base.{ending}"], format, "size=1M");
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder[$"top.{ending}"]));
        return refused.Message.Replace($".{ending}", "", StringComparison.Ordinal);
    }
}
