using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Http;

/// <summary>
/// Gets ranges of one object: follows redirects, tries again after what passes by itself, goes on where it was cut off, and notices when
/// the object has become another.
/// </summary>
/// <remarks>
/// Each request asks for the version that was there at first (If-Range). A server that has another answers with all of it (200) instead of
/// a part (206), and that ends everything: the parts would not fit together. What says who asks goes to the host that was named, and to no
/// other.
/// </remarks>
internal sealed class HttpSource : IDisposable
{
    private const int MostRedirects = 10, MostTries = 6; // ours
    private const int MostConnections = 16; // ours

    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(100), s_longestPause = TimeSpan.FromSeconds(20);

    private readonly HttpClient _client;
    private readonly string _name;
    private readonly Uri _url;
    private readonly TimeSpan _silence;
    private readonly string? _authorization, _cookie;
    private readonly List<(string Name, string Value)> _headers = [];
    private Uri _at; // where redirects led
    private RangeConditionHeaderValue? _version;
    private string? _tag;

    /// <summary>Sets up; nothing is sent.</summary>
    /// <param name="name">What the object is called in messages.</param>
    /// <param name="url">Where it is.</param>
    /// <param name="options">How it is asked for.</param>
    /// <param name="secret">The secret of a name.</param>
    /// <exception cref="DiskImageException">InvalidOption: there is no such secret, or a header is none.</exception>
    public HttpSource(string name, Uri url, HttpOptions options, Func<string?, string?> secret)
    {
        _name = name;
        _silence = TimeSpan.FromSeconds(options.Timeout);
        string[] user = url.UserInfo.Length > 0 ? url.UserInfo.Split(':', 2) : [];
        string? userName = options.UserName ?? (user.Length > 0 ? Uri.UnescapeDataString(user[0]) : null);
        string? password = secret(options.PasswordSecret) ?? (user.Length > 1 ? Uri.UnescapeDataString(user[1]) : null);
        _url = _at = new UriBuilder(url) { UserName = "", Password = "" }.Uri;
        _authorization = userName is null ? null : Convert.ToBase64String(Encoding.UTF8.GetBytes($"{userName}:{password}"));
        _cookie = secret(options.CookieSecret) ?? options.Cookie;
        foreach (string line in $"{options.Header}\n{secret(options.HeaderSecret)}".Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] pair = line.Split(':', 2);
            _headers.Add(pair.Length == 2 && pair[0].Trim().Length > 0
                ? (pair[0].Trim(), pair[1].Trim())
                : throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a header has the form 'Name: value'", name));
        }
        var handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseCookies = false,
            AutomaticDecompression = DecompressionMethods.None,
            MaxConnectionsPerServer = MostConnections,
            PooledConnectionIdleTimeout = TimeSpan.FromSeconds(30),
            ConnectTimeout = _silence,
        };
        if (options.ProxyUserName is not null)
        {
            handler.DefaultProxyCredentials = new NetworkCredential(options.ProxyUserName, secret(options.ProxyPasswordSecret));
        }
        if (!options.SslVerify)
        {
            handler.SslOptions = new SslClientAuthenticationOptions
            {
#pragma warning disable CA5359, MA0039 // the user asked for it: sslverify=off
                RemoteCertificateValidationCallback = (_, _, _, _) => true,
#pragma warning restore CA5359, MA0039
            };
        }
        _client = new HttpClient(handler) { Timeout = Timeout.InfiniteTimeSpan };
    }

    /// <summary>Its bytes.</summary>
    public long Length { get; private set; }

    /// <summary>When it was last changed, if the server says so.</summary>
    public DateTimeOffset? LastModified { get; private set; }

    /// <summary>Finds out how long it is, and whether it can be had by ranges.</summary>
    /// <exception cref="DiskImageException">It cannot, or is not there.</exception>
    public ValueTask LookAsync(CancellationToken cancellationToken) => PersistAsync(
        async watch =>
        {
            using HttpResponseMessage answer = await AskAsync(0, 1, watch).ConfigureAwait(false);
            if (Passing(answer, 0) is { } setback)
            {
                return setback;
            }
            if (answer.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable && answer.Content.Headers.ContentRange is { Length: 0 })
            {
                return null; // it is empty
            }
            if (answer.StatusCode == HttpStatusCode.OK)
            {
                throw Error(
                    DiskImageErrorKind.Unsupported,
                    "the server gives it only as a whole: it knows no ranges. Download it, and open the file");
            }
            RequireRange(answer, 0);
            Length = answer.Content.Headers.ContentRange!.Length ?? throw Error(
                DiskImageErrorKind.Unsupported, "the server does not say how long it is. Download it, and open the file");
            LastModified = answer.Content.Headers.LastModified;
            _tag = answer.Headers.ETag?.ToString();
            _version = answer.Headers.ETag is { IsWeak: false } tag ? new(tag) : LastModified is { } date ? new(date) : null;
            return null;
        },
        isFirst: true,
        cancellationToken);

    /// <summary>Fills a buffer from inside the object.</summary>
    /// <exception cref="DiskImageException">It cannot be had any more, or has become another.</exception>
    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken) => PersistAsync(
        async watch =>
        {
            using HttpResponseMessage answer = await AskAsync(offset, buffer.Length, watch).ConfigureAwait(false);
            if (Passing(answer, offset) is { } setback)
            {
                return setback;
            }
            RequireSame(answer, offset, buffer.Length);
            Stream body = await answer.Content.ReadAsStreamAsync(watch.Token).ConfigureAwait(false);
            await using (body.ConfigureAwait(false))
            {
                int count;
                while (!buffer.IsEmpty && (count = await body.ReadAsync(buffer, watch.Token).ConfigureAwait(false)) > 0)
                {
                    watch.Heard(count);
                    (offset, buffer) = (offset + count, buffer[count..]);
                }
            }
            return buffer.IsEmpty ? null : new Setback(Error(DiskImageErrorKind.Io, "the answer ends too early", offset), null);
        },
        isFirst: false,
        cancellationToken);

    /// <inheritdoc/>
    public void Dispose() => _client.Dispose();

    /// <summary>Tries until there is no setback any more, or there were too many without a byte in between.</summary>
    /// <param name="attempt">Does it, or as much of it as is left; null where it is done.</param>
    /// <param name="isFirst">Nothing was ever had from there: a server that is not there is said to be so at once.</param>
    /// <param name="cancellationToken">Stops it.</param>
    private async ValueTask PersistAsync(
        Func<Silence, ValueTask<Setback?>> attempt, bool isFirst, CancellationToken cancellationToken)
    {
        TimeSpan pause = s_firstPause;
        for (int tries = 1; ; tries++)
        {
            Setback setback;
            using (var watch = new Silence(_silence, cancellationToken))
            {
                try
                {
                    if (await attempt(watch).ConfigureAwait(false) is not { } met)
                    {
                        return;
                    }
                    setback = met;
                }
                catch (Exception e) when (e is HttpRequestException or IOException and not DiskImageException
                    || (e is OperationCanceledException && !cancellationToken.IsCancellationRequested))
                {
                    setback = new Setback(Broken(e), null);
                    HttpRequestError? what = (e as HttpRequestException)?.HttpRequestError;
                    if (what == HttpRequestError.SecureConnectionError
                        || (isFirst && what is (HttpRequestError.NameResolutionError or HttpRequestError.ConnectionError)))
                    {
                        throw setback.Failure; // another try would end the same way
                    }
                }
                (tries, pause) = watch.HasData ? (1, s_firstPause) : (tries, pause);
            }
            if (tries >= MostTries)
            {
                throw setback.Failure;
            }
            TimeSpan wanted = setback.Wanted ?? pause;
            await Task.Delay(wanted < s_longestPause ? wanted : s_longestPause, cancellationToken).ConfigureAwait(false);
            pause *= 2;
        }
    }

    /// <summary>The setback that an answer is, if it is one that passes by itself.</summary>
    private Setback? Passing(HttpResponseMessage answer, long offset)
        => answer.StatusCode is HttpStatusCode.TooManyRequests or >= HttpStatusCode.InternalServerError
            ? new Setback(
                Error(DiskImageErrorKind.Io, $"the server answers {(int)answer.StatusCode}", offset),
                answer.Headers.RetryAfter is { } after ? after.Delta ?? Until(after.Date) : null)
            : null;

    private static TimeSpan? Until(DateTimeOffset? date)
        => date is not { } then ? null : then > DateTimeOffset.UtcNow ? then - DateTimeOffset.UtcNow : TimeSpan.Zero;

    /// <summary>The answer to a request for a range, redirects followed.</summary>
    private async ValueTask<HttpResponseMessage> AskAsync(long offset, long length, Silence watch)
    {
        Uri url = _at;
        for (int redirects = 0; ; redirects++)
        {
            HttpResponseMessage answer;
            using (var request = new HttpRequestMessage(HttpMethod.Get, url))
            {
                request.Headers.Range = new RangeHeaderValue(offset, offset + length - 1);
                request.Headers.IfRange = _version;
                request.Headers.AcceptEncoding.Add(new StringWithQualityHeaderValue("identity"));
                if (IsNamed(url))
                {
                    Introduce(request);
                }
                answer = await SendAsync(request, watch).ConfigureAwait(false);
            }
            if (answer.StatusCode is not (HttpStatusCode.MovedPermanently or HttpStatusCode.Found or HttpStatusCode.SeeOther
                or HttpStatusCode.TemporaryRedirect or HttpStatusCode.PermanentRedirect))
            {
                bool isGone = answer.StatusCode is HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden or HttpStatusCode.NotFound
                    or HttpStatusCode.Gone;
                if (isGone && redirects == 0 && url != _url)
                {
                    answer.Dispose();
                    url = _at = _url; // where it led to once is no more: asked anew
                    continue;
                }
                _at = url;
                return answer;
            }
            Uri? next = answer.Headers.Location is { } location ? new Uri(url, location) : null;
            answer.Dispose();
            if (next is null || redirects >= MostRedirects || next.Scheme is not ("http" or "https")
                || (url.Scheme.Equals("https", StringComparison.Ordinal) && !next.Scheme.Equals("https", StringComparison.Ordinal)))
            {
                throw Error(
                    DiskImageErrorKind.Refused,
                    "the server leads on without end, to nowhere, or away from TLS, so it is not followed");
            }
            url = next;
        }
    }

    private async ValueTask<HttpResponseMessage> SendAsync(HttpRequestMessage request, Silence watch)
    {
        HttpResponseMessage answer = await _client.SendAsync(
            request, HttpCompletionOption.ResponseHeadersRead, watch.Token).ConfigureAwait(false);
        watch.Heard(0);
        return answer;
    }

    private bool IsNamed(Uri url)
        => Uri.Compare(url, _url, UriComponents.SchemeAndServer, UriFormat.UriEscaped, StringComparison.OrdinalIgnoreCase) == 0;

    private void Introduce(HttpRequestMessage request)
    {
        if (_authorization is not null)
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Basic", _authorization);
        }
        if (_cookie is not null)
        {
            _ = request.Headers.TryAddWithoutValidation("Cookie", _cookie);
        }
        foreach ((string name, string value) in _headers)
        {
            _ = request.Headers.TryAddWithoutValidation(name, value);
        }
    }

    /// <summary>Throws unless an answer is the range that was asked for, or its beginning, of the object that was there at first.</summary>
    private void RequireSame(HttpResponseMessage answer, long offset, int length)
    {
        bool isWhole = answer.StatusCode is HttpStatusCode.OK or HttpStatusCode.RequestedRangeNotSatisfiable
            or HttpStatusCode.PreconditionFailed;
        if (!isWhole)
        {
            RequireRange(answer, offset);
        }
        if (isWhole || answer.Content.Headers.ContentRange!.Length != Length
            || !string.Equals(answer.Headers.ETag?.ToString(), _tag, StringComparison.Ordinal)
            || answer.Content.Headers.LastModified != LastModified)
        {
            throw Error(
                DiskImageErrorKind.Io, "it has become another since it was opened, and parts of the two would not fit together", offset);
        }
        if (answer.Content.Headers.ContentRange!.To - offset >= length)
        {
            throw Error(DiskImageErrorKind.Io, "the server sends more than was asked for", offset);
        }
    }

    private void RequireRange(HttpResponseMessage answer, long offset)
    {
        (DiskImageErrorKind Kind, string What)? wrong = answer.StatusCode switch
        {
            HttpStatusCode.PartialContent => null,
            HttpStatusCode.NotFound or HttpStatusCode.Gone => (DiskImageErrorKind.NotFound, "the server has no such object"),
            HttpStatusCode.Unauthorized => (
                DiskImageErrorKind.AccessDenied, "the server wants to know who asks: username and password-secret, or a header"),
            HttpStatusCode.Forbidden => (DiskImageErrorKind.AccessDenied, "the server denies access"),
            HttpStatusCode.ProxyAuthenticationRequired => (
                DiskImageErrorKind.AccessDenied, "the proxy wants to know who asks: proxy-username and proxy-password-secret"),
            _ => (DiskImageErrorKind.Io, $"the server answers {(int)answer.StatusCode}"),
        };
        if (wrong is { } error)
        {
            throw Error(error.Kind, error.What, offset);
        }
        if (answer.Content.Headers.ContentEncoding.Count > 0)
        {
            throw Error(
                DiskImageErrorKind.Unsupported,
                $"the server sends it encoded ({string.Join(", ", answer.Content.Headers.ContentEncoding)}), though it was asked not to",
                offset);
        }
        if (answer.Content.Headers.ContentRange is not { Unit: "bytes", From: { } from, To: { } to } || from != offset || to < from)
        {
            throw Error(
                DiskImageErrorKind.Io,
                "the server sends another range than was asked for: "
                    + (answer.Content.Headers.ContentRange?.ToString() ?? "it does not say"),
                offset);
        }
    }

    private DiskImageException Broken(Exception cause)
    {
        string why = cause switch
        {
            OperationCanceledException => $"the server was silent for {_silence.TotalSeconds.ToString(CultureInfo.InvariantCulture)} s",
            { InnerException: System.Security.Authentication.AuthenticationException tls } => $"TLS failed: {tls.Message}",
            _ => $"the connection broke: {cause.InnerException?.Message ?? cause.Message}",
        };
        return Error(DiskImageErrorKind.Io, why);
    }

    private DiskImageException Error(DiskImageErrorKind kind, string what, long? offset = null)
        => new(kind, $"{_name}: {what}", _name, offset);

    /// <summary>What went wrong and may go right next time.</summary>
    /// <param name="Failure">What is said if it does not.</param>
    /// <param name="Wanted">How long the server wants to be left alone; null where it does not say.</param>
    private sealed record Setback(DiskImageException Failure, TimeSpan? Wanted);

    /// <summary>Stops what waits for a server that says nothing.</summary>
    private sealed class Silence : IDisposable
    {
        private readonly CancellationTokenSource _source;
        private readonly TimeSpan _limit;

        public Silence(TimeSpan limit, CancellationToken cancellationToken)
        {
            _limit = limit;
            _source = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            Heard(0);
        }

        public CancellationToken Token => _source.Token;

        /// <summary>Some of what was asked for has come.</summary>
        public bool HasData { get; private set; }

        public void Heard(int data)
        {
            HasData |= data > 0;
            _source.CancelAfter(_limit);
        }

        public void Dispose() => _source.Dispose();
    }
}
