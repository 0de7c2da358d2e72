using DiskImage.Block;

namespace DiskImage.Tests.Block;

public sealed class PrintableTests
{
    [Theory]
    [InlineData("", "")]
    [InlineData("disk.qcow2", "disk.qcow2")]
    [InlineData("käse – 漢字 😀.img", "käse – 漢字 😀.img")]
    [InlineData("\u001b[2Jx", "\\u001b[2Jx")]
    [InlineData("\u001b]0;title\u0007", "\\u001b]0;title\\u0007")]
    [InlineData("a\r\nWARNING: b\t", "a\\u000d\\u000aWARNING: b\\u0009")]
    [InlineData("\u007f\u0085\u009b31m", "\\u007f\\u0085\\u009b31m")]
    [InlineData("exe.\u202egpj\u2066\u200f\u061c", "exe.\\u202egpj\\u2066\\u200f\\u061c")]
    [InlineData("a\u2028b\u2029", "a\\u2028b\\u2029")]
    [InlineData("\0", "\\u0000")]
    public void What_a_terminal_would_obey_is_escaped(string text, string shown) => Assert.Equal(shown, Printable.Of(text));

    [Theory]
    [InlineData("iscsi://me%open sesame@host:3260/iqn.x:y/1: no", "iscsi://me@host:3260/iqn.x:y/1: no")]
    [InlineData("'http://me:a@b@host/x' and https://host:1/a@b", "'http://me@host/x' and https://host:1/a@b")]
    public void The_password_in_a_URL_is_not_shown(string text, string shown) => Assert.Equal(shown, Printable.Of(text));

    [Fact]
    public void Halves_of_surrogate_pairs_are_escaped_and_whole_ones_kept()
    {
        Assert.Equal("\\ud83dx\\ude00😀", Printable.Of("\ud83dx\ude00😀"));
        Assert.Equal("\\ud83d", Printable.Of("\ud83d"));
    }

    [Fact]
    public void Text_without_any_is_the_same_object()
    {
        string text = new('x', 100);
        Assert.Same(text, Printable.Of(text));
        Assert.Equal("", Printable.Of(null));
    }

    [Fact]
    public void Errors_and_findings_are_printable_and_their_values_raw()
    {
        var error = new DiskImageException(DiskImageErrorKind.NotFound, "\u001b[31m: gone", "\u001b[31m");
        Assert.Equal("\\u001b[31m: gone", error.Message);
        Assert.Equal("\u001b[31m", error.Path);
        var finding = new CheckFinding("Parent", CheckSeverity.Warning, "names '\u009b1m'");
        Assert.Equal("names '\\u009b1m'", finding.Message);
        Assert.Equal("Warning: names '\\u009b1m'", finding.ToString());
    }
}
