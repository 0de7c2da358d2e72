using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>Our client with OpenSSH's server.</summary>
[System.Runtime.Versioning.SupportedOSPlatform("linux")] // or they are skipped
public sealed class SshOracleTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private static async Task<OpenedImage> OpenAsync(ImageOpener opener, string locator, bool writable = false)
        => await opener.OpenAsync(new OpenRequest(locator) { Format = "raw", Writable = writable }, CancellationToken.None);

    private async Task<byte[]> MakeAsync(string name, int length = 3 << 20, int seed = 5)
    {
        byte[] contents = new byte[length];
        new Random(seed).NextBytes(contents.AsSpan(length / 3, length / 3));
        await Images.WriteSparseAsync(_folder[name], contents);
        return contents;
    }

    private static async Task ConvertAsync(ImageOpener opener, string source, string target, string format, TargetMode mode = TargetMode.New)
    {
        await using OpenedImage image = await opener.OpenAsync(new OpenRequest(source), CancellationToken.None);
        object options = ((ICreatable)opener.Registry.Format(format)).CreateOptions.Bind([new("size", image.Node.Length)]);
        await using NewImage made = await new ImageCreator(opener).CreateAsync(
            target, opener.Registry.Format(format), options, mode, null, CancellationToken.None);
        await new ConvertJob(image.Node, made.Node, new ConvertOptions()).RunAsync(null, CancellationToken.None);
        await made.CompleteAsync(durable: true, CancellationToken.None);
    }

    private static async Task<int> LoginsAsync(SshDaemon server) => (await server.LogAsync()).Split("Accepted publickey").Length - 1;

    [SshDaemonFact]
    public async Task A_conversion_logs_in_once_and_what_was_left_is_taken_only_in_the_same_way_while_it_answers()
    {
        _ = await MakeAsync("disk.raw");
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        ImageOpener opener = server.Opener();
        string target = server.Uri(_folder["new.qcow2"]);
        _ = await new ImageCreator(opener).LookAsync(target, TargetMode.New, CancellationToken.None);
        await ConvertAsync(opener, _folder["disk.raw"], target, "qcow2");
        await using (OpenedImage made = await opener.OpenAsync(new OpenRequest(target), CancellationToken.None))
        {
            Assert.Equal(3 << 20, made.Node.Length);
        }
        Assert.Equal(1, await LoginsAsync(server));

        await using (await OpenAsync(opener, server.Uri(_folder["disk.raw"])))
        {
            await using OpenedImage beside = await OpenAsync(opener, server.Uri(_folder["disk.raw"])); // two at a time: two connections
        }
        Assert.Equal(2, await LoginsAsync(server));
        await using (await OpenAsync(opener, server.Uri(_folder["disk.raw"], "?host_key_check=no")))
        {
            Assert.Equal(3, await LoginsAsync(server));
        }
        await server.CutAsync();
        await using (await OpenAsync(opener, server.Uri(_folder["disk.raw"])))
        {
            Assert.Equal(4, await LoginsAsync(server));
        }
    }

    [SshDaemonFact]
    public async Task What_is_written_is_kept_and_the_length_follows()
    {
        byte[] model = await MakeAsync("disk.raw");
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        var warnings = new List<string>();
        await using (OpenedImage image = await OpenAsync(server.Opener(w => warnings.Add(w.ToString())), server.Uri(_folder["disk.raw"]), writable: true))
        {
            Assert.Equal(model.Length, image.Node.Length);
            var random = new Random(7);
            for (int i = 0; i < 60; i++)
            {
                int offset = random.Next(model.Length - 1), length = random.Next(1, Math.Min(model.Length - offset, 900_000));
                switch (random.Next(4))
                {
                    case 0:
                        random.NextBytes(model.AsSpan(offset, length));
                        await image.Node.WriteAsync(offset, model.AsMemory(offset, length));
                        break;
                    case 1:
                        model.AsSpan(offset, length).Clear();
                        await image.Node.WriteZeroesAsync(offset, length);
                        break;
                    case 2:
                        await image.Node.FlushAsync();
                        break;
                    default:
                        byte[] read = new byte[length];
                        await image.Node.ReadAsync(offset, read);
                        Assert.True(model.AsSpan(offset, length).SequenceEqual(read));
                        break;
                }
            }
            await image.Node.ResizeAsync(5 << 20);
            Assert.Equal(5 << 20, new FileInfo(_folder["disk.raw"]).Length);
            byte[] tail = new byte[2 << 20];
            await image.Node.ReadAsync(3 << 20, tail);
            Assert.DoesNotContain(tail, b => b != 0);
            await image.Node.ResizeAsync(1 << 20);
            Assert.Equal(1 << 20, image.Node.Length);
        }
        Assert.Empty(warnings);
        Assert.True((await File.ReadAllBytesAsync(_folder["disk.raw"])).AsSpan().SequenceEqual(model.AsSpan(0, 1 << 20)));
    }

    [SshDaemonTheory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    [InlineData("vmdk")]
    public async Task Images_are_made_and_replaced_in_one_step_and_read_back(string format)
    {
        byte[] model = await MakeAsync("disk.raw");
        Directory.CreateDirectory(_folder["far away"]);
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        string path = _folder["far away/a b#?.img"], uri = server.Uri(string.Join('/', path.Split('/').Select(System.Uri.EscapeDataString)));
        ImageOpener opener = server.Opener();
        await ConvertAsync(opener, _folder["disk.raw"], uri, format);
        Assert.Equal([path], Directory.GetFiles(_folder["far away"]));
        await Programs.CompareAsync(_folder["disk.raw"], "raw", path, format);
        await ConvertAsync(opener, uri, _folder["back.raw"], "raw");
        Assert.True((await File.ReadAllBytesAsync(_folder["back.raw"])).AsSpan().SequenceEqual(model));

        var taken = await Assert.ThrowsAsync<DiskImageException>(() => ConvertAsync(opener, _folder["disk.raw"], uri, format));
        Assert.Equal(DiskImageErrorKind.AlreadyExists, taken.Kind);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupExecute);
        foreach (TargetMode mode in new[] { TargetMode.Replace, TargetMode.InPlace })
        {
            await ConvertAsync(opener, _folder["disk.raw"], uri, format, mode);
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupExecute, File.GetUnixFileMode(path));
            await Programs.CompareAsync(_folder["disk.raw"], "raw", path, format);
        }
        Assert.Equal([path], Directory.GetFiles(_folder["far away"]));
    }
}
