using System.Diagnostics;
using DiskImage.Block;

namespace DiskImage.Crypto;

/// <summary>What making a key from a secret may take: the numbers stand in a header that anybody may have written.</summary>
/// <param name="Iterations">Iterations of one key derivation at most.</param>
/// <param name="MemoryBytes">Memory of one key derivation at most.</param>
internal sealed record KeyLimits(long Iterations, long MemoryBytes)
{
    /// <summary>About a minute, and what cryptsetup takes at most when it chooses for itself. Ours.</summary>
    public const long DefaultIterations = 200_000_000, DefaultMemory = 1L << 30;

    /// <summary>Passes over memory that one of Argon2's iterations may be made of, beside its own number. Ours.</summary>
    private const long MostPassedBytes = 64L << 30;

    /// <summary>The usual ones.</summary>
    public static KeyLimits Default { get; } = new(DefaultIterations, DefaultMemory);

    /// <summary>Refuses a number of iterations of PBKDF2, with the time it would take.</summary>
    public void Require(string path, string what, HashAlgorithm hash, long iterations, int keyLength, long at)
    {
        if (iterations <= Iterations)
        {
            return;
        }
        double minutes = iterations / (double)Calibration.IterationsPerSecond(hash, keyLength) / 60;
        throw new DiskImageException(
            DiskImageErrorKind.OutOfRange,
            $"{path}: {what} has {iterations:#,0} iterations of {hash.Text()}, which would take about {Math.Max(1, minutes):#,0} minutes "
                + $"here; allowed: up to {Iterations:#,0}. If you know the image, allow more with the option max-iterations.",
            path,
            at);
    }

    /// <summary>Refuses what Argon2 is to take.</summary>
    public void RequireMemory(string path, string what, long memoryBytes, long passes, long at)
    {
        if (memoryBytes > MemoryBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{path}: {what} takes {memoryBytes:#,0} bytes of memory to open; allowed: up to {MemoryBytes:#,0}. If you know the image, "
                    + "allow more with the option max-memory.",
                path,
                at);
        }
        if (passes > MostPassedBytes / Math.Max(1, memoryBytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{path}: {what} goes {passes:#,0} times over {memoryBytes:#,0} bytes of memory; allowed: "
                    + $"up to {MostPassedBytes:#,0} bytes in all",
                path,
                at);
        }
    }
}

/// <summary>How fast this machine is at making keys from secrets.</summary>
internal static class Calibration
{
    /// <summary>Iterations at least, however slow: QEMU's limit, and the standard's.</summary>
    public const int FewestIterations = 1000;

    private const int LongEnough = 50; // milliseconds of a measurement

    /// <summary>Iterations of PBKDF2 in a second.</summary>
    public static long IterationsPerSecond(HashAlgorithm hash, int keyLength)
    {
        using var key = new SecretBuffer(keyLength);
        for (int count = 1 << 12; ; count *= 2)
        {
            long started = Stopwatch.GetTimestamp();
            hash.Pbkdf2("passphrase"u8, "0123456789abcdef0123456789abcdef"u8, count, key.Span);
            double elapsed = Stopwatch.GetElapsedTime(started).TotalMilliseconds;
            if (elapsed >= LongEnough || count >= 1 << 28)
            {
                return (long)Math.Max(FewestIterations, count / Math.Max(elapsed, 0.001) * 1000);
            }
        }
    }

    /// <summary>Iterations that take a time on this machine.</summary>
    /// <param name="perSecond">See <see cref="IterationsPerSecond"/>.</param>
    /// <param name="milliseconds">The time.</param>
    public static int Iterations(long perSecond, long milliseconds)
        => (int)Math.Clamp(perSecond * milliseconds / 1000, FewestIterations, int.MaxValue);
}
