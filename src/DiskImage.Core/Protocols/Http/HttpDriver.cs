using System.Net;
using System.Security;
using System.Security.Cryptography;
using System.Text;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Http;

/// <summary>Objects of web servers, read by ranges.</summary>
internal class HttpDriver : ProtocolDriver
{
    public override string Name => "http";

    public override string Description => "An object of a web server, read by ranges: http://host/path";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<HttpOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => [new("url", locator)];

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        var options = (HttpOptions)OpenOptions.Bind(values);
        _ = UrlOf(options);
        return options;
    }

    public override string NameOf(object options) => NameOf(UrlOf((HttpOptions)options));

    /// <summary>What may be a secret in a URL, the user and the query, makes another object, but is shown to nobody.</summary>
    public override NodeIdentity? IdentityOf(object options)
    {
        string url = UrlOf((HttpOptions)options).AbsoluteUri;
        return new($"http:{Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes(url)))}");
    }

    public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        HttpOptions options = WithUser((HttpOptions)context.Options, context.Secrets);
        string name = NameOf(options);
        if (context.Access.Writes)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{name}: what a web server has can only be read", name);
        }
        var source = new HttpSource(name, UrlOf(options), options, s => Secret(context, s));
        try
        {
            await source.LookAsync(cancellationToken).ConfigureAwait(false);
            return new HttpNode(name, IdentityOf(options), source, (int)options.ReadAhead);
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    /// <summary>A URL without what may be a secret in it.</summary>
    internal static string NameOf(Uri url) => url.GetComponents(
        UriComponents.SchemeAndServer | UriComponents.Path, UriFormat.UriEscaped);

    /// <summary>
    /// A user and password that were given for the URL, its server, or its host: only under a name that says so, since what was given for
    /// all images is not for whoever has them.
    /// </summary>
    private static HttpOptions WithUser(HttpOptions options, IReadOnlyDictionary<string, SecureString> secrets)
    {
        Uri url = UrlOf(options);
        if (options.UserName is not null || url.UserInfo.Length > 0)
        {
            return options;
        }
        string? found = Array.Find(
            [NameOf(url), url.GetLeftPart(UriPartial.Authority), url.Host], n => secrets.ContainsKey(SecretNames.UserOf(n)));
        return found is null ? options : options with
        {
            UserName = new NetworkCredential("", secrets[SecretNames.UserOf(found)]).Password, PasswordSecret = found,
        };
    }

    private static string? Secret(ProtocolOpenContext context, string? name)
    {
        if (name is null)
        {
            return null;
        }
        SecureString secret = context.Secrets.GetValueOrDefault(name) ?? throw new DiskImageException(
            DiskImageErrorKind.InvalidOption, $"There is no secret '{name}'. Given: {KnownNames.Hint(name, context.Secrets.Keys)}");
        return new NetworkCredential("", secret).Password;
    }

    private static Uri UrlOf(HttpOptions options)
        => Uri.TryCreate(options.Url, UriKind.Absolute, out Uri? url) && url.Scheme is "http" or "https" && url.Host.Length > 0
            ? url
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                "The URL of an object is http://host/path or https://host/path; what was given is neither.");
}

/// <summary>The same, under TLS.</summary>
internal sealed class HttpsDriver : HttpDriver
{
    public override string Name => "https";

    public override string Description => "An object of a web server under TLS, read by ranges: https://host/path";
}
