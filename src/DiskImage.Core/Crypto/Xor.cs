using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace DiskImage.Crypto;

/// <summary>Adds bytes to others.</summary>
internal static class Xor
{
    /// <summary><paramref name="data"/> becomes <paramref name="data"/> xor <paramref name="other"/>, which is at least as long.</summary>
    public static void Into(Span<byte> data, ReadOnlySpan<byte> other)
    {
        Span<Vector256<byte>> wide = MemoryMarshal.Cast<byte, Vector256<byte>>(data);
        ReadOnlySpan<Vector256<byte>> more = MemoryMarshal.Cast<byte, Vector256<byte>>(other[..data.Length]);
        for (int i = 0; i < wide.Length; i++)
        {
            wide[i] ^= more[i];
        }
        for (int i = wide.Length * Vector256<byte>.Count; i < data.Length; i++)
        {
            data[i] ^= other[i];
        }
    }
}
