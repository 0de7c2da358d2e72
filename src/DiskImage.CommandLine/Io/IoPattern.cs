using System.Globalization;

namespace DiskImage.CommandLine;

/// <summary>What is written, and compared with what is read.</summary>
internal static class IoPattern
{
    private const byte Default = 0xcd; // QEMU's

    /// <summary>The byte that was given, decimal or 0x.</summary>
    /// <exception cref="CommandException">It is none.</exception>
    public static byte? Of(CommandArguments arguments)
    {
        if (arguments.Last("P") is not { } text)
        {
            return null;
        }
        bool isHex = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        return isHex && byte.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte hex) ? hex
            : byte.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out byte number) ? number
            : throw new CommandException($"{text} is not a valid pattern byte");
    }

    /// <summary>The bytes of a write: a file's, over and over, or one byte.</summary>
    public static byte[] Bytes(CommandArguments arguments, int length, ProgramIO io)
    {
        byte[] bytes = new byte[length];
        if (arguments.Last("s") is not { } file)
        {
            bytes.AsSpan().Fill(Of(arguments) ?? Default);
            return bytes;
        }
        try
        {
            using FileStream source = File.OpenRead(io.Full(file));
            int count = source.ReadAtLeast(bytes, length, throwOnEndOfStream: false);
            for (int at = count; count > 0 && at < length; at += count)
            {
                bytes.AsSpan(0, Math.Min(count, length - at)).CopyTo(bytes.AsSpan(at));
            }
            return count > 0 || length == 0 ? bytes : throw new CommandException($"{file}: file is empty");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"{file}: {e.Message}");
        }
    }

    /// <summary>Lines of sixteen bytes, with their offset and as text.</summary>
    public static void Dump(TextWriter output, ReadOnlySpan<byte> bytes, long offset)
    {
        for (int at = 0; at < bytes.Length; at += 16)
        {
            ReadOnlySpan<byte> row = bytes[at..Math.Min(at + 16, bytes.Length)];
            output.Write((offset + at).ToString("x8", CultureInfo.InvariantCulture) + ": ");
            foreach (byte value in row)
            {
                output.Write(' ');
                output.Write(value.ToString("x2", CultureInfo.InvariantCulture));
            }
            output.Write(new string(' ', 2));
            foreach (byte value in row)
            {
                output.Write(value is > 32 and < 127 ? (char)value : '.');
            }
            output.WriteLine();
        }
    }
}
