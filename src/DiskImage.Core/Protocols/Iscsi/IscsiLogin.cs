using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>Where a target wants its clients to go instead.</summary>
/// <param name="Address">Host and port, and perhaps the group of portals behind a comma.</param>
/// <param name="IsPermanent">It holds for later logins, too.</param>
internal sealed record IscsiRedirection(string Address, bool IsPermanent);

/// <summary>What is wanted of a login.</summary>
internal sealed record IscsiWishes
{
    /// <summary>Who one is.</summary>
    public required string InitiatorName { get; init; }

    /// <summary>The target; null for a discovery session, which is told what targets there are.</summary>
    public string? Target { get; init; }

    /// <summary>Digests of headers that are taken, the preferred one first.</summary>
    public string HeaderDigest { get; init; } = "None";

    /// <summary>The same for data.</summary>
    public string DataDigest { get; init; } = "None";

    /// <summary>How one proves who one is.</summary>
    public IscsiCredentials Credentials { get; init; } = IscsiCredentials.None;

    /// <summary>
    /// The initiator's part of the session's number: a login with the same one takes the place of the session that has it.
    /// </summary>
    public required ReadOnlyMemory<byte> SessionId { get; init; }
}

/// <summary>
/// The login phase, without I/O: one request, one response, and so on, through the security stage and the operational stage to the full
/// feature phase. Spec: RFC 7143, sections 6.3, 11.12, 11.13, 12 and 13.
/// </summary>
/// <param name="name">What the target is called in messages.</param>
/// <param name="wishes">What is wanted.</param>
internal sealed class IscsiLogin(string name, IscsiWishes wishes) : IIscsiPdus
{
    private const int MostExchanges = 64; // ours: a negotiation comes to an end
    private const uint FirstCommand = 1; // number of the first command that is not immediate, and so of all login requests
    private const int Security = 0, Operational = 1, FullFeature = 3; // stages

    private readonly Dictionary<string, string> _answers = new(StringComparer.Ordinal);
    private readonly List<byte> _text = []; // of a response in several PDUs
    private readonly List<KeyValuePair<string, string>> _said = []; // what is sent next
    private byte[] _output = [];
    private byte[] _challenge = []; // ours
    private byte _identifier;
    private int _stage = Security, _exchanges, _textLength;
    private ushort _sessionHandle;
    private uint _statusNumber, _lastCommand;
    private bool _moves, _isSaid;

    /// <summary>The full feature phase is reached.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Where the target sends its clients; then the login is over, too. Null if it does not.</summary>
    public IscsiRedirection? Redirection { get; private set; }

    /// <summary>What was agreed on, once it is over.</summary>
    public IscsiAgreement Agreement { get; private set; } = new();

    private bool ProvesItself => wishes.Credentials.User is not null;

    private int NextStage => _stage == Security ? Operational : FullFeature;

    private bool AsksForProof => wishes.Credentials.TargetUser is not null;

    /// <summary>Begins: the first request is there to be sent.</summary>
    public void Start()
    {
        Say("InitiatorName", wishes.InitiatorName);
        if (wishes.Target is { } target)
        {
            Say("TargetName", target);
        }
        Say("SessionType", wishes.Target is null ? "Discovery" : "Normal");
        Say("AuthMethod", AsksForProof ? "CHAP" : ProvesItself ? "CHAP,None" : "None");
        Send(moves: !ProvesItself);
    }

    /// <summary>The bytes to be sent now; none if there are none.</summary>
    public ReadOnlyMemory<byte> TakeOutput()
    {
        byte[] output = _output;
        _output = [];
        return output;
    }

    /// <inheritdoc/>
    public Memory<byte>? PlaceOf(ReadOnlySpan<byte> header, int at) => null;

    /// <inheritdoc/>
    public void Check(ReadOnlySpan<byte> header)
    {
        if (IscsiWire.OpcodeOf(header) is var opcode and not IscsiOpcode.LoginResponse)
        {
            throw IscsiText.Wrong(name, opcode == IscsiOpcode.Reject
                ? $"it rejects a login request, reason {header[2]:X2}h"
                : $"it answers a login request with a PDU of type {(int)opcode:X2}h");
        }
    }

    /// <inheritdoc/>
    public void Take(ReadOnlySpan<byte> header, ReadOnlySpan<byte> data)
    {
        _exchanges++;
        if (_exchanges > MostExchanges || _textLength + data.Length > IscsiText.Longest)
        {
            throw IscsiText.Wrong(name, $"a login took more than {MostExchanges} exchanges, or {IscsiText.Longest:#,0} bytes of text");
        }
        _textLength += data.Length;
        _text.AddRange(data);
        CheckStatus(header);
        if (IsOver)
        {
            return;
        }
        _statusNumber = BinaryPrimitives.ReadUInt32BigEndian(header[24..]) + 1;
        _lastCommand = BinaryPrimitives.ReadUInt32BigEndian(header[32..]);
        _sessionHandle = BinaryPrimitives.ReadUInt16BigEndian(header[14..]);
        int current = (header[1] >> 2) & 3, next = header[1] & 3;
        if (current != _stage)
        {
            throw IscsiText.Wrong(name, $"it answers stage {_stage} of the login for stage {current}");
        }
        bool more = (header[1] & IscsiWire.Continue) != 0, moves = (header[1] & IscsiWire.Final) != 0;
        if (more)
        {
            Send(moves: false);
            return;
        }
        foreach ((string key, string value) in IscsiText.Read(name, _text.ToArray()))
        {
            Hear(key, value);
        }
        _text.Clear();
        if (moves && (!_moves || next != NextStage))
        {
            throw IscsiText.Wrong(name, $"it moves the login from stage {current} to {next} without having been asked to");
        }
        Continue(moves ? next : current);
    }

    private void Continue(int stage)
    {
        if (_stage == Security && stage != Security)
        {
            RequireProof();
        }
        bool isNew = stage != _stage;
        _stage = stage;
        switch (stage)
        {
            case FullFeature:
                Agree();
                break;
            case Operational:
                if (isNew || !_isSaid)
                {
                    SayWishes();
                }
                Send(moves: true);
                break;
            default:
                Prove();
                break;
        }
    }

    /// <summary>The security stage: what is said next. Spec: RFC 7143, section 12.1.3.</summary>
    private void Prove()
    {
        string? method = _answers.GetValueOrDefault("AuthMethod");
        if (method is null or "None" || !ProvesItself)
        {
            if (method is not (null or "None"))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.SecretRequired,
                    $"{name}: the target asks for proof of who one is ({method}), and no user is given. Give user and password.", name);
            }
            Send(moves: true);
            return;
        }
        if (method is not "CHAP")
        {
            throw IscsiText.Wrong(name, $"it chooses to authenticate by '{method}', which was not offered");
        }
        if (_answers.Remove("CHAP_C", out string? challenge))
        {
            string algorithm = _answers.GetValueOrDefault("CHAP_A") ?? "";
            if (!IscsiChap.IsKnown(algorithm) || !byte.TryParse(_answers.GetValueOrDefault("CHAP_I"), out byte identifier)
                || IscsiChap.Read(challenge) is not { } asked)
            {
                throw IscsiText.Wrong(
                    name, "its challenge (CHAP_A, CHAP_I, CHAP_C) is incomplete, or by an algorithm that was not offered");
            }
            if (_challenge.Length > 0)
            {
                throw IscsiText.Wrong(name, "it challenges a second time");
            }
            IscsiCredentials own = wishes.Credentials;
            Say("CHAP_N", own.User!);
            Say("CHAP_R", IscsiChap.Write(IscsiChap.Respond(algorithm, identifier, own.Secret!, asked)));
            _challenge = RandomNumberGenerator.GetBytes(algorithm is "5" ? 16 : 20);
            if (AsksForProof)
            {
                _identifier = RandomNumberGenerator.GetBytes(1)[0];
                Say("CHAP_I", _identifier.ToString(CultureInfo.InvariantCulture));
                Say("CHAP_C", IscsiChap.Write(_challenge));
            }
            Send(moves: true);
        }
        else if (_challenge.Length == 0)
        {
            Say("CHAP_A", IscsiChap.Offered);
            Send(moves: false);
        }
        else
        {
            Send(moves: true); // it has our answer, and takes its time
        }
    }

    /// <summary>The target has proved who it is, if it was to; nobody is let in by silence.</summary>
    private void RequireProof()
    {
        if (!AsksForProof)
        {
            return;
        }
        string algorithm = _answers.GetValueOrDefault("CHAP_A") ?? "";
        byte[]? response = _answers.GetValueOrDefault("CHAP_R") is { } text ? IscsiChap.Read(text) : null;
        IscsiCredentials own = wishes.Credentials;
        bool isProven = _challenge.Length > 0 && response is not null && IscsiChap.IsKnown(algorithm)
            && own.TargetUser!.Equals(_answers.GetValueOrDefault("CHAP_N"), StringComparison.Ordinal)
            && CryptographicOperations.FixedTimeEquals(
                response, IscsiChap.Respond(algorithm, _identifier, own.TargetSecret!, _challenge));
        if (!isProven)
        {
            throw new DiskImageException(
                DiskImageErrorKind.WrongSecret,
                $"{name}: the target did not prove that it is '{own.TargetUser}': it does not know the secret of that name, or "
                    + "has no outgoing account",
                name);
        }
    }

    /// <summary>The operational stage: what is offered. Spec: RFC 7143, section 13.</summary>
    private void SayWishes()
    {
        _isSaid = true;
        Say("HeaderDigest", wishes.HeaderDigest);
        Say("DataDigest", wishes.DataDigest);
        Say("MaxRecvDataSegmentLength", IscsiWire.LongestSegment.ToString(CultureInfo.InvariantCulture));
        Say("DefaultTime2Wait", "0");
        Say("DefaultTime2Retain", "0");
        Say("ErrorRecoveryLevel", "0");
        if (wishes.Target is not null)
        {
            Say("InitialR2T", "No");
            Say("ImmediateData", "Yes");
            Say("MaxBurstLength", "16776192");
            Say("FirstBurstLength", "262144");
            Say("MaxOutstandingR2T", "1");
            Say("MaxConnections", "1");
            Say("DataPDUInOrder", "Yes");
            Say("DataSequenceInOrder", "Yes");
        }
    }

    /// <summary>A key of the target: an answer, or something it begins with.</summary>
    private void Hear(string key, string value)
    {
        bool isAnswer = _answers.TryAdd(key, value);
        if (!isAnswer)
        {
            _answers[key] = key is "TargetAddress" or "TargetAlias" or "TargetPortalGroupTag"
                ? value
                : throw IscsiText.Wrong(name, $"it says '{key}' twice");
        }
        string? reply = key switch
        {
            "IFMarker" or "OFMarker" => "No",
            "IFMarkInt" or "OFMarkInt" => "Irrelevant",
            "TaskReporting" => "RFC3720",
            "HeaderDigest" or "DataDigest" or "MaxRecvDataSegmentLength" or "DefaultTime2Wait" or "DefaultTime2Retain"
                or "ErrorRecoveryLevel" or "InitialR2T" or "ImmediateData" or "MaxBurstLength" or "FirstBurstLength" or "MaxOutstandingR2T"
                or "MaxConnections" or "DataPDUInOrder" or "DataSequenceInOrder" or "AuthMethod" or "TargetAlias" or "TargetAddress"
                or "TargetPortalGroupTag" or "CHAP_A" or "CHAP_I" or "CHAP_C" or "CHAP_N" or "CHAP_R" or "InitiatorAlias" => null,
            _ => "NotUnderstood",
        };
        if (reply is not null && value is not ("NotUnderstood" or "Irrelevant" or "Reject"))
        {
            Say(key, reply);
        }
    }

    private void Agree()
    {
        Agreement = new IscsiAgreement
        {
            HeaderDigest = Digest("HeaderDigest", wishes.HeaderDigest),
            DataDigest = Digest("DataDigest", wishes.DataDigest),
            ImmediateData = Switch("ImmediateData", otherwise: true),
            InitialR2T = Switch("InitialR2T", otherwise: true),
            TargetSegment = Number("MaxRecvDataSegmentLength", 512, 0xFFFFFF, IscsiWire.DefaultSegment),
            MaxBurst = Number("MaxBurstLength", 512, 0xFFFFFF, 262_144),
            FirstBurst = Number("FirstBurstLength", 512, 0xFFFFFF, 65_536),
            CommandNumber = FirstCommand,
            StatusNumber = _statusNumber,
            LastCommand = _lastCommand,
        };
        IsOver = true;
    }

    private bool Digest(string key, string offered)
    {
        string answer = Answer(key) ?? "None";
        return offered.Split(',').Contains(answer, StringComparer.Ordinal)
            ? answer is not "None"
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{name}: the target takes none of the digests that were offered for {key}: {offered}",
                name);
    }

    private bool Switch(string key, bool otherwise) => Answer(key) switch
    {
        null => otherwise,
        "Yes" => true,
        "No" => false,
        string other => throw IscsiText.Wrong(name, $"it answers {key} with '{other}'"),
    };

    private int Number(string key, int least, int most, int otherwise)
    {
        if (Answer(key) is not { } text)
        {
            return otherwise;
        }
        bool isHex = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        NumberStyles style = isHex ? NumberStyles.AllowHexSpecifier : NumberStyles.None;
        return int.TryParse(isHex ? text[2..] : text, style, CultureInfo.InvariantCulture, out int number)
            && number >= least && number <= most
            ? number
            : throw IscsiText.Wrong(name, $"it answers {key} with '{text}'; allowed: {least:#,0} to {most:#,0}");
    }

    private string? Answer(string key)
        => _answers.GetValueOrDefault(key) is { } answer && answer is not ("NotUnderstood" or "Irrelevant" or "Reject") ? answer : null;

    private void CheckStatus(ReadOnlySpan<byte> header)
    {
        (int group, int detail) = (header[36], header[37]);
        if (group == 0)
        {
            return;
        }
        if (group == 1)
        {
            string? address = IscsiText.Read(name, _text.ToArray())
                .Where(p => p.Key is "TargetAddress").Select(p => p.Value).FirstOrDefault();
            Redirection = new IscsiRedirection(
                address ?? throw IscsiText.Wrong(name, "it sends its clients elsewhere and does not say where"), detail == 2);
            IsOver = true;
            return;
        }
        (DiskImageErrorKind kind, string what) = ((group << 8) | detail) switch
        {
            0x0201 => (DiskImageErrorKind.WrongSecret, ProvesItself
                ? "it does not take the user or the password that were given"
                    + (AsksForProof ? $", or cannot prove that it is '{wishes.Credentials.TargetUser}'" : "")
                : "it wants proof of who one is, and no user is given"),
            0x0202 => (DiskImageErrorKind.AccessDenied, $"it does not let the initiator '{wishes.InitiatorName}' in"),
            0x0203 => (DiskImageErrorKind.NotFound, $"it has no target '{wishes.Target}'"),
            0x0204 => (DiskImageErrorKind.NotFound, $"the target '{wishes.Target}' has been removed"),
            0x0205 => (DiskImageErrorKind.Unsupported, "it does not speak this version of iSCSI"),
            0x0206 => (DiskImageErrorKind.Io, "it has too many connections of this initiator"),
            0x0209 => (DiskImageErrorKind.Unsupported, "it does not have sessions of this type"),
            0x0301 => (DiskImageErrorKind.Io, "it is not in service at the moment"),
            0x0302 => (DiskImageErrorKind.Io, "it has no resources left"),
            _ => (DiskImageErrorKind.Io, $"status {group:X2}{detail:X2}h"),
        };
        throw new DiskImageException(kind, $"{name}: the target refuses the login: {what}", name);
    }

    private void Say(string key, string value) => _said.Add(new(key, value));

    private void Send(bool moves)
    {
        byte[] text = IscsiText.Write(_said);
        _said.Clear();
        if (text.Length > IscsiWire.DefaultSegment)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{name}: names and secrets are too long for a login: {text.Length:#,0} bytes", name);
        }
        _moves = moves;
        _output = new byte[IscsiWire.HeaderLength + IscsiWire.Padded(text.Length)];
        Span<byte> header = _output;
        header[0] = IscsiWire.Immediate | (byte)IscsiOpcode.LoginRequest;
        header[1] = (byte)((moves ? IscsiWire.Final | NextStage : 0) | (_stage << 2));
        IscsiWire.SetSegment(header, text.Length);
        wishes.SessionId.Span.CopyTo(header[8..]);
        BinaryPrimitives.WriteUInt16BigEndian(header[14..], _sessionHandle);
        BinaryPrimitives.WriteUInt32BigEndian(header[24..], FirstCommand);
        BinaryPrimitives.WriteUInt32BigEndian(header[28..], _statusNumber);
        text.CopyTo(header[IscsiWire.HeaderLength..]);
    }
}
