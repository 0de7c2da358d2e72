using System.Text;

namespace DiskImage.Protocols.Nbd;

/// <summary>An export as a server offers it.</summary>
internal sealed record NbdOffer
{
    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>What it is, for people.</summary>
    public string? Description { get; init; }

    /// <summary>Its bytes.</summary>
    public required long Length { get; init; }

    /// <summary>What can be done with it.</summary>
    public required NbdExportFlags Flags { get; init; }

    /// <summary>What requests must be multiples of.</summary>
    public int MinimumBlock { get; init; } = 1;

    /// <summary>What they had better be multiples of.</summary>
    public int PreferredBlock { get; init; } = 4096;

    /// <summary>Bytes of data in a request at most.</summary>
    public int MaximumPayload { get; init; } = NbdWire.MaximumPayload;

    /// <summary>The contexts that it has; the number of one is its place here.</summary>
    public IReadOnlyList<string> Contexts { get; init; } = [];
}

/// <summary>What a server offers to a client.</summary>
/// <param name="Exports">All of them; the first is the default.</param>
/// <param name="HasTls">A connection can go on under TLS.</param>
/// <param name="NeedsTls">It must.</param>
/// <param name="WhyNot">Says why an export is not to be had now, or null; asked when one is chosen.</param>
internal sealed record NbdServerOffer(
    IReadOnlyList<NbdOffer> Exports, bool HasTls = false, bool NeedsTls = false, Func<NbdOffer, string?>? WhyNot = null);

/// <summary>A server's side of the handshake: fixed newstyle, as every client of the last ten years speaks it.</summary>
/// <param name="name">What the client is called in messages.</param>
/// <param name="offer">What it is offered.</param>
internal sealed class NbdServerHandshake(string name, NbdServerOffer offer) : NbdSteps(name)
{
    private const int MostOptions = 1000; // of one client. Ours
    private const int LongestOption = 64 << 10; // ours
    private const int MostQueries = 1000; // for contexts, in one option. Ours
    private const string AllOfQemu = "qemu:", AllBase = "base:";

    private readonly HashSet<int> _contexts = [];
    private string? _contextsOf; // the export that they were chosen for
    private bool _isSecure, _skipsZeroes;

    /// <summary>What was chosen, when it is over; null for a client that only asked.</summary>
    public NbdOffer? Chosen { get; private set; }

    /// <summary>Answers come in chunks.</summary>
    public bool IsStructured { get; private set; }

    /// <summary>Lengths have 64 bits.</summary>
    public bool IsExtended { get; private set; }

    /// <summary>The numbers of the contexts that block status is to tell of.</summary>
    public IReadOnlySet<int> Contexts => _contexts;

    /// <inheritdoc/>
    protected override IEnumerable<int> Steps()
    {
        Send64(NbdWire.Magic);
        Send64(NbdWire.OptionMagic);
        Send16((int)(NbdHandshakeFlags.FixedNewStyle | NbdHandshakeFlags.NoZeroes));
        yield return 4;
        if (U32(0) > 3)
        {
            throw Wrong($"it answers with the flags 0x{U32(0):x}, of which some are unknown");
        }
        _skipsZeroes = ((NbdHandshakeFlags)U32(0)).HasFlag(NbdHandshakeFlags.NoZeroes);
        for (int count = 0; Chosen is null; count++)
        {
            yield return 16;
            if (U64(0) != NbdWire.OptionMagic || U32(12) > LongestOption || count >= MostOptions)
            {
                throw Wrong($"an option begins with 0x{U64(0):x16}, has {U32(12):#,0} bytes, or is one too many");
            }
            var option = (NbdOption)U32(8);
            int length = (int)U32(12);
            if (length > 0)
            {
                yield return length;
            }
            if (option == NbdOption.Abort)
            {
                Reply(option, NbdOptionReply.Ack);
                yield break;
            }
            if (option == NbdOption.StartTls && offer.HasTls && !_isSecure && length == 0)
            {
                Reply(option, NbdOptionReply.Ack);
                AwaitsTls = true;
                yield return 0;
                (_isSecure, IsStructured, IsExtended, _contextsOf) = (true, false, false, null);
                _contexts.Clear();
                continue;
            }
            Answer(option, length);
        }
    }

    private void Answer(NbdOption option, int length)
    {
        if (offer.NeedsTls && !_isSecure && option != NbdOption.StartTls)
        {
            if (option == NbdOption.ExportName)
            {
                throw Wrong("it chooses an export without TLS, which this server needs");
            }
            Reply(option, NbdOptionReply.TlsRequired, "this server takes no connection without TLS");
            return;
        }
        switch (option)
        {
            case NbdOption.ExportName:
                Give(Find(Text(0, length)) ?? throw Wrong($"it chooses the export '{Text(0, length)}', which there is none of"));
                break;
            case NbdOption.List or NbdOption.StructuredReply or NbdOption.ExtendedHeaders or NbdOption.StartTls when length > 0:
                Reply(option, NbdOptionReply.Invalid, "this option has no data");
                break;
            case NbdOption.List:
                foreach (NbdOffer export in offer.Exports)
                {
                    byte[] text = Encoding.UTF8.GetBytes(export.Name), about = Encoding.UTF8.GetBytes(export.Description ?? "");
                    Head(option, NbdOptionReply.Server, 4 + text.Length + about.Length);
                    Send32((uint)text.Length);
                    SendBytes(text);
                    SendBytes(about);
                }
                Reply(option, NbdOptionReply.Ack);
                break;
            case NbdOption.Info or NbdOption.Go:
                Inform(option, length);
                break;
            case NbdOption.StructuredReply when !IsExtended:
                IsStructured = true;
                Reply(option, NbdOptionReply.Ack);
                break;
            case NbdOption.ExtendedHeaders:
                (IsStructured, IsExtended) = (true, true);
                Reply(option, NbdOptionReply.Ack);
                break;
            case NbdOption.StructuredReply:
                Reply(option, NbdOptionReply.ExtendedHeadersRequired, "extended headers are agreed on, which have chunks");
                break;
            case NbdOption.ListMetaContext or NbdOption.SetMetaContext:
                TellContexts(option, length);
                break;
            case NbdOption.StartTls when offer.HasTls:
                Reply(option, NbdOptionReply.Invalid, "this connection is under TLS already");
                break;
            case NbdOption.StartTls:
                Reply(option, NbdOptionReply.Policy, "this server has no TLS");
                break;
            default:
                Reply(option, NbdOptionReply.Unsupported);
                break;
        }
    }

    private void Inform(NbdOption option, int length)
    {
        if (length < 6 || U32(0) > Math.Min(length - 6, NbdWire.MaximumText) || length != 6 + (int)U32(0) + (2 * U16(4 + (int)U32(0))))
        {
            Reply(option, NbdOptionReply.Invalid, "its lengths do not add up");
            return;
        }
        int named = (int)U32(0);
        if (Find(Text(4, named)) is not { } export)
        {
            Reply(option, NbdOptionReply.Unknown, "there is no export of that name");
            return;
        }
        var wanted = new HashSet<NbdInfo>();
        for (int at = 6 + named; at < length; at += 2)
        {
            _ = wanted.Add((NbdInfo)U16(at));
        }
        if (option == NbdOption.Go && export.MinimumBlock > 1 && !wanted.Contains(NbdInfo.BlockSize))
        {
            Reply(option, NbdOptionReply.BlockSizeRequired, $"requests must be multiples of {export.MinimumBlock} bytes");
            return;
        }
        if (option == NbdOption.Go && offer.WhyNot?.Invoke(export) is { } why)
        {
            Reply(option, NbdOptionReply.Policy, why);
            return;
        }
        Head(option, NbdOptionReply.Info, 12);
        Send16((int)NbdInfo.Export);
        Send64((ulong)export.Length);
        Send16((int)export.Flags);
        TellText(option, NbdInfo.Name, wanted.Contains(NbdInfo.Name) ? export.Name : null);
        TellText(option, NbdInfo.Description, wanted.Contains(NbdInfo.Description) ? export.Description : null);
        if (wanted.Contains(NbdInfo.BlockSize))
        {
            Head(option, NbdOptionReply.Info, 14);
            Send16((int)NbdInfo.BlockSize);
            Send32((uint)export.MinimumBlock);
            Send32((uint)export.PreferredBlock);
            Send32((uint)export.MaximumPayload);
        }
        Reply(option, NbdOptionReply.Ack);
        if (option == NbdOption.Go)
        {
            Choose(export);
        }
    }

    private void Give(NbdOffer export)
    {
        if (offer.WhyNot?.Invoke(export) is { } why)
        {
            throw Wrong($"it chooses the export '{export.Name}', which it cannot have: {why}");
        }
        Send64((ulong)export.Length);
        Send16((int)export.Flags);
        if (!_skipsZeroes)
        {
            SendBytes(new byte[NbdWire.ExportPadding]);
        }
        Choose(export);
    }

    private void Choose(NbdOffer export)
    {
        if (!export.Name.Equals(_contextsOf, StringComparison.Ordinal))
        {
            _contexts.Clear(); // they were chosen for another one
        }
        Chosen = export;
    }

    private void TellContexts(NbdOption option, int length)
    {
        if (!IsStructured)
        {
            Reply(option, NbdOptionReply.Invalid, "contexts need answers in chunks");
            return;
        }
        if (ReadQueries(length) is not ({ } export, { } queries))
        {
            Reply(option, NbdOptionReply.Invalid, "its lengths do not add up");
            return;
        }
        if (Find(export) is not { } found)
        {
            Reply(option, NbdOptionReply.Unknown, "there is no export of that name");
            return;
        }
        bool isChoice = option == NbdOption.SetMetaContext;
        if (isChoice)
        {
            _contexts.Clear();
            _contextsOf = found.Name;
        }
        for (int number = 0; number < found.Contexts.Count; number++)
        {
            string context = found.Contexts[number];
            if (!(!isChoice && queries.Count == 0) && !queries.Exists(q => IsMeant(q, context, !isChoice)))
            {
                continue;
            }
            byte[] text = Encoding.UTF8.GetBytes(context);
            Head(option, NbdOptionReply.MetaContext, 4 + text.Length);
            Send32(isChoice ? (uint)number : 0);
            SendBytes(text);
            if (isChoice)
            {
                _ = _contexts.Add(number);
            }
        }
        Reply(option, NbdOptionReply.Ack);
    }

    private static bool IsMeant(string query, string context, bool allowsAll)
        => query.Equals(context, StringComparison.Ordinal)
            || (allowsAll && query is AllOfQemu or AllBase or NbdWire.BitmapContext
            && context.StartsWith(query, StringComparison.Ordinal));

    /// <summary>The name of an export and queries for contexts; nulls if the lengths do not add up.</summary>
    private (string? Export, List<string>? Queries) ReadQueries(int length)
    {
        if (length < 8 || U32(0) > Math.Min(length - 8, NbdWire.MaximumText))
        {
            return default;
        }
        int at = 4 + (int)U32(0);
        string export = Text(4, (int)U32(0));
        uint count = U32(at);
        at += 4;
        if (count > MostQueries)
        {
            return default;
        }
        var queries = new List<string>();
        for (; count > 0; count--)
        {
            if (length - at < 4 || U32(at) > Math.Min(length - at - 4, NbdWire.MaximumText))
            {
                return default;
            }
            queries.Add(Text(at + 4, (int)U32(at)));
            at += 4 + (int)U32(at);
        }
        return at == length ? (export, queries) : default;
    }

    private NbdOffer? Find(string export)
        => offer.Exports.FirstOrDefault(e => e.Name.Equals(export, StringComparison.Ordinal))
            ?? (export.Length == 0 && offer.Exports.Count > 0 ? offer.Exports[0] : null);

    private void TellText(NbdOption option, NbdInfo kind, string? text)
    {
        if (text is not null)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(text);
            Head(option, NbdOptionReply.Info, 2 + bytes.Length);
            Send16((int)kind);
            SendBytes(bytes);
        }
    }

    private void Reply(NbdOption option, NbdOptionReply reply, string text = "")
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        Head(option, reply, bytes.Length);
        SendBytes(bytes);
    }

    private void Head(NbdOption option, NbdOptionReply reply, int length)
    {
        Send64(NbdWire.OptionReplyMagic);
        Send32((uint)option);
        Send32((uint)reply);
        Send32((uint)length);
    }
}
