using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>
/// One of the two copies of a LUKS2 header: fixed fields, then JSON text, under one checksum. Spec: LUKS2 On-Disk Format
/// Specification 1.1.1.
/// </summary>
/// <param name="Size">Bytes of the copy, JSON text included.</param>
/// <param name="Sequence">Which of two copies is newer.</param>
/// <param name="Json">The text.</param>
/// <param name="Fixed">The fixed fields as they stand.</param>
internal sealed record Luks2Copy(int Size, ulong Sequence, JsonObject Json, byte[] Fixed)
{
    public const int FixedBytes = 4096, SmallestSize = 16 << 10, LargestSize = 4 << 20; // spec

    private const int SizeAt = 8, SequenceAt = 16, ChecksumAlgorithmAt = 72, SaltAt = 104, SaltBytes = 64, UuidAt = 168, UuidBytes = 40;
    private const int OffsetAt = 256, ChecksumAt = 448, ChecksumBytes = 64, NameBytes = 32;
    private const int MostDepth = 32; // of the JSON text. Ours

    private static readonly JsonDocumentOptions s_strict = new() { MaxDepth = MostDepth, AllowDuplicateProperties = false };

    public string Uuid => Text(Fixed, UuidAt, UuidBytes);

    /// <summary>What is wrong with what is no copy at all.</summary>
    public const string NotThere = "its magic or version is missing";

    /// <summary>Reads a copy; null, with what is wrong, if there is none that is whole.</summary>
    /// <param name="area">Where the header is.</param>
    /// <param name="offset">Where in it the copy is to be.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<(Luks2Copy? Copy, string Wrong)> ReadAsync(
        LuksArea area, long offset, CancellationToken cancellationToken)
    {
        byte[] start = new byte[FixedBytes];
        await area.ReadAsync(offset, start, cancellationToken).ConfigureAwait(false);
        bool isSecond = offset > 0;
        if (!start.AsSpan(0, 6).SequenceEqual(Magic(isSecond)) || start[7] != 2 || start[6] != 0)
        {
            return (null, NotThere);
        }
        ulong size = BigEndian.U64(start, SizeAt), at = BigEndian.U64(start, OffsetAt);
        if (size is < SmallestSize or > LargestSize || size % FixedBytes != 0)
        {
            return (null, $"it has {size:#,0} bytes; allowed: {SmallestSize:#,0} to {LargestSize:#,0}");
        }
        if (at != (ulong)offset)
        {
            return (null, $"it says that it is at offset {at:#,0}, and is at {offset:#,0}");
        }
        string checksum = Text(start, ChecksumAlgorithmAt, NameBytes);
        if (Hashes.Find(checksum) is not { } hash)
        {
            return (null, $"its checksum is of an unknown kind, '{checksum}'");
        }
        byte[] text = new byte[(int)size - FixedBytes];
        await area.ReadAsync(offset + FixedBytes, text, cancellationToken).ConfigureAwait(false);
        if (!Checksum(hash, start, text).AsSpan().SequenceEqual(start.AsSpan(ChecksumAt, hash.Length())))
        {
            return (null, "its checksum does not fit its contents");
        }
        try
        {
            int end = Array.IndexOf(text, (byte)0);
            JsonNode? json = JsonNode.Parse(text.AsSpan(0, end < 0 ? text.Length : end), null, s_strict);
            RequireText(json);
            return json is JsonObject whole
                ? (new Luks2Copy((int)size, BigEndian.U64(start, SequenceAt), whole, start), "")
                : (null, "its text is no JSON object");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException) // the latter of what is no text in any encoding
        {
            return (null, $"its text is no JSON: {e.Message}");
        }
    }

    /// <summary>Reads every name and text, which is otherwise done when they are asked for.</summary>
    /// <exception cref="InvalidOperationException">One is no valid Unicode.</exception>
    private static void RequireText(JsonNode? node)
    {
        switch (node)
        {
            case JsonObject members:
                foreach ((_, JsonNode? member) in members)
                {
                    RequireText(member);
                }
                break;
            case JsonArray elements:
                foreach (JsonNode? element in elements)
                {
                    RequireText(element);
                }
                break;
            case JsonValue value when value.GetValueKind() == JsonValueKind.String:
                _ = value.GetValue<string>();
                break;
            default:
                break;
        }
    }

    /// <summary>The first copy of a new header.</summary>
    public static Luks2Copy New(JsonObject json, Guid uuid)
    {
        byte[] bytes = new byte[FixedBytes];
        _ = Encoding.ASCII.GetBytes("sha256", bytes.AsSpan(ChecksumAlgorithmAt, NameBytes));
        _ = Encoding.ASCII.GetBytes(uuid.ToString(), bytes.AsSpan(UuidAt, UuidBytes - 1));
        return new(SmallestSize, 0, (JsonObject)JsonNode.Parse(json.ToJsonString(), null, s_strict)!, bytes);
    }

    /// <summary>Writes both copies, the first durably before the second, with a text; returns what they are then.</summary>
    public async ValueTask<Luks2Copy> WriteBothAsync(LuksArea area, JsonObject json)
    {
        var read = (JsonObject)JsonNode.Parse(json.ToJsonString(), null, s_strict)!; // as whoever reads it next has it
        Luks2Copy next = this with { Sequence = Sequence + 1, Json = read };
        (byte[] first, byte[] second) = (next.ToBytes(area, isSecond: false), next.ToBytes(area, isSecond: true));
        await area.WriteDurablyAsync(0, first).ConfigureAwait(false);
        await area.WriteDurablyAsync(Size, second).ConfigureAwait(false);
        return next;
    }

    /// <summary>The bytes of a copy.</summary>
    public byte[] ToBytes(LuksArea area, bool isSecond)
    {
        byte[] all = new byte[Size];
        byte[] text = Encoding.UTF8.GetBytes(Json.ToJsonString());
        if (text.Length >= Size - FixedBytes)
        {
            throw area.Wrong(
                DiskImageErrorKind.NoSpace, $"its text of {text.Length:#,0} bytes does not fit into {Size - FixedBytes:#,0}", FixedBytes);
        }
        Fixed.CopyTo(all, 0);
        Magic(isSecond).CopyTo(all);
        (all[6], all[7]) = (0, 2);
        BigEndian.U64(all, SizeAt, (ulong)Size);
        BigEndian.U64(all, SequenceAt, Sequence);
        BigEndian.U64(all, OffsetAt, isSecond ? (ulong)Size : 0);
        RandomNumberGenerator.Fill(all.AsSpan(SaltAt, SaltBytes)); // of each copy its own
        text.CopyTo(all, FixedBytes);
        HashAlgorithm hash = Hashes.Find(Text(all, ChecksumAlgorithmAt, NameBytes))!.Value;
        all.AsSpan(ChecksumAt, ChecksumBytes).Clear();
        Checksum(hash, all.AsSpan(0, FixedBytes), all.AsSpan(FixedBytes)).CopyTo(all, ChecksumAt);
        return all;
    }

    private static byte[] Checksum(HashAlgorithm hash, ReadOnlySpan<byte> start, ReadOnlySpan<byte> text)
    {
        byte[] blank = start.ToArray(), digest = new byte[hash.Length()];
        blank.AsSpan(ChecksumAt, ChecksumBytes).Clear();
        hash.Hash(blank, text, digest);
        return digest;
    }

    private static ReadOnlySpan<byte> Magic(bool isSecond)
        => isSecond ? [(byte)'S', (byte)'K', (byte)'U', (byte)'L', 0xBA, 0xBE] : [(byte)'L', (byte)'U', (byte)'K', (byte)'S', 0xBA, 0xBE];

    private static string Text(ReadOnlySpan<byte> bytes, int at, int length)
    {
        ReadOnlySpan<byte> field = bytes.Slice(at, length);
        int end = field.IndexOf((byte)0);
        return Encoding.ASCII.GetString(end < 0 ? field : field[..end]);
    }
}
