namespace DiskImage.Bench;

/// <summary>The disk that is converted: a quarter holes, a quarter zeroes or holes, a quarter random, a quarter text, in turns.</summary>
internal static class Mix
{
    private const int Piece = 1 << 20, Run = 16; // 16 MiB of a kind, then the next kind

    /// <summary>Writes it; the same bytes every time.</summary>
    public static void Write(string path, long length)
    {
        var random = new Random(20240229);
        byte[] zeroes = new byte[Piece], noise = new byte[Piece], text = new byte[Piece];
        using FileStream file = File.Create(path, 1);
        file.SetLength(length);
        for (long at = 0, index = 0; at < length; at += Piece, index++)
        {
            byte[]? piece = ((index / Run) & 3) switch
            {
                0 => null,
                1 => index % 2 == 0 ? zeroes : null,
                2 => Noise(),
                _ => Text(),
            };
            if (piece is not null)
            {
                RandomAccess.Write(file.SafeFileHandle, piece.AsSpan(0, (int)Math.Min(Piece, length - at)), at);
            }
        }

        byte[] Noise()
        {
            random.NextBytes(noise);
            return noise;
        }

        byte[] Text()
        {
            string[] words =
            [
                "disk", "image", "block", "cluster", "the", "of", "and", "extent", "zero", "backing", "file", "node", "\n", "table", "a",
                "is",
            ];
            for (int i = 0; i < text.Length;)
            {
                string word = words[random.Next(words.Length)];
                for (int k = 0; k < word.Length && i < text.Length; k++)
                {
                    text[i++] = (byte)word[k];
                }
                if (i < text.Length)
                {
                    text[i++] = (byte)' ';
                }
            }
            return text;
        }
    }
}
