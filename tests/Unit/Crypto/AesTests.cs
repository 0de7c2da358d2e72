using DiskImage.Block;
using DiskImage.Crypto;

namespace DiskImage.Tests.Crypto;

/// <summary>AES by the processor's instructions, beside the published examples and the platform's.</summary>
public sealed class AesTests
{
    /// <summary>FIPS 197, appendix C.</summary>
    [Theory]
    [InlineData("000102030405060708090a0b0c0d0e0f", "69c4e0d86a7b0430d8cdb78070b4c55a")]
    [InlineData("000102030405060708090a0b0c0d0e0f1011121314151617", "dda97ca4864cdfe06eaf70a0ec0d7191")]
    [InlineData("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "8ea2b7ca516745bfeafc49904b496089")]
    public void Published_examples_hold(string key, string encrypted)
    {
        byte[] plain = Convert.FromHexString("00112233445566778899aabbccddeeff"), made = new byte[16];
        foreach (IBlockCipher cipher in Both(Convert.FromHexString(key)))
        {
            using (cipher)
            {
                cipher.Encrypt(plain, made);
                Assert.Equal(encrypted, Convert.ToHexStringLower(made));
                cipher.Decrypt(made, made);
                Assert.Equal(plain, made);
            }
        }
    }

    [ProcessorFact]
    public void The_processor_does_as_the_platform()
    {
        foreach (int keyBytes in new[] { 16, 24, 32 })
        {
            Compare(keyBytes);
        }
    }

    private static void Compare(int keyBytes)
    {
        var random = new Random(keyBytes);
        byte[] key = new byte[keyBytes];
        for (int blocks = 0; blocks < 50; blocks++)
        {
            random.NextBytes(key);
            byte[] data = new byte[blocks * 16], expected = new byte[data.Length], made = new byte[data.Length];
            random.NextBytes(data);
            using var platform = new PlatformAes(key);
            using var processor = new HardwareAes(key);
            platform.Encrypt(data, expected);
            processor.Encrypt(data, made);
            Assert.Equal(expected, made);
            processor.Encrypt(data.AsSpan(), expected); // into its own place and into another
            processor.Decrypt(expected, expected);
            Assert.Equal(data, expected);
            platform.Decrypt(data, expected);
            processor.Decrypt(data, made);
            Assert.Equal(expected, made);
        }
    }

    [ProcessorFact]
    public void A_request_allocates_nothing_and_none_comes_after_the_end()
    {
        byte[] data = new byte[1 << 16];
        using ISectorCipher cipher = new CipherSpec(CipherAlgorithm.Aes256, CipherMode.Xts, IvGeneration.Plain64, null).Make(new byte[64]);
        long Take()
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 100; i++)
            {
                cipher.Encrypt(data, 0);
                cipher.Decrypt(data, 0);
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Assert.Contains(0, Enumerable.Range(0, 5).Select(_ => Take())); // what is made once, and the runtime's own, is no request's
        cipher.Dispose();
        Action late = () => cipher.Encrypt(data, 0);
        Assert.Throws<ObjectDisposedException>(late); // not with a key of zeroes
    }

    private static IEnumerable<IBlockCipher> Both(byte[] key)
        => HardwareAes.IsSupported ? [new PlatformAes(key), new HardwareAes(key)] : [new PlatformAes(key)];

    private sealed class ProcessorFactAttribute : FactAttribute
    {
        public ProcessorFactAttribute() => Skip = HardwareAes.IsSupported ? null : "this processor has no instructions for AES";
    }
}
