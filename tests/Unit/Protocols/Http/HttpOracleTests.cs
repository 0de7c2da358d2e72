using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Tests.Protocols.Nbd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Http;

/// <summary>Objects of nginx.</summary>
public sealed class HttpOracleTests : IDisposable
{
    private readonly TestFolder _folder = new();
    private readonly int _port = NbdProcess.FreePort(), _secure = NbdProcess.FreePort();

    public void Dispose() => _folder.Dispose();

    private async Task<NbdProcess> StartAsync()
    {
        Certificates.Write(_folder.Root);
        Directory.CreateDirectory(_folder["www"]);
        await File.WriteAllTextAsync(
            _folder["nginx.conf"],
            $$"""
            daemon off; master_process off; pid {{_folder["pid"]}}; error_log {{_folder["error.log"]}};
            events { worker_connections 64; }
            http {
              access_log off;
              client_body_temp_path {{_folder["t1"]}}; proxy_temp_path {{_folder["t2"]}}; fastcgi_temp_path {{_folder["t3"]}};
              uwsgi_temp_path {{_folder["t4"]}}; scgi_temp_path {{_folder["t5"]}};
              server { listen 127.0.0.1:{{_port}}; root {{_folder["www"]}};
                location /moved/ { return 302 /disk.qcow2; }
                location /whole/ { max_ranges 0; alias {{_folder["www"]}}/; } }
              server { listen 127.0.0.1:{{_secure}} ssl; root {{_folder["www"]}};
                ssl_certificate {{_folder["server-cert.pem"]}}; ssl_certificate_key {{_folder["server-key.pem"]}}; }
            }
            """);
        return await NbdProcess.StartAsync("nginx", _port, "-c", _folder["nginx.conf"], "-e", _folder["error.log"]);
    }

    [OracleFact("nginx")]
    public async Task Images_of_nginx_read_as_files_do()
    {
        await using NbdProcess server = await StartAsync();
        await Images.MakeRawAsync(_folder["www/disk.raw"], 6 << 20, seed: 4);
        await Programs.QemuImgAsync("convert", "-f", "raw", "-O", "qcow2", "-c", _folder["www/disk.raw"], _folder["www/disk.qcow2"]);
        await using OpenedImage expected = await Images.Opener.OpenAsync(
            new OpenRequest(_folder["www/disk.raw"]) { Format = "raw" }, CancellationToken.None);
        foreach (string locator in new[]
        {
            $"http://127.0.0.1:{_port}/disk.qcow2", $"http://127.0.0.1:{_port}/moved/", $"http://127.0.0.1:{_port}/disk.raw",
            $$"""json:{"file":{"driver":"https","url":"https://127.0.0.1:{{_secure}}/disk.qcow2","sslverify":false} }""",
        })
        {
            await using OpenedImage image = await Images.Opener.OpenAsync(new OpenRequest(locator), CancellationToken.None);
            Assert.Equal(locator.EndsWith("raw", StringComparison.Ordinal) ? "raw" : "qcow2", image.Format.Name);
            CompareResult result = await new CompareJob(expected.Node, image.Node, strict: false).RunAsync(null, CancellationToken.None);
            Assert.True(result.Identical, locator);
        }
        var untrusted = await Assert.ThrowsAsync<DiskImageException>(async () => await Images.Opener.OpenAsync(
            new OpenRequest($"https://127.0.0.1:{_secure}/disk.qcow2"), CancellationToken.None));
        Assert.Contains("TLS", untrusted.Message, StringComparison.Ordinal);
        var whole = await Assert.ThrowsAsync<DiskImageException>(async () => await Images.Opener.OpenAsync(
            new OpenRequest($"http://127.0.0.1:{_port}/whole/disk.raw"), CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Unsupported, whole.Kind);
    }

    [OracleFact("nginx")]
    public async Task A_file_that_nginx_has_anew_is_another_object()
    {
        await using NbdProcess server = await StartAsync();
        await File.WriteAllBytesAsync(_folder["www/a"], new byte[1 << 20]);
        await using OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest($"http://127.0.0.1:{_port}/a") { Format = "raw" }, CancellationToken.None);
        await image.Node.ReadAsync(0, new byte[10]);
        await File.WriteAllBytesAsync(_folder["www/a"], new byte[2 << 20]);
        var e = await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.ReadAsync(900_000, new byte[10]));
        Assert.Contains("become another", e.Message, StringComparison.Ordinal);
    }
}
