using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Conformance;

/// <summary>A LUKS image of its own contents.</summary>
public abstract class LuksConformance : NodeConformance
{
    private readonly string _options;

    protected LuksConformance(string options)
    {
        _options = options;
        Images.UseSecret("conformance");
    }

    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.luks"], "luks", $"size={contents.Length},iter-time=1,{_options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.luks"], writable: true))
        {
            await node.WriteAsync(0, contents); // what is not written reads as noise
        }
        return await Images.OpenAsync(Folder["disk.luks"], writable: writable);
    }
}

public sealed class LuksNodeTests() : LuksConformance("cipher-alg=aes-256");

/// <summary>An encrypted image with tables of its own contents, part of which shows through from below where it can.</summary>
public abstract class EncryptedConformance : NodeConformance
{
    private readonly string _format, _options;

    protected EncryptedConformance(string format, string options)
    {
        (_format, _options) = (format, options);
        Images.UseSecret("conformance");
    }

    private protected override bool CanResize => true;

    private protected override bool CanShrink => _format == "qcow2";

    private protected override bool CanPreallocate => CanShrink;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        const int BackingSize = Size - (400 << 10);
        byte[] below = contents[..BackingSize];
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.WriteSparseAsync(Folder["base.raw"], below);
        await Images.CreateAsync(
            Folder["top"], _format, $"size={Size},backing_file=base.raw{(_format == "qcow2" ? ",backing_fmt=raw" : "")},{_options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["top"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
            await node.WriteAsync(BackingSize, contents.AsMemory(BackingSize));
        }
        return await Images.OpenAsync(Folder["top"], writable: writable);
    }
}

public sealed class Qcow2LuksNodeTests() : EncryptedConformance("qcow2", "encrypt.format=luks,encrypt.iter-time=1");

public sealed class Qcow2AesSubclusterNodeTests() : EncryptedConformance("qcow2", "encrypt.format=aes,extended_l2=on");

public sealed class Qcow2AesNodeTests() : EncryptedConformance("qcow2", "encrypt.format=aes,cluster_size=4k");

public sealed class QcowAesNodeTests() : EncryptedConformance("qcow", "encrypt.format=aes");
