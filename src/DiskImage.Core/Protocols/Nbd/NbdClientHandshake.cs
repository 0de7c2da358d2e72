using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>What a client wants of a server.</summary>
internal sealed record NbdWishes
{
    /// <summary>The export's name; empty for the server's default.</summary>
    public string Export { get; init; } = "";

    /// <summary>The connection must be under TLS before the export is named.</summary>
    public bool Tls { get; init; }

    /// <summary>The contexts of block status that are wanted, as far as the server has them.</summary>
    public IReadOnlyList<string> Contexts { get; init; } = [NbdWire.AllocationContext];

    /// <summary>Answers in chunks, which block status needs.</summary>
    public bool Structured { get; init; } = true;

    /// <summary>Lengths of 64 bits.</summary>
    public bool Extended { get; init; } = true;

    /// <summary>The server is only asked what it has.</summary>
    public bool ListsOnly { get; init; }
}

/// <summary>
/// A client's side of the handshake: all three that there are (oldstyle, newstyle, fixed newstyle). It asks for what is newest and does
/// with what it gets.
/// </summary>
/// <param name="name">What the server is called in messages.</param>
/// <param name="wishes">What is wanted.</param>
internal sealed class NbdClientHandshake(string name, NbdWishes wishes) : NbdSteps(name)
{
    private const int MostReplies = 100_000; // to one option. Ours
    private const int MostExports = 10_000; // of a list. Ours
    private const int LongestReply = 2 * NbdWire.MaximumText; // the longest that means anything to us
    private const int LongestSkipped = 1 << 20; // ours

    private readonly List<NbdExportInfo> _list = [];
    private readonly Dictionary<string, uint> _contexts = new(StringComparer.Ordinal);
    private NbdExportInfo _info = new();
    private NbdHandshakeFlags _server;
    private NbdOptionReply _reply;
    private string? _error;
    private int _payload;

    /// <summary>What was agreed on, when it is over.</summary>
    public NbdExportInfo Info => _info;

    /// <summary>The exports that the server named, when it is over and only that was asked.</summary>
    public IReadOnlyList<NbdExportInfo> Exports => _list;

    /// <inheritdoc/>
    protected override IEnumerable<int> Steps()
    {
        yield return 16;
        if (U64(0) != NbdWire.Magic)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Io, $"{Name}: is no NBD server: it begins with 0x{U64(0):x16}, not with NBDMAGIC", Name);
        }
        if (U64(8) == NbdWire.OldMagic)
        {
            foreach (int need in OldStyle())
            {
                yield return need;
            }
            yield break;
        }
        if (U64(8) != NbdWire.OptionMagic)
        {
            throw Wrong($"it announces itself with 0x{U64(8):x16}; known: 0x{NbdWire.OptionMagic:x16}, 0x{NbdWire.OldMagic:x16}");
        }
        yield return 2;
        _server = (NbdHandshakeFlags)U16(0);
        NbdHandshakeFlags mine = _server & (NbdHandshakeFlags.FixedNewStyle | NbdHandshakeFlags.NoZeroes);
        Send32((uint)mine);
        foreach (int need in mine.HasFlag(NbdHandshakeFlags.FixedNewStyle) ? Negotiate() : ByName())
        {
            yield return need;
        }
    }

    private IEnumerable<int> OldStyle()
    {
        RefuseTls("is an oldstyle server, which knows no TLS");
        if (wishes.Export.Length > 0 || wishes.ListsOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.NotFound,
                $"{Name}: is an oldstyle server, which has one export without a name; '{wishes.Export}' cannot be asked of it. "
                    + "Leave the name out.",
                Name);
        }
        yield return 8 + 4 + NbdWire.ExportPadding;
        TakeExport(U64(0), U16(10));
    }

    private IEnumerable<int> ByName()
    {
        RefuseTls("is not a fixed newstyle server, so it knows no TLS");
        if (wishes.ListsOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: is not a fixed newstyle server, so it lists no exports", Name);
        }
        SendOption(NbdOption.ExportName, Utf8(wishes.Export));
        bool padded = !_server.HasFlag(NbdHandshakeFlags.NoZeroes);
        yield return 8 + 2 + (padded ? NbdWire.ExportPadding : 0);
        TakeExport(U64(0), U16(8));
        _info = _info with { IsStructured = _structured, IsExtended = _extended, Contexts = _contexts };
    }

    private bool _structured, _extended;

    private IEnumerable<int> Negotiate()
    {
        if (wishes.Tls)
        {
            SendOption(NbdOption.StartTls, []);
            foreach (int need in Reply(NbdOption.StartTls))
            {
                yield return need;
            }
            if (_reply != NbdOptionReply.Ack)
            {
                throw Refused("refuses to go on under TLS");
            }
            AwaitsTls = true;
            yield return 0;
        }
        foreach (NbdOption option in new[] { NbdOption.ExtendedHeaders, NbdOption.StructuredReply })
        {
            if (_structured || !(option == NbdOption.ExtendedHeaders ? wishes.Extended : wishes.Structured))
            {
                continue;
            }
            SendOption(option, []);
            foreach (int need in Reply(option))
            {
                yield return need;
            }
            if (_reply == NbdOptionReply.Ack)
            {
                (_structured, _extended) = (true, option == NbdOption.ExtendedHeaders);
            }
            else if (_reply == NbdOptionReply.TlsRequired)
            {
                throw Refused("takes no connection without TLS");
            }
        }
        foreach (int need in wishes.ListsOnly ? List() : Choose())
        {
            yield return need;
        }
    }

    private IEnumerable<int> Choose()
    {
        if (_structured && wishes.Contexts.Count > 0)
        {
            SendOption(NbdOption.SetMetaContext, ContextQuery(wishes.Export, wishes.Contexts));
            for (int count = 0; ;)
            {
                foreach (int need in Reply(NbdOption.SetMetaContext))
                {
                    yield return need;
                }
                if (_reply != NbdOptionReply.MetaContext)
                {
                    break; // an error means: none
                }
                if (_payload < 4 || ++count > wishes.Contexts.Count)
                {
                    throw Wrong("it agrees to more contexts than were asked for");
                }
                string context = Text(4, _payload - 4);
                if (!wishes.Contexts.Contains(context, StringComparer.Ordinal) || !_contexts.TryAdd(context, U32(0)))
                {
                    throw Wrong($"it agrees to the context '{context}', which was not asked for");
                }
            }
        }
        SendOption(NbdOption.Go, InfoQuery(wishes.Export));
        foreach (int need in TakeInfo(NbdOption.Go))
        {
            yield return need;
        }
        if (_reply == NbdOptionReply.Ack)
        {
            _info = _info with { IsStructured = _structured, IsExtended = _extended, Contexts = _contexts };
            yield break;
        }
        if (_reply != NbdOptionReply.Unsupported)
        {
            throw Refused($"does not give the export '{wishes.Export}'");
        }
        foreach (int need in ByName())
        {
            yield return need;
        }
    }

    private IEnumerable<int> List()
    {
        SendOption(NbdOption.List, []);
        var names = new List<(string Name, string Description)>();
        while (true)
        {
            foreach (int need in Reply(NbdOption.List))
            {
                yield return need;
            }
            if (_reply != NbdOptionReply.Server)
            {
                break;
            }
            if (_payload < 4 || U32(0) > _payload - 4 || names.Count >= MostExports)
            {
                throw Wrong("an export of its list has no name that fits its message, or there are too many");
            }
            int length = (int)U32(0);
            names.Add((Text(4, length), Text(4 + length, _payload - 4 - length)));
        }
        if (_reply != NbdOptionReply.Ack)
        {
            throw Refused("does not list its exports");
        }
        foreach ((string export, string description) in names)
        {
            (_info, _error) = (new(), null);
            _contexts.Clear();
            SendOption(NbdOption.Info, InfoQuery(export));
            foreach (int need in TakeInfo(NbdOption.Info))
            {
                yield return need;
            }
            if (_structured)
            {
                SendOption(NbdOption.ListMetaContext, ContextQuery(export, []));
                while (true)
                {
                    foreach (int need in Reply(NbdOption.ListMetaContext))
                    {
                        yield return need;
                    }
                    if (_reply != NbdOptionReply.MetaContext)
                    {
                        break;
                    }
                    if (_payload < 4 || _contexts.Count >= MostExports)
                    {
                        throw Wrong("a context of its list has no name, or there are too many");
                    }
                    _contexts[Text(4, _payload - 4)] = U32(0);
                }
            }
            _list.Add(_info with
            {
                Name = export,
                Description = _info.Description ?? (description.Length > 0 ? description : null),
                Contexts = new Dictionary<string, uint>(_contexts, StringComparer.Ordinal),
                IsStructured = _structured,
                IsExtended = _extended,
            });
        }
        SendOption(NbdOption.Abort, []); // the server's answer is not waited for: some hang up at once
    }

    /// <summary>Replies up to the last one, which is in <see cref="_reply"/>; what they tell of the export is taken.</summary>
    private IEnumerable<int> TakeInfo(NbdOption option)
    {
        bool isKnown = false;
        for (int count = 0; ; count++)
        {
            foreach (int need in Reply(option))
            {
                yield return need;
            }
            if (_reply != NbdOptionReply.Info)
            {
                break;
            }
            if (_payload < 2 || count > MostReplies)
            {
                throw Wrong("what it tells of the export has no type, or does not end");
            }
            switch ((NbdInfo)U16(0))
            {
                case NbdInfo.Export when _payload == 12:
                    TakeExport(U64(2), U16(10));
                    isKnown = true;
                    break;
                case NbdInfo.Name:
                    _info = _info with { Name = Text(2, _payload - 2) };
                    break;
                case NbdInfo.Description:
                    _info = _info with { Description = Text(2, _payload - 2) };
                    break;
                case NbdInfo.BlockSize when _payload == 14:
                    TakeBlockSizes(U32(2), U32(6), U32(10));
                    break;
                case NbdInfo.Export or NbdInfo.BlockSize:
                    throw Wrong($"what it tells of the export has {_payload:#,0} bytes, which is not the length of its type");
                default:
                    break; // spec: others are to be ignored
            }
        }
        if (_reply == NbdOptionReply.Ack && !isKnown)
        {
            throw Wrong("it gives the export without its length");
        }
    }

    /// <summary>One reply to an option; its payload is the input of the last step.</summary>
    private IEnumerable<int> Reply(NbdOption option)
    {
        yield return 20;
        if (U64(0) != NbdWire.OptionReplyMagic || U32(8) != (uint)option)
        {
            throw Wrong($"it answers option {(uint)option} with magic 0x{U64(0):x} for option {U32(8)}");
        }
        _reply = (NbdOptionReply)U32(12);
        uint length = U32(16);
        bool isError = (_reply & NbdOptionReply.Error) != 0;
        if (length > (isError ? LongestSkipped : LongestReply) || (_reply == NbdOptionReply.Ack && length != 0))
        {
            throw Wrong($"its answer to option {(uint)option} claims {length:#,0} bytes");
        }
        _payload = (int)length;
        if (length > 0)
        {
            yield return _payload;
        }
        if (isError)
        {
            _error = _payload > 0 ? Text(0, Math.Min(_payload, NbdWire.MaximumText)) : null;
        }
        else if (!IsExpected(option, _reply))
        {
            throw Wrong($"it answers option {(uint)option} with {(uint)_reply}");
        }
    }

    private static bool IsExpected(NbdOption option, NbdOptionReply reply) => reply == NbdOptionReply.Ack || (option, reply) is
        (NbdOption.List, NbdOptionReply.Server)
        or (NbdOption.Go or NbdOption.Info, NbdOptionReply.Info)
        or (NbdOption.SetMetaContext or NbdOption.ListMetaContext, NbdOptionReply.MetaContext);

    private void TakeExport(ulong length, int flags)
    {
        if (length > long.MaxValue)
        {
            throw Wrong($"its export has {length:#,0} bytes; at most {long.MaxValue:#,0} can be addressed");
        }
        _info = _info with
        {
            Length = (long)length,
            Flags = (flags & (int)NbdExportFlags.HasFlags) != 0 ? (NbdExportFlags)flags : NbdExportFlags.None,
        };
    }

    private void TakeBlockSizes(uint minimum, uint preferred, uint maximum)
    {
        bool isSound = System.Numerics.BitOperations.IsPow2(minimum) && minimum <= 1 << 16
            && System.Numerics.BitOperations.IsPow2(preferred) && preferred >= minimum && preferred <= NbdWire.MaximumPayload
            && (maximum == uint.MaxValue || maximum % minimum == 0) && maximum >= minimum;
        if (!isSound)
        {
            throw Wrong($"its block sizes are {minimum:#,0}, {preferred:#,0}, {maximum:#,0}; a minimum is a power of two of at most "
                + "65,536, what is preferred a power of two from there on, a maximum a multiple of the minimum");
        }
        _info = _info with
        {
            MinimumBlock = (int)minimum, PreferredBlock = (int)preferred, MaximumPayload = maximum == uint.MaxValue ? 0 : maximum,
        };
    }

    private void RefuseTls(string why)
    {
        if (wishes.Tls)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Refused, $"{Name}: {why}; nothing is sent in the clear where TLS is wanted", Name);
        }
    }

    private DiskImageException Refused(string what)
    {
        (DiskImageErrorKind kind, string why) = _reply switch
        {
            NbdOptionReply.Unknown => (DiskImageErrorKind.NotFound, "it has none of that name"),
            NbdOptionReply.TlsRequired => (
                DiskImageErrorKind.AccessDenied, "it wants TLS. Use nbds:// or nbds+unix://, with tls-creds where it wants a certificate"),
            NbdOptionReply.Policy => (DiskImageErrorKind.AccessDenied, "its policy forbids it"),
            NbdOptionReply.Unsupported => (DiskImageErrorKind.Unsupported, "it does not know how"),
            NbdOptionReply.Shutdown => (DiskImageErrorKind.Io, "it is shutting down"),
            NbdOptionReply.BlockSizeRequired => (DiskImageErrorKind.Unsupported, "it wants its block sizes to be kept to"),
            _ => (DiskImageErrorKind.Io, $"it answers with error {(uint)_reply & 0x7fffffff}"),
        };
        string said = string.IsNullOrEmpty(_error) ? "" : $" It says: {_error}";
        return new DiskImageException(kind, $"{Name}: {what}: {why}.{said}", Name);
    }

    private void SendOption(NbdOption option, byte[] data)
    {
        Send64(NbdWire.OptionMagic);
        Send32((uint)option);
        Send32((uint)data.Length);
        SendBytes(data);
    }

    private static byte[] InfoQuery(string export)
    {
        byte[] text = Utf8(export);
        var query = new List<byte>(text.Length + 12);
        Add32(query, text.Length);
        query.AddRange(text);
        query.AddRange([0, 3, 0, (byte)NbdInfo.Name, 0, (byte)NbdInfo.Description, 0, (byte)NbdInfo.BlockSize]);
        return [.. query];
    }

    private static byte[] ContextQuery(string export, IReadOnlyList<string> contexts)
    {
        byte[] text = Utf8(export);
        var query = new List<byte>();
        Add32(query, text.Length);
        query.AddRange(text);
        Add32(query, contexts.Count);
        foreach (byte[] context in contexts.Select(Utf8))
        {
            Add32(query, context.Length);
            query.AddRange(context);
        }
        return [.. query];
    }

    private static byte[] Utf8(string text) => Encoding.UTF8.GetBytes(text);

    private static void Add32(List<byte> bytes, int value)
        => bytes.AddRange([(byte)(value >> 24), (byte)(value >> 16), (byte)(value >> 8), (byte)value]);
}
