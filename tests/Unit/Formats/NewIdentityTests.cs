using DiskImage.Block;
using DiskImage.Formats;

namespace DiskImage.Tests.Formats;

/// <summary>
/// Identifiers and times of reproducible images. Their bytes are compared by the cmdlets' tests, which can set the environment.
/// </summary>
public sealed class NewIdentityTests
{
    private static readonly DateTimeOffset s_epoch = DateTimeOffset.FromUnixTimeSeconds(1_700_000_000);

    [Theory]
    [InlineData("0", 0)]
    [InlineData("1700000000", 1_700_000_000)]
    [InlineData("253402300799", 253_402_300_799)]
    public void The_variable_is_seconds(string value, long seconds)
        => Assert.Equal(seconds, NewIdentity.Epoch(value)!.Value.ToUnixTimeSeconds());

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    public void No_variable_is_no_time(string? value) => Assert.Null(NewIdentity.Epoch(value));

    [Theory]
    [InlineData("yesterday")]
    [InlineData("-1")]
    [InlineData("1.5")]
    [InlineData(" 1")]
    [InlineData("253402300800")]
    [InlineData("99999999999999999999")]
    public void Anything_else_is_an_error(string value)
    {
        DiskImageException error = Assert.Throws<DiskImageException>(() => NewIdentity.Epoch(value));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains(value, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_same_gives_the_same_and_anything_else_another()
    {
        Guid id = NewIdentity.Derived(s_epoch, "disk", [512L, null, "a"]);
        Assert.Equal(id, NewIdentity.Derived(s_epoch, "disk", [512L, null, "a"]));
        Assert.Equal(
            5,
            new[]
            {
                id, NewIdentity.Derived(
                    s_epoch.AddSeconds(1), "disk", [512L, null, "a"]), NewIdentity.Derived(s_epoch, "data", [512L, null, "a"]),
                NewIdentity.Derived(s_epoch, "disk", [513L, null, "a"]), NewIdentity.Derived(s_epoch, "disk", [512L, "a"]),
            }.Distinct().Count());
        Assert.Equal(8, id.Version);
        Assert.InRange(id.Variant, 8, 11);
    }
}
