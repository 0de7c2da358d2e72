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
        CultureInfo.CurrentCulture = CultureInfo.GetCultureInfo("de-DE");
        try
        {
            await using var node = new MemoryNode(new byte[12_345]);
            DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await node.ReadAsync(20_000, new byte[1_000]));
            Assert.Contains("1,000 bytes at offset 20,000 reach outside its 12,345 bytes", e.Message, StringComparison.Ordinal);
            var findings = new CheckFindings();
            findings.Leak($"{1234567:#,0} bytes and {0.5}", "", 0, 1);
            findings.Warning("Kind", "as it is: 1.234");
            Assert.Equal("1,234,567 bytes and 0.5; as it is: 1.234", string.Join("; ", findings.List.Select(f => f.Message)));
        }
        finally
        {
            CultureInfo.CurrentCulture = before;
        }
    }
}
