using System.Globalization;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Block;

public sealed class WordingTests
{
    [Fact]
    public async Task Numbers_in_errors_and_findings_do_not_follow_the_caller()
    {
        CultureInfo before = CultureInfo.CurrentCulture;
        var german = (CultureInfo)CultureInfo.InvariantCulture.Clone();
        (german.NumberFormat.NumberGroupSeparator, german.NumberFormat.NumberDecimalSeparator) = (".", ",");
        CultureInfo.CurrentCulture = german;
        try
        {
            await using var node = new MemoryNode(new byte[12_345]);
            DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await node.ReadAsync(20_000, new byte[1_000]));
            Assert.Contains("1,000 bytes at offset 20,000 reach outside its 12,345 bytes", e.Message, StringComparison.Ordinal);
            var findings = new CheckFindings();
            findings.Leak($"{1234567:#,0} bytes and {0.5}", "", 0, 1);
            findings.Warning("Kind", "as it is: 1.234");
            Assert.Equal("1.234", $"{1234:#,0}"); // what others say follows
            Assert.Equal("1,234,567 bytes and 0.5; as it is: 1.234", string.Join("; ", findings.List.Select(f => f.Message)));
        }
        finally
        {
            CultureInfo.CurrentCulture = before;
        }
    }

    [Fact]
    public void What_can_be_done_is_worded_by_whoever_says_it_also_inside_of_others()
    {
        var inner = new DiskImageException(
            DiskImageErrorKind.Refused, $"a: no. Allow it with {new Remedy(RemedyKind.References, "LocalFiles")}, or {1000:#,0} times");
        var outer = new DiskImageException(
            DiskImageErrorKind.Refused,
            $"b: cannot be opened: {inner.Wording}; or give {new Remedy(RemedyKind.Format, "raw", ImageRole.Backing)}.");
        Assert.Equal(
            "b: cannot be opened: a: no. Allow it with references as far as LocalFiles, or 1,000 times; or "
                + "give the format raw of the backing image.",
            outer.Message);
        Assert.Equal(
            "b: cannot be opened: a: no. Allow it with <References>, or 1,000 times; or give <Format>.",
            outer.Wording.Say(r => $"<{r.Kind}>"));
        Assert.Equal("LocalFiles raw", string.Join(' ', outer.Wording.Remedies.Select(r => r.Value)));
    }

    [Fact]
    public void Findings_beyond_those_that_are_kept_are_counted_and_not_put_together()
    {
        var findings = new CheckFindings();
        int made = 0;
        for (int i = 0; i < CheckReport.MaxFindings + 1000; i++)
        {
            findings.Corruption("Kind", $"number {++made}");
        }
        Assert.Equal(
            (CheckReport.MaxFindings + 1000L, CheckReport.MaxFindings, CheckReport.MaxFindings),
            (findings.Corruptions, findings.List.Count, made));
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 1000; i++)
        {
            findings.Corruption("Kind", $"number {i:#,0} of {made:#,0} at {before:#,0}");
        }
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 100_000);
    }

    [Fact]
    public void What_can_be_done_stays_with_what_is_said_when_it_is_said_of_a_file()
    {
        Wording said = $"ends too early. Look at all of it with {new Remedy(RemedyKind.Check)}.";
        Wording ofFile = true ? (Wording)$"disk-s002.vmdk: {said}" : said;
        Assert.Equal([new Remedy(RemedyKind.Check)], ofFile.Remedies);
        Assert.Equal($"disk-s002.vmdk: {said}", ofFile.ToString());
    }
}
