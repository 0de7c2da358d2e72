using System.Net;
using DiskImage.Block;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Tests.Protocols;
using DiskImage.Tests.Protocols.Nbd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Exports;

/// <summary>NBD under TLS with certificates, ours and others', in both roles.</summary>
public sealed class ExportTlsTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public ExportTlsTests() => Certificates.Write(_folder.Root);

    public void Dispose() => _folder.Dispose();

    private string Described(int port, string more = "")
        => $$"""json:{"driver":"nbd","server.host":"127.0.0.1","server.port":{{port}},"tls-creds":"{{_folder.Root}}"{{more}}}""";

    private static async Task<ExportServer> ServeAsync(string folder)
        => await ExportServer.StartAsync(
            new IPEndPoint(IPAddress.Loopback, 0), [new ExportDisk("a", new MemoryNode(new byte[5 << 20]))],
            ExportSecurity.ByCertificate(folder), CancellationToken.None);

    private static async Task<OpenedImage> OpenAsync(string locator)
        => await Images.Opener.OpenAsync(new OpenRequest(locator) { Format = "raw", Writable = true }, CancellationToken.None);

    private static async Task ExerciseAsync(string locator)
    {
        await using OpenedImage image = await OpenAsync(locator);
        byte[] data = new byte[3 << 20];
        new Random(2).NextBytes(data);
        await Task.WhenAll(Enumerable.Range(0, 6).Select(
            async i => await image.Node.WriteAsync(i << 19, data.AsMemory(i << 19, 1 << 19))));
        byte[] read = new byte[data.Length];
        await image.Node.ReadAsync(0, read);
        Assert.True(data.AsSpan().SequenceEqual(read));
    }

    [Fact]
    public async Task Ours_with_ours()
    {
        await using ExportServer server = await ServeAsync(_folder.Root);
        int port = ((IPEndPoint)server.Address).Port;
        await ExerciseAsync(Described(port));
        var clear = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync($"nbd://127.0.0.1:{port}/a"));
        Assert.Equal(DiskImageErrorKind.AccessDenied, clear.Kind);
        var unknown = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync($"nbds://127.0.0.1:{port}/a")); // the system trusts it not
        Assert.Contains("TLS", unknown.Message, StringComparison.Ordinal);
        var elsewhere = await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync(Described(port, ",\"tls-hostname\":\"example.org\"")));
        Assert.Contains("TLS", elsewhere.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_client_without_a_certificate_is_not_let_in_where_one_is_wanted()
    {
        await using ExportServer server = await ServeAsync(_folder.Root);
        File.Delete(_folder["client-cert.pem"]);
        await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(Described(((IPEndPoint)server.Address).Port)));
    }

    [OracleFact("nbdkit")]
    public async Task Our_client_with_nbdkit()
    {
        int port = NbdProcess.FreePort();
        await using NbdProcess server = await NbdProcess.StartAsync(
            "nbdkit", port, "--foreground", "--ipaddr=127.0.0.1", $"--port={port}", "--tls=require", "--tls-verify-peer",
            $"--tls-certificates={_folder.Root}", "memory", "5M");
        await ExerciseAsync(Described(port));
    }

    [OracleFact("nbdkit")]
    public async Task A_key_that_nbdkit_knows_too()
    {
        int port = NbdProcess.FreePort();
        string folder = Directory.CreateDirectory(_folder["psk"]).FullName, keys = Path.Combine(folder, "keys.psk");
        await File.WriteAllTextAsync(keys, $"me:{new string('d', 64)}\n");
        await using NbdProcess server = await NbdProcess.StartAsync(
            "nbdkit", port, "--foreground", "--ipaddr=127.0.0.1", $"--port={port}", "--tls=require", $"--tls-psk={keys}", "memory", "5M");
        string locator = Described(port, ",\"tls-username\":\"me\"").Replace(_folder.Root, folder, StringComparison.Ordinal);
        await ExerciseAsync(locator);
        await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync(locator.Replace("\"me\"", "\"you\"", StringComparison.Ordinal)));
    }

    [OracleFact("nbdcopy")]
    public async Task A_key_that_both_sides_know()
    {
        string folder = Directory.CreateDirectory(_folder["keys"]).FullName;
        await File.WriteAllTextAsync(Path.Combine(folder, "keys.psk"), $"qemu:{new string('a', 64)}\nother:{new string('b', 64)}\n");
        string Locator(int port, string user) => Described(port, $",\"tls-username\":\"{user}\"").Replace(_folder.Root, folder, StringComparison.Ordinal);
        await using ExportServer server = await ExportServer.StartAsync(
            new IPEndPoint(IPAddress.Loopback, 0), [new ExportDisk("a", new MemoryNode(new byte[5 << 20]))],
            ExportSecurity.ByKeys(Path.Combine(folder, "keys.psk")), CancellationToken.None);
        int own = ((IPEndPoint)server.Address).Port;
        await ExerciseAsync(Locator(own, "qemu"));
        await ExerciseAsync(Locator(own, "other"));
        await Programs.RunAsync(
            "nbdcopy", $"nbds://qemu@127.0.0.1:{own}/a?tls-psk-file={Path.Combine(folder, "keys.psk")}", _folder["copy.raw"]);
        await File.WriteAllTextAsync(Path.Combine(folder, "keys.psk"), $"qemu:{new string('c', 64)}\n");
        var e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(Locator(own, "qemu")));
        Assert.DoesNotContain("cccc", e.ToString(), StringComparison.Ordinal);
    }

    [OracleFact("qemu-nbd")]
    public async Task Our_client_with_QemuNbd()
    {
        int port = NbdProcess.FreePort();
        await Images.MakeRawAsync(_folder["disk.raw"], 5 << 20, seed: 1);
        await using NbdProcess server = await NbdProcess.StartAsync(
            "qemu-nbd", port, "--persistent", "--bind=127.0.0.1", $"--port={port}", "--shared=0", "--format=raw",
            $"--object=tls-creds-x509,id=t,endpoint=server,dir={_folder.Root},verify-peer=on", "--tls-creds=t", _folder["disk.raw"]);
        await ExerciseAsync(Described(port));
    }

    [OracleFact("nbdcopy")]
    public async Task Our_server_with_libnbd_and_qemu()
    {
        await using ExportServer server = await ServeAsync(_folder.Root);
        int port = ((IPEndPoint)server.Address).Port;
        await Images.MakeRawAsync(_folder["disk.raw"], 5 << 20, seed: 1);
        string uri = $"nbds://127.0.0.1:{port}/a?tls-certificates={_folder.Root}";
        await Programs.RunAsync("nbdcopy", _folder["disk.raw"], uri);
        await Programs.RunAsync("nbdcopy", uri, _folder["copy.raw"]);
        byte[] copied = await File.ReadAllBytesAsync(_folder["copy.raw"]);
        Assert.True((await File.ReadAllBytesAsync(_folder["disk.raw"])).AsSpan().SequenceEqual(copied));
        await Programs.QemuImgAsync(
            "compare", "--object", $"tls-creds-x509,id=t,endpoint=client,dir={_folder.Root}", "--image-opts",
            $"driver=nbd,host=127.0.0.1,port={port},export=a,tls-creds=t", $"driver=raw,file.filename={_folder["disk.raw"]}");
    }
}
