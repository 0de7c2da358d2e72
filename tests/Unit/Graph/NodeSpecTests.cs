using System.Collections;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Options;

namespace DiskImage.Tests.Graph;

public sealed class NodeSpecTests
{
    [Theory]
    [InlineData("driver=qcow2,file.driver=file,file.filename=a.qcow2,file.locking=off", """json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2","locking":"off"}}""")]
    [InlineData("file.filename=a,,b.img,driver=raw,offset=1M", """json:{"driver":"raw","file":{"filename":"a,b.img"},"offset":"1M"}""")]
    [InlineData("driver=quorum,children.1=b,children.0=a,vote-threshold=2", """json:{"driver":"quorum","children":["a","b"],"vote-threshold":"2"}""")]
    public void Dotted_text_becomes_a_tree(string text, string json)
        => Assert.Equal(json, NodeSpec.From(OptionSchema.Split(text)).ToString());

    [Theory]
    [InlineData("""json:{"driver":"qcow2","file":{"driver":"file","filename":"a"},"backing":null}""")]
    [InlineData("""json:{"driver":"raw","file":"node","offset":512,"read-only":true}""")]
    [InlineData("""json:{"driver":"nbd","server":{"host":"h","port":"1","type":"inet"}}""")]
    [InlineData("""json:{"driver":"quorum","children":["a",{"driver":"null-co","size":1}],"vote-threshold":2}""")]
    [InlineData("""json:{"filename":"é \"quoted\" \\ \u001b"}""")]
    [InlineData("""json:{"a":1.5}""")]
    public void Canonical_text_is_read_back_as_itself(string json)
    {
        string once = NodeSpecJson.Read(json).ToString();
        Assert.Equal(once, NodeSpecJson.Read(once).ToString());
    }

    [Theory]
    [InlineData("json:{'driver':'raw'}", "json:{\"driver\":\"raw\"}")]
    [InlineData("json:{ 'filename': 'it\\'s \"a\" \\\\', \"b\": \"c's\" }", "json:{\"b\":\"c's\",\"filename\":\"it's \\\"a\\\" \\\\\"}")]
    [InlineData("json:{\"a\":\"\\'\"}", "json:{\"a\":\"'\"}")]
    public void Text_may_stand_between_single_quotes(string json, string canonical)
        => Assert.Equal(canonical, NodeSpecJson.Read(json).ToString());

    [Fact]
    public void Tables_json_and_dotted_names_say_the_same()
    {
        var table = new Hashtable
        {
            ["driver"] = "raw",
            ["offset"] = 512,
            ["file"] = new Hashtable { ["driver"] = "file", ["filename"] = "x.img" },
        };
        string expected = """json:{"driver":"raw","file":{"driver":"file","filename":"x.img"},"offset":512}""";
        Assert.Equal(expected, NodeSpec.From(OptionSchema.Values(table)).ToString());
        Assert.Equal(expected, NodeSpecJson.Read("""json:{"file.filename":"x.img","offset":512,"driver":"raw","file":{"driver":"file"}}""").ToString());
    }

    [Fact]
    public void Children_are_descriptions_names_or_none()
    {
        NodeSpec spec = NodeSpecJson.Read("""json:{"driver":"qcow2","file":{"filename":"a"},"backing":null,"data-file":"store","server.host":"h","l2-cache-size":"1M"}""");
        Assert.Equal("a", Assert.IsType<NodeSpec>(spec.Child("file")).FileName);
        Assert.True(spec.Has("backing"));
        Assert.Null(spec.Child("backing"));
        Assert.Equal("store", spec.Child("data-file"));
        Assert.False(spec.Has("other"));
        Assert.Equal(
            "l2-cache-size=1M server.host=h",
            string.Join(' ', spec.Options(r => r is "file" or "backing" or "data-file").Select(o => $"{o.Key}={o.Value}")));
    }

    [Fact]
    public void One_description_over_another()
    {
        NodeSpec user = NodeSpec.From(OptionSchema.Split("file.locking=off,backing.driver=raw"));
        NodeSpec path = NodeSpecJson.Read("""json:{"driver":"qcow2","file":{"filename":"a","locking":"on"}}""");
        Assert.Equal("""json:{"driver":"qcow2","backing":{"driver":"raw"},"file":{"filename":"a","locking":"off"}}""", user.Over(path).ToString());
        Assert.Equal("""json:{"driver":"raw","file":{"filename":"a","locking":"on"}}""", path.With("driver", "raw").ToString());
        Assert.Equal("""json:{"driver":"qcow2"}""", path.Without("file").ToString());
    }

    [Theory]
    [InlineData("json:")]
    [InlineData("json:{")]
    [InlineData("json:[]")]
    [InlineData("json:7")]
    [InlineData("json:null")]
    [InlineData("json:{\"a\":1,\"a.b\":2}")]
    [InlineData("json:{\"a.b\":1,\"a\":{\"b\":2}}")]
    [InlineData("json:{\"\":1}")]
    [InlineData("json:{\"a..b\":1}")]
    [InlineData("json:{'a':'b}")]
    [InlineData("json:{'a':'b\\")]
    [InlineData("json:{\"\\ud800\":1}")]
    public void What_is_not_understood_is_an_option_error(string text)
        => Assert.Equal(DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(() => NodeSpecJson.Read(text)).Kind);

    [Fact]
    public void Half_a_surrogate_pair_is_an_option_error()
        => Assert.Throws<DiskImageException>(() => NodeSpecJson.Read($"json:{{\"a\":\"{(char)0xD800}\"}}"));

    [Fact]
    public void Descriptions_are_bounded()
    {
        string deep = string.Join('.', Enumerable.Repeat("a", NodeSpec.MaximumDepth + 1));
        Assert.Throws<DiskImageException>(() => NodeSpec.From([new(deep, 1)]));
        Assert.Throws<DiskImageException>(() => NodeSpec.From(
            Enumerable.Range(0, NodeSpec.MaximumMembers + 1).Select(i => new KeyValuePair<string, object?>($"a{i}", i))));
        object nested = "x";
        for (int i = 0; i < 100; i++)
        {
            nested = new Hashtable { ["a"] = nested };
        }
        Assert.Throws<DiskImageException>(() => NodeSpec.From([new("a", nested)]));
    }
}
