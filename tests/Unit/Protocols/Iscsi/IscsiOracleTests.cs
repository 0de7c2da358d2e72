using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Protocols.Iscsi;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Iscsi;

/// <summary>Our initiator with the Linux SCSI target, and QEMU's and libiscsi's initiators as judges of what it wrote.</summary>
public sealed class IscsiOracleTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private static async Task<OpenedImage> OpenAsync(
        string locator, bool writable = false, Dictionary<string, SecureString>? secrets = null)
        => await Images.Opener.OpenAsync(
            new OpenRequest(locator) { Format = "raw", Writable = writable, Secrets = secrets ?? [] }, CancellationToken.None);

    private static IscsiNode NodeOf(OpenedImage image) => image.Node.SelfAndBelow().OfType<IscsiNode>().Single();

    private async Task<byte[]> MakeAsync(string name, int length = 3 << 20, int seed = 5)
    {
        byte[] contents = new byte[length];
        new Random(seed).NextBytes(contents.AsSpan(length / 3, length / 3));
        await Images.WriteSparseAsync(_folder[name], contents);
        return contents;
    }

    [OracleTheory(TgtServer.Program)]
    [InlineData("")]
    [InlineData("thin_provisioning=1")]
    public async Task Whatever_is_written_is_there(string parameters)
    {
        byte[] model = await MakeAsync("disk");
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"], parameters.Length > 0 ? parameters : null);
        await using (OpenedImage image = await OpenAsync(server.Url(), writable: true))
        {
            Assert.Equal(model.Length, image.Node.Length);
            await RandomRequests.ExerciseAsync(image.Node, model, seed: 1);
            await image.Node.FlushAsync();
        }
        Assert.Equal(model, await File.ReadAllBytesAsync(_folder["disk"]));
        await File.WriteAllBytesAsync(_folder["model"], model);
        if (Programs.WhyMissing("qemu-img") is null)
        {
            await Programs.CompareAsync(server.Url(), "raw", _folder["model"], "raw");
        }
    }

    [OracleFact("iscsi-ls")]
    public async Task Libiscsis_tools_find_the_units_and_the_length_that_we_find()
    {
        _ = await MakeAsync("disk");
        _ = await MakeAsync("other", 8 << 20);
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"]);
        await server.AddAsync(2, _folder["other"]);
        var listing = new IscsiListing($"iscsi://{server.Portal}");
        var ours = new List<string>();
        await foreach (ListedUnit unit in IscsiTargetList.OfAsync(listing, _ => true, CancellationToken.None))
        {
            ours.Add($"{unit.Target} {unit.Lun}");
        }
        (_, string listed, _) = await Programs.TryAsync("iscsi-ls", "-s", $"iscsi://{server.Portal}");
        string target = "";
        var theirs = new List<string>();
        foreach (string line in listed.Split('\n'))
        {
            target = line.StartsWith("Target:", StringComparison.Ordinal) ? line["Target:".Length..].Split(' ')[0] : target;
            if (line.StartsWith("Lun:", StringComparison.Ordinal) && !line.Contains("CONTROLLER", StringComparison.Ordinal))
            {
                theirs.Add($"{target} {line["Lun:".Length..].Split(' ')[0]}");
            }
        }
        Assert.Equal(theirs, ours.Where(u => !u.EndsWith(" 0", StringComparison.Ordinal)), StringComparer.Ordinal);
        (_, string capacity, _) = await Programs.TryAsync("iscsi-readcapacity16", server.Url(2));
        await using OpenedImage image = await OpenAsync(server.Url(2));
        Assert.Contains($"Total size:{image.Node.Length}\n", capacity);
    }

    [OracleFact(TgtServer.Program)]
    public async Task Several_requests_at_once_do_not_disturb_each_other()
    {
        byte[] model = await MakeAsync("disk", 16 << 20);
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"]);
        await using OpenedImage image = await OpenAsync(server.Url(), writable: true);
        await Task.WhenAll(Enumerable.Range(0, 16).Select(async i =>
        {
            var random = new Random(i);
            for (int n = 0; n < 12; n++)
            {
                int offset = (i << 20) + random.Next(1 << 19), length = random.Next(1, 1 << 19);
                if (random.Next(2) == 0)
                {
                    random.NextBytes(model.AsSpan(offset, length));
                    await image.Node.WriteAsync(offset, model.AsMemory(offset, length));
                }
                else
                {
                    byte[] read = new byte[length];
                    await image.Node.ReadAsync(offset, read);
                    Assert.True(model.AsSpan(offset, length).SequenceEqual(read));
                }
            }
        }));
        byte[] all = new byte[model.Length];
        await image.Node.ReadAsync(0, all);
        Assert.True(model.AsSpan().SequenceEqual(all));
    }

    [OracleFact(TgtServer.Program)]
    public async Task What_is_given_back_shows_as_holes()
    {
        byte[] model = await MakeAsync("disk");
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"], "thin_provisioning=1");
        await using OpenedImage image = await OpenAsync(server.Url(), writable: true);
        var extents = new List<BlockExtent>();
        await foreach (BlockExtent extent in MapAsync(image.Node))
        {
            extents.Add(extent);
        }
        Assert.True(extents.Count >= 3, string.Join('\n', extents));
        Assert.True(extents[0].IsZero && !extents[0].IsData);
        Assert.True(extents[1].IsData);
        await image.Node.DiscardAsync(0, model.Length);
        await image.Node.FlushAsync();
        BlockExtent all = await image.Node.GetExtentAsync(0, model.Length);
        Assert.True(all.IsZero && all.Length == model.Length, all.ToString());
        byte[] read = new byte[model.Length];
        await image.Node.ReadAsync(0, read);
        Assert.Equal(new byte[model.Length], read);
        Assert.True(await image.Node.As<IFastZero>()!.TryZeroFastAsync(0, model.Length, CancellationToken.None));
    }

    [OracleTheory(TgtServer.Program)]
    [InlineData("crc32c", "none", true, false)]
    [InlineData("none-crc32c", "crc32c", true, true)] // tgt goes by its own preference
    [InlineData("crc32c-none", "crc32c-none", true, true)]
    [InlineData("none", "none", false, false)]
    public async Task Digests_are_agreed_on(string header, string data, bool hasHeader, bool hasData)
    {
        byte[] model = await MakeAsync("disk");
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AdminAsync("--op", "update", "--mode", "target", "--tid", "1", "-n", "HeaderDigest", "-v", "CRC32C,None");
        await server.AdminAsync("--op", "update", "--mode", "target", "--tid", "1", "-n", "DataDigest", "-v", "CRC32C,None");
        await server.AddAsync(1, _folder["disk"]);
        string described = $$"""
            json:{"driver":"iscsi","portal":"{{server.Portal}}","target":"{{TgtServer.Target}}","lun":1,
            "header-digest":"{{header}}","data-digest":"{{data}}"}
            """.ReplaceLineEndings("");
        await using OpenedImage image = await OpenAsync(described, writable: true);
        Assert.Equal((hasHeader, hasData), (NodeOf(image).Agreed.HeaderDigest, NodeOf(image).Agreed.DataDigest));
        await RandomRequests.ExerciseAsync(image.Node, model, seed: 2, operations: 30);
    }

    [OracleFact(TgtServer.Program)]
    public async Task A_user_proves_who_it_is_and_so_does_the_target()
    {
        byte[] model = await MakeAsync("disk");
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"]);
        await server.AdminAsync("--op", "new", "--mode", "account", "--user", "me", "--password", "open sesame 12");
        await server.AdminAsync("--op", "bind", "--mode", "account", "--tid", "1", "--user", "me");
        await ReadsAsync(server.Url(user: "me%open sesame 12@"));
        await ReadsAsync(server.Url(user: "me@"), new(StringComparer.Ordinal) { [server.Url()] = Images.Secret("open sesame 12") });
        DiskImageException none = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(server.Url()));
        Assert.Equal(DiskImageErrorKind.WrongSecret, none.Kind);
        DiskImageException wrong = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(server.Url(user: "me%not sesame 12@")));
        Assert.Equal(DiskImageErrorKind.WrongSecret, wrong.Kind);
        Assert.DoesNotContain("not sesame", wrong.ToString(), StringComparison.Ordinal);
        DiskImageException missing = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(server.Url(user: "me@")));
        Assert.Equal(DiskImageErrorKind.SecretRequired, missing.Kind);

        const string Mutual = "?target_user=them&target_password=it%20is%20me%20indeed";
        DiskImageException unproven = await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync(server.Url(user: "me%open sesame 12@") + Mutual));
        Assert.Equal(DiskImageErrorKind.WrongSecret, unproven.Kind);
        await server.AdminAsync("--op", "new", "--mode", "account", "--user", "them", "--password", "it is me indeed");
        await server.AdminAsync("--op", "bind", "--mode", "account", "--tid", "1", "--user", "them", "--outgoing");
        await ReadsAsync(server.Url(user: "me%open sesame 12@") + Mutual);
        DiskImageException other = await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync(server.Url(user: "me%open sesame 12@") + "?target_user=them&target_password=someone%20else"));
        Assert.Equal(DiskImageErrorKind.WrongSecret, other.Kind);
        DiskImageException same = await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync(server.Url(user: "me%open sesame 12@") + "?target_user=them&target_password=open%20sesame%2012"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, same.Kind);

        async Task ReadsAsync(string url, Dictionary<string, SecureString>? secrets = null)
        {
            await using OpenedImage image = await OpenAsync(url, secrets: secrets);
            byte[] read = new byte[model.Length];
            await image.Node.ReadAsync(0, read);
            Assert.Equal(model, read);
            Assert.DoesNotContain("sesame", image.Path + image.Node.Name, StringComparison.Ordinal);
        }
    }

    [OracleFact(TgtServer.Program)]
    public async Task A_file_in_QEMUs_form_says_who_one_is()
    {
        _ = await MakeAsync("disk");
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"]);
        await server.AdminAsync("--op", "new", "--mode", "account", "--user", "me", "--password", "open sesame 12");
        await server.AdminAsync("--op", "bind", "--mode", "account", "--tid", "1", "--user", "me");
        await File.WriteAllTextAsync(_folder["conf"], $"""
            # options
            [iscsi]
              user = "nobody"
              password = "nothing at all"
            [iscsi "{TgtServer.Target}"]
              user = "me"
              password = "open sesame 12"
              header-digest = "NONE"
              timeout = "20"
              initiator-name = "iqn.2026-11.org.example:me"
            """);
        string described = $$"""json:{"driver":"iscsi","portal":"{{server.Portal}}","target":"{{TgtServer.Target}}","lun":1,"config":"{{_folder["conf"]}}"}""";
        await using OpenedImage image = await OpenAsync(described);
        Assert.False(NodeOf(image).Agreed.HeaderDigest);
    }

    [OracleFact(TgtServer.Program)]
    public async Task A_CD_has_blocks_of_2_KiB_and_is_only_read()
    {
        byte[] model = await MakeAsync("disc.iso", 1 << 20);
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(2, _folder["disc.iso"], type: "cd");
        await using OpenedImage image = await OpenAsync(server.Url(2));
        Assert.Equal((model.Length, 2048, "CD-ROM"), (image.Node.Length, NodeOf(image).Unit.BlockSize, NodeOf(image).Unit.Kind));
        byte[] read = new byte[model.Length - 100];
        await image.Node.ReadAsync(77, read);
        Assert.True(model.AsSpan(77, read.Length).SequenceEqual(read));
        Assert.Equal(
            DiskImageErrorKind.ReadOnly,
            (await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(server.Url(2), writable: true))).Kind);
    }

    [OracleFact(TgtServer.Program)]
    public async Task What_cannot_be_had_says_why()
    {
        _ = await MakeAsync("disk");
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"], "readonly=1");
        await FailsAsync(DiskImageErrorKind.ReadOnly, server.Url(), "write-protected", writable: true);
        await FailsAsync(DiskImageErrorKind.NotFound, server.Url(7), "no logical unit 7");
        await FailsAsync(DiskImageErrorKind.Unsupported, server.Url(0), "controller");
        await FailsAsync(DiskImageErrorKind.NotFound, $"iscsi://{server.Portal}/iqn.2026-11.org.example:none/1", "no target");
        await FailsAsync(DiskImageErrorKind.Io, $"iscsi://127.0.0.1:{TgtServer.FreePort()}/{TgtServer.Target}/1", "cannot be reached");
        await server.AdminAsync("--op", "unbind", "--mode", "target", "--tid", "1", "-I", "ALL");
        await server.AdminAsync("--op", "bind", "--mode", "target", "--tid", "1", "-Q", "iqn.2026-11.org.example:other");
        await FailsAsync(DiskImageErrorKind.NotFound, server.Url(), "no target"); // it hides what one may not have

        static async Task FailsAsync(DiskImageErrorKind kind, string url, string says, bool writable = false)
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(url, writable));
            Assert.Equal(kind, error.Kind);
            Assert.Contains(says, error.Message, StringComparison.Ordinal);
        }
    }

    [OracleFact(TgtServer.Program)]
    public async Task A_new_image_takes_the_place_of_what_was_there()
    {
        byte[] old = await MakeAsync("disk", 8 << 20, seed: 6);
        byte[] source = await MakeAsync("source", 8 << 20, seed: 7);
        await using TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"], "thin_provisioning=1");
        await using (OpenedImage from = await OpenAsync(_folder["source"]))
        {
            FormatDriver raw = Images.Registry.Format("raw");
            object options = ((ICreatable)raw).CreateOptions.Bind(OptionSchema.Split($"size={8 << 20}"));
            await using NewImage to = await new ImageCreator(Images.Opener).CreateAsync(
                server.Url(), raw, options, TargetMode.InPlace, null, CancellationToken.None);
            await new ConvertJob(from.Node, to.Node, new ConvertOptions()).RunAsync(null, CancellationToken.None);
            await to.CompleteAsync(durable: true, CancellationToken.None);
        }
        Assert.NotEqual(old, source);
        Assert.Equal(source, await File.ReadAllBytesAsync(_folder["disk"]));
    }

    [OracleFact(TgtServer.Program)]
    public async Task A_target_that_was_away_for_a_while_is_found_again()
    {
        byte[] model = await MakeAsync("disk");
        TgtServer server = await TgtServer.StartAsync(_folder);
        await server.AddAsync(1, _folder["disk"]);
        await using OpenedImage image = await OpenAsync(server.Url(), writable: true);
        await image.Node.WriteAsync(0, model.AsMemory(1 << 20, 1 << 20));
        await server.DisposeAsync();
        File.Delete(_folder[$"c{server.Port}"]);
        ValueTask<int> waiting = ReadAsync();
        await using TgtServer again = await TgtServer.StartAsync(_folder, server.Port);
        await again.AddAsync(1, _folder["disk"]);
        Assert.Equal(1 << 20, await waiting);

        async ValueTask<int> ReadAsync()
        {
            byte[] read = new byte[1 << 20];
            await image.Node.ReadAsync(0, read);
            Assert.True(model.AsSpan(1 << 20, 1 << 20).SequenceEqual(read));
            return read.Length;
        }
    }

    private static async IAsyncEnumerable<BlockExtent> MapAsync(BlockNode node)
    {
        for (long offset = 0; offset < node.Length;)
        {
            BlockExtent extent = await node.GetExtentAsync(offset, node.Length - offset);
            yield return extent;
            offset = extent.End;
        }
    }
}
