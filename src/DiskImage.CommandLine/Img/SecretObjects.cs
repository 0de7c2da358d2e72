using System.Security;
using System.Text;
using DiskImage.Options;

namespace DiskImage.CommandLine;

/// <summary>The secrets of <c>--object secret,id=…</c>, by their identifiers.</summary>
internal static class SecretObjects
{
    private const int MostBytes = 64 << 10; // of a secret; ours

    /// <summary>Reads the objects that were given.</summary>
    /// <exception cref="CommandException">Another object than a secret, or a secret that cannot be read.</exception>
    public static Dictionary<string, SecureString> Of(IEnumerable<string> objects, ProgramIO io)
    {
        var secrets = new Dictionary<string, SecureString>(StringComparer.Ordinal);
        foreach (string text in objects)
        {
            string type = text.Split(',', 2)[0];
            type = type.StartsWith("qom-type=", StringComparison.Ordinal) ? type[9..] : type;
            if (type is not "secret")
            {
                throw new CommandException($"invalid object type: {type}");
            }
            var values = OptionSchema.Split(text).Skip(1).ToDictionary(p => p.Key, p => (string?)p.Value, StringComparer.Ordinal);
            string id = values.GetValueOrDefault("id") ?? throw new CommandException("Parameter 'id' is missing");
            secrets[id] = One(values, io);
        }
        return secrets;
    }

    private static SecureString One(Dictionary<string, string?> values, ProgramIO io)
    {
        if (values.ContainsKey("keyid"))
        {
            throw new CommandException("Secrets that are encrypted with another (keyid=) are not supported: give the secret in a file");
        }
        (string? data, string? file) = (values.GetValueOrDefault("data"), values.GetValueOrDefault("file"));
        byte[] bytes = (data, file) switch
        {
            (not null, null) => Encoding.UTF8.GetBytes(data),
            (null, not null) => Read(io.Full(file)),
            (null, null) => throw new CommandException("Must provide 'file' or 'data' with secret"),
            _ => throw new CommandException("'file' and 'data' are mutually exclusive"),
        };
        if (values.GetValueOrDefault("format") is "base64")
        {
            try
            {
                bytes = Convert.FromBase64String(Encoding.ASCII.GetString(bytes));
            }
            catch (FormatException)
            {
                throw new CommandException("The secret is not base64");
            }
        }
        var secret = new SecureString();
        foreach (char character in Encoding.UTF8.GetString(bytes))
        {
            secret.AppendChar(character);
        }
        Array.Clear(bytes);
        secret.MakeReadOnly();
        return secret;
    }

    private static byte[] Read(string path)
    {
        try
        {
            using FileStream file = File.OpenRead(path);
            byte[] bytes = new byte[MostBytes];
            int count = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            return bytes[..count];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Unable to read {path}: {e.Message}");
        }
    }
}
