using DiskImage.Protocols.Ssh;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Ssh;

public sealed class SshCiphersTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr")]
    [InlineData("chacha20-poly1305@openssh.com,aes128-ctr", null)]
    [InlineData("aes256-gcm@openssh.com", "aes256-gcm@openssh.com")]
    public void The_same_ciphers_are_offered_and_AES_GCM_is_first(string all, string? wanted)
        => Assert.Equal(wanted, SshCiphers.QuickFirst(all));

    [OracleTheory("ssh")]
    [InlineData("", true)]
    [InlineData("Host other\n  Ciphers aes256-ctr\n", true)]
    [InlineData("Host there\n  Ciphers aes256-ctr\n", false)]
    [InlineData("Ciphers -chacha20-poly1305@openssh.com\n", false)]
    [InlineData("Ciphers ^aes256-ctr\n", false)]
    public async Task Ciphers_that_somebody_configured_are_left_alone(string lines, bool isOurs)
    {
        await File.WriteAllTextAsync(_folder["config"], lines);
        var program = new SshProgram(_folder["config"]);
        var place = new SshPlace("there", 22, null, "/disk", null, false, null);
        string? chosen = await SshCiphers.ChooseAsync(
            program, place, await SshConfiguration.ReadAsync(program, place, CancellationToken.None), CancellationToken.None);
        bool isQuick = System.Runtime.Intrinsics.X86.Aes.IsSupported || System.Runtime.Intrinsics.Arm.Aes.IsSupported;
        Assert.Equal(isOurs && isQuick, chosen?.StartsWith("aes128-gcm@openssh.com,", StringComparison.Ordinal) ?? false);
        Assert.Equal(isOurs && isQuick, chosen is not null);
    }

    [SshDaemonFact]
    public async Task A_server_without_the_quick_ciphers_is_reached_by_another()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, "Ciphers aes192-ctr");
        await File.WriteAllBytesAsync(_folder["disk"], new byte[4096]);
        await using DiskImage.Graph.OpenedImage image = await server.Opener().OpenAsync(
            new DiskImage.Graph.OpenRequest(server.Uri(_folder["disk"])) { Format = "raw" }, CancellationToken.None);
        Assert.Equal(4096, image.Node.Length);
    }
}
