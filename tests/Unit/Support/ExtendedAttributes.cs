using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace DiskImage.Tests.Support;

/// <summary>Extended attributes of files on Linux: see xattr(7).</summary>
internal static partial class ExtendedAttributes
{
    /// <summary>Sets one.</summary>
    public static void Set(string path, string name, ReadOnlySpan<byte> value)
    {
        if (SetAttribute(path, name, value.ToArray(), value.Length, 0) != 0)
        {
            throw new IOException($"{path}: {name} cannot be set: {Marshal.GetLastPInvokeErrorMessage()}");
        }
    }

    /// <summary>Its value; null if the file does not have it.</summary>
    public static byte[]? Get(string path, string name)
    {
        byte[] value = new byte[65536];
        nint length = GetAttribute(path, name, value, value.Length);
        return length < 0 ? null : value[..(int)length];
    }

    /// <summary>Takes one away.</summary>
    public static void Remove(string path, string name) => _ = RemoveAttribute(path, name);

    /// <summary>
    /// An access control list as the kernel keeps it: rw for the owner, some rights for one user, nothing for others. See acl(5).
    /// </summary>
    public static byte[] List(uint user, ushort rights)
    {
        const uint Nobody = uint.MaxValue;
        (ushort Tag, ushort Rights, uint Id)[] entries =
            [(1, 6, Nobody), (2, rights, user), (4, 0, Nobody), (16, rights, Nobody), (32, 0, Nobody)];
        byte[] list = new byte[4 + (8 * entries.Length)];
        BinaryPrimitives.WriteUInt32LittleEndian(list, 2);
        for (int i = 0; i < entries.Length; i++)
        {
            Span<byte> entry = list.AsSpan(4 + (8 * i));
            BinaryPrimitives.WriteUInt16LittleEndian(entry, entries[i].Tag);
            BinaryPrimitives.WriteUInt16LittleEndian(entry[2..], entries[i].Rights);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], entries[i].Id);
        }
        return list;
    }

    [LibraryImport("libc", EntryPoint = "setxattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetAttribute(string path, string name, byte[] value, nint size, int flags);

    [LibraryImport("libc", EntryPoint = "getxattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint GetAttribute(string path, string name, [Out] byte[] value, nint size);

    [LibraryImport("libc", EntryPoint = "removexattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int RemoveAttribute(string path, string name);
}
