using System.Collections;
using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Options;

namespace DiskImage.Tests.Options;

public sealed class OptionSchemaTests
{
    private static readonly OptionSchema s_schema = OptionSchema.Of<Sample>();

    [Fact]
    public void Defaults_are_those_of_the_record()
    {
        Assert.Equal(new Sample(), s_schema.Defaults());
        Assert.Equal(new Sample(), s_schema.Bind([]));
        Assert.Equal("64k", s_schema.Find("cluster_size")!.DefaultText);
        Assert.Equal("second", s_schema.Find("mode")!.DefaultText);
        Assert.Equal("off", s_schema.Find("lazy")!.DefaultText);
        Assert.Equal("", s_schema.Find("name")!.DefaultText);
        Assert.Equal("cluster_size bits lazy mode name limit", string.Join(" ", s_schema.Options.Select(o => o.Name)));
    }

    [Theory]
    [InlineData("cluster_size=1M,bits=8,lazy=on,mode=2nd,name=a b")]
    [InlineData("CLUSTER_SIZE=1M,Bits=8,lazy,mode=SECOND,name=a b")]
    [InlineData(" cluster_size = 1M,,bits=8")]
    public void Text_becomes_the_record(string text)
    {
        if (text.StartsWith(' '))
        {
            // Two commas stand for one: it is part of the value, which is no size then.
            Assert.Equal(
                DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(() => s_schema.Bind(OptionSchema.Split(text))).Kind);
            return;
        }
        Assert.Equal(
            new Sample { ClusterSize = 1 << 20, Bits = 8, Lazy = true, Mode = SampleMode.Two, Name = "a b" },
            s_schema.Bind(OptionSchema.Split(text)));
    }

    [Fact]
    public void Two_commas_are_one_and_an_equals_sign_may_stand_in_a_value()
    {
        var record = (Sample)s_schema.Bind(OptionSchema.Split("name=a,,b=c,,,,d,lazy=on"));
        Assert.Equal("a,b=c,,d", record.Name);
        Assert.True(record.Lazy);
    }

    [Fact]
    public void Dictionaries_and_lists_are_taken_too()
    {
        Sample expected = new() { ClusterSize = 1 << 20, Lazy = true, Name = "7" };
        Assert.Equal(
            expected, s_schema.Bind(OptionSchema.Values(new Hashtable { ["cluster_size"] = "1M", ["lazy"] = true, ["name"] = 7 })));
        Assert.Equal(
            expected, s_schema.Bind(OptionSchema.Values(new object[] { "cluster_size=1M", new Hashtable { ["lazy"] = "yes" }, "name=7" })));
        Assert.Equal(
            expected,
            s_schema.Bind(OptionSchema.Values(
                new Dictionary<string, object?>(StringComparer.Ordinal) { ["cluster_size"] = "1M", ["lazy"] = true, ["name"] = 7 })));
        Assert.Equal(
            expected,
            s_schema.Bind(OptionSchema.Values(
                new SortedList<string, string>(StringComparer.Ordinal) { ["cluster_size"] = "1M", ["lazy"] = "on", ["name"] = "7" })));
        var expando = new System.Dynamic.ExpandoObject();
        expando.TryAdd("cluster_size", "1M");
        expando.TryAdd("lazy", true);
        expando.TryAdd("name", 7);
        Assert.Equal(expected, s_schema.Bind(OptionSchema.Values(expando)));
        Assert.Equal(
            expected,
            s_schema.Bind(OptionSchema.Values(
                new[] { ("cluster_size", "1M"), ("lazy", "on"), ("name", "7") }.Select(p => KeyValuePair.Create(p.Item1, p.Item2)))));
        Assert.Equal(new Sample { Bits = 4 }, s_schema.Bind(OptionSchema.Values(new Dictionary<Version, int>()).Append(new("bits", 4))));
        Assert.Equal(new Sample(), s_schema.Bind(OptionSchema.Values(null)));
        Assert.Equal(DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(() => OptionSchema.Values(42)).Kind);
    }

    [Fact]
    public void The_last_of_two_values_counts() => Assert.Equal(4, ((Sample)s_schema.Bind(OptionSchema.Split("bits=2,bits=4"))).Bits);

    [Theory]
    [InlineData("cluster_size=100", "cluster_size", "100", "a power of two from 512 to 2M")]
    [InlineData("cluster_size=4M", "cluster_size", "4M", "512 to 2M")]
    [InlineData("cluster_size=", "cluster_size", "''", "512 to 2M")]
    [InlineData("cluster_size=on", "cluster_size", "on", "512 to 2M")]
    [InlineData("bits=99", "bits", "99", "from 1 to 64")]
    [InlineData("bits=1.5", "bits", "1.5", "from 1 to 64")]
    [InlineData("bits=3", "bits", "3", "a power of two")]
    [InlineData("bits=99999999999", "bits", "99999999999", "a power of two")]
    [InlineData("lazy=maybe", "lazy", "maybe", "on, off")]
    [InlineData("mode=third", "mode", "third", "one, second")]
    [InlineData("mode=1", "mode", "1", "one, second")]
    [InlineData("limit=-5", "limit", "-5", "at least 0")]
    public void A_wrong_value_names_the_option_the_value_and_what_is_allowed(string text, string option, string value, string allowed)
    {
        DiskImageException error = Assert.Throws<DiskImageException>(() => s_schema.Bind(OptionSchema.Split(text)));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains($"'{option}'", error.Message, StringComparison.Ordinal);
        Assert.Contains(value, error.Message, StringComparison.Ordinal);
        Assert.Contains(allowed, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("clustersize", "cluster_size")]
    [InlineData("cluster_sze", "cluster_size")]
    [InlineData("bit", "bits")]
    [InlineData("nam", "name")]
    public void An_unknown_option_names_the_near_misses(string name, string near)
    {
        DiskImageException error = Assert.Throws<DiskImageException>(() => s_schema.Bind([new(name, "1")]));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains($"'{name}'", error.Message, StringComparison.Ordinal);
        Assert.Contains($"Did you mean '{near}'", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_unknown_option_far_from_all_lists_them()
    {
        DiskImageException error = Assert.Throws<DiskImageException>(() => s_schema.Bind([new("wavelength", "1")]));
        Assert.DoesNotContain("Did you mean", error.Message, StringComparison.Ordinal);
        Assert.Contains("cluster_size, bits, lazy, mode, name, limit", error.Message, StringComparison.Ordinal);
        error = Assert.Throws<DiskImageException>(() => OptionSchema.Empty.Bind([new("x", "1")]));
        Assert.Contains("no options", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Null_is_no_value()
        => Assert.All(s_schema.Options, option => Assert.Throws<DiskImageException>(() => s_schema.Bind([new(option.Name, null)])));

    [Theory]
    [InlineData("0.10", Qcow2Compat.V2)]
    [InlineData("v2", Qcow2Compat.V2)]
    [InlineData("1.1", Qcow2Compat.V3)]
    [InlineData("V3", Qcow2Compat.V3)]
    public void Every_spelling_of_a_version(string text, Qcow2Compat expected)
        => Assert.Equal(expected, ((Qcow2CreateOptions)OptionSchema.Of<Qcow2CreateOptions>().Bind([new("compat", text)])).Compat);

    [Fact]
    public void A_record_within_a_record_is_options_of_the_outer_one()
    {
        OptionSchema schema = OptionSchema.Of<Outer>();
        Assert.Equal("first plain inner.bits inner.name last", string.Join(" ", schema.Options.Select(o => o.Name)));
        Assert.Equal("First Plain InnerBits InnerName Last", string.Join(" ", schema.Options.Select(o => o.PropertyName)));
        Assert.Equal("16", schema.Find("inner.bits")!.DefaultText);
        var made = (Outer)schema.Bind(OptionSchema.Split("inner.bits=4,plain=x,inner.name=n,last=on"));
        Assert.Equal(new Outer { Bare = new() { Plain = "x" }, Inner = new() { Bits = 4, Name = "n" }, Last = true }, made);
        Assert.Equal(new Outer(), schema.Defaults()); // the inner records are each outer one's own
        DiskImageException error = Assert.Throws<DiskImageException>(() => schema.Bind(OptionSchema.Split("inner.bits=99")));
        Assert.Contains("'inner.bits'", error.Message, StringComparison.Ordinal);
        Assert.Throws<DiskImageException>(() => schema.Bind(OptionSchema.Split("bits=4")));
    }

    private sealed record Outer
    {
        [DriverOption("first", "Text")]
        public string? First { get; init; }

        [DriverOptionGroup]
        public InnerPlain Bare { get; init; } = new();

        [DriverOptionGroup("inner.")]
        public InnerSample Inner { get; init; } = new();

        [DriverOption("last", "A switch")]
        public bool Last { get; init; }
    }

    private sealed record InnerPlain
    {
        [DriverOption("plain", "Text")]
        public string? Plain { get; init; }
    }

    private sealed record InnerSample
    {
        [DriverOption("bits", "A number", Minimum = 1, Maximum = 64)]
        public int Bits { get; init; } = 16;

        [DriverOption("name", "Text")]
        public string? Name { get; init; }
    }

    private enum SampleMode
    {
        One,

        [OptionText("second", "2nd")]
        Two,
    }

    private sealed record Sample
    {
        [DriverOption("cluster_size", "A size", IsSize = true, Minimum = 512, Maximum = 2 << 20, PowerOfTwo = true)]
        public long ClusterSize { get; init; } = 65536;

        [DriverOption("bits", "A number", Minimum = 1, Maximum = 64, PowerOfTwo = true)]
        public int Bits { get; init; } = 16;

        [DriverOption("lazy", "A switch")]
        public bool Lazy { get; init; }

        [DriverOption("mode", "A choice")]
        public SampleMode Mode { get; init; } = SampleMode.Two;

        [DriverOption("name", "Text")]
        public string? Name { get; init; }

        [DriverOption("limit", "A number that may be missing", Minimum = 0)]
        public long? Limit { get; init; }

        public int NoOption { get; init; }
    }
}
