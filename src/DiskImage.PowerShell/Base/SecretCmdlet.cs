using System.Management.Automation;
using System.Net;
using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that opens or makes images, which may be encrypted.</summary>
public abstract class SecretCmdlet : DiskImageCmdlet
{
    private readonly Dictionary<string, SecureString> _asked = new(StringComparer.Ordinal), _askedNew = new(StringComparer.Ordinal);
    private Dictionary<string, SecureString> _given = new(StringComparer.Ordinal);

    /// <summary>
    /// The secret of encrypted images: a SecureString or PSCredential, or a dictionary of these by the name in <c>key-secret</c>, or by
    /// path.
    /// </summary>
    [Parameter]
    [ValidateNotNull]
    public object? Secret { get; set; }

    /// <summary>A file that holds the secret, for work that nobody watches.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? SecretFile { get; set; }

    /// <summary>The secrets of images that are made, as they were given.</summary>
    private protected virtual object? GivenNewSecret => null;

    /// <summary>False for a cmdlet whose secret is tried, not used to open the image.</summary>
    private protected virtual bool GivesSecrets => true;

    /// <inheritdoc/>
    private protected sealed override IReadOnlyDictionary<string, SecureString> OpeningSecrets
        => GivesSecrets ? Secrets : base.OpeningSecrets;

    /// <inheritdoc/>
    private protected sealed override IReadOnlyDictionary<string, SecureString> NewSecrets
        => With(GivenSecrets.Of(GivenNewSecret, "NewSecret", Folder), _askedNew);

    private IReadOnlyDictionary<string, SecureString> Secrets => With(_given, _asked);

    /// <inheritdoc/>
    protected override void BeginProcessing()
    {
        base.BeginProcessing();
        try
        {
            _given = GivenSecrets.Of(Secret, nameof(Secret), Folder);
            if (SecretFile is null)
            {
                return;
            }
            string file = SessionPath.Literal(SessionState.Path, SecretFile);
            _given[GivenSecrets.ForAll] = _given.ContainsKey(GivenSecrets.ForAll)
                ? throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{file}: -{nameof(SecretFile)} and -{nameof(Secret)} are given. Leave out one.",
                    file)
                : GivenSecrets.OfFile(file, WriteWarning);
        }
        catch (DiskImageException e)
        {
            ThrowTerminatingError(DiskImageError.Record(e, SecretFile));
        }
    }

    /// <summary>
    /// Tells the server that a URL names, and nobody else, a user and password, unless the user has given others for it.
    /// </summary>
    private protected void Introduce(string path, PSCredential? credential)
    {
        if (credential is null || !Uri.TryCreate(path, UriKind.Absolute, out Uri? url) || url.Host.Length == 0)
        {
            return;
        }
        string server = url.GetLeftPart(UriPartial.Authority);
        if (!_given.ContainsKey(SecretNames.UserOf(server)))
        {
            _given = new(_given, StringComparer.Ordinal) // what is open has those of before
            {
                [server] = credential.Password,
                [SecretNames.UserOf(server)] = new NetworkCredential("", credential.UserName).SecurePassword,
            };
        }
    }

    /// <summary>The secret that the user gave for an image.</summary>
    /// <exception cref="DiskImageException">SecretRequired: none.</exception>
    private protected SecureString SecretFor(string path) => SecretFor(Secrets, path, RemedyKind.Secret);

    /// <summary>Likewise, of another parameter.</summary>
    private protected SecureString SecretFor(object? given, string parameter, string path)
        => SecretFor(GivenSecrets.Of(given, parameter, Folder), path, RemedyKind.NewSecret);

    /// <summary>Asks for it, once for each image, where somebody is there to answer.</summary>
    /// <inheritdoc/>
    private protected sealed override async Task<bool> AskSecretAsync(DiskImageException missing)
    {
        bool isNew = missing.Wording.Remedies.Any(r => r.Kind == RemedyKind.NewSecret);
        Dictionary<string, SecureString> asked = isNew ? _askedNew : _asked;
        if (missing is not { Kind: DiskImageErrorKind.SecretRequired, Path: { } path } || IsStopping || asked.ContainsKey(path))
        {
            return false;
        }
        string question = Printable.Of($"{(isNew ? "New secret" : "Secret")} of {path}: ");
        SecureString? answer = await AskAsync(() => SecretQuestion.Ask(Host, question)).ConfigureAwait(false);
        if (answer is { Length: > 0 })
        {
            asked[path] = answer;
        }
        return answer is { Length: > 0 };
    }

    private static SecureString SecretFor(IReadOnlyDictionary<string, SecureString> secrets, string path, RemedyKind remedy)
        => secrets.GetValueOrDefault(path) ?? secrets.GetValueOrDefault(System.IO.Path.GetFileName(path))
            ?? secrets.GetValueOrDefault(GivenSecrets.ForAll)
            ?? throw new DiskImageException(
                DiskImageErrorKind.SecretRequired, $"{path}: a secret is needed. Give it with {new Remedy(remedy)}.", path);

    private static Dictionary<string, SecureString> With(
        Dictionary<string, SecureString> given, Dictionary<string, SecureString> asked)
        => asked.Count == 0 ? given
            : given.Concat(asked.Where(a => !given.ContainsKey(a.Key))).ToDictionary(StringComparer.Ordinal);
}
