using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>What ssh makes of its configuration for one server, as <c>ssh -G</c> tells it.</summary>
internal sealed class SshConfiguration
{
    private readonly Dictionary<string, string> _settings = new(StringComparer.OrdinalIgnoreCase);

    private SshConfiguration(string told)
    {
        foreach (string[] pair in told.Split('\n').Select(l => l.TrimEnd('\r').Split(' ', 2)).Where(p => p.Length == 2))
        {
            _ = _settings.TryAdd(pair[0], pair[1]);
        }
    }

    /// <summary>The first value of a setting; null where it has none.</summary>
    public string? this[string name] => _settings.GetValueOrDefault(name);

    /// <summary>Asks ssh.</summary>
    /// <exception cref="DiskImageException">What is wrong with the configuration.</exception>
    public static async ValueTask<SshConfiguration> ReadAsync(SshProgram program, SshPlace place, CancellationToken cancellationToken)
    {
        (string output, SshWords? words) = await SshProcess.AskAsync(
            program.Find("ssh"), program.Destination(place).Prepend("-G"), cancellationToken).ConfigureAwait(false);
        return words is null
            ? new SshConfiguration(output)
            : throw new DiskImageException(words.Kind, $"{place.Address}: cannot be reached: {words.Text}", place.Address);
    }
}
