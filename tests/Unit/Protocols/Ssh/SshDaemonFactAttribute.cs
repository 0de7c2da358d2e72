namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>A fact that needs OpenSSH's server and client.</summary>
public sealed class SshDaemonFactAttribute : FactAttribute
{
    public SshDaemonFactAttribute() => Skip = SshDaemon.WhyNot;
}

/// <summary>A theory that needs OpenSSH's server and client.</summary>
public sealed class SshDaemonTheoryAttribute : TheoryAttribute
{
    public SshDaemonTheoryAttribute() => Skip = SshDaemon.WhyNot;
}
