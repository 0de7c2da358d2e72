using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>One slot's record is damaged: the others open the disk, it is said, and nothing is written to what may be another's.</summary>
public sealed class LuksSlotFaultTests
{
    private const int IterationsAt = 4, OffsetAt = 40, StripesAt = 44;

    /// <summary>Slots 0 and 1 hold the key, under "first" and "second"; the others are empty.</summary>
    [Theory]
    [InlineData(0, 0, 7u, "state")]
    [InlineData(0, IterationsAt, 0u, "iterations")]
    [InlineData(0, StripesAt, 0u, "stripes")]
    [InlineData(0, StripesAt, 70_000u, "stripes")]
    [InlineData(0, StripesAt, uint.MaxValue, "stripes")]
    [InlineData(0, StripesAt, 65_536u, "where the data begins")]
    [InlineData(0, OffsetAt, 0u, "the header")]
    [InlineData(0, OffsetAt, uint.MaxValue, "where the data begins")]
    [InlineData(0, OffsetAt, 400u, "overlaps key slot 1")] // both may be the wrong one, and both are tried
    [InlineData(5, 0, 7u, "state")]
    [InlineData(5, StripesAt, 70_000u, "stripes")]
    [InlineData(5, OffsetAt, 8u, "overlaps key slot 0")]
    [InlineData(7, OffsetAt, 9_000u, "where the data begins")]
    public async Task The_other_slots_open_it_and_the_check_says_so(int slot, int field, uint value, string says)
    {
        byte[] image = await MakeAsync();
        BigEndian.U32(image, Luks1Header.RecordAt(slot) + field, value);
        var file = new MemoryNode(image);
        using LuksVolume volume = await OpenAsync(file);
        IReadOnlyList<CheckFinding> found = (await volume.CheckAsync(default)).Findings;
        Assert.Contains(found, f => f.Kind == "KeySlotRecord" && f.Message.Contains(says, StringComparison.Ordinal));
        Assert.Contains(volume.Warnings, w => w.StartsWith($"key slot {slot} ", StringComparison.Ordinal));
        Assert.All(found, f => Assert.Equal("KeySlotRecord", f.Kind));

        await UnlockAsync(volume, "second");
        if (slot == 0)
        {
            Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => UnlockAsync(volume, "first"))).Kind);
        }
        else
        {
            await UnlockAsync(volume, "first");
        }
        byte[] before = file.ToArray();
        Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(
            () => volume.AddAsync(Images.Secret("third"), slot, 1, default).AsTask())).Kind);
        if (volume.Slots[slot].IsActive)
        {
            Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(
                () => volume.RemoveAsync(slot, allowLast: true, default).AsTask())).Kind);
        }
        Assert.Equal(before, file.ToArray());
        int added = await volume.AddAsync(Images.Secret("third"), null, 1, default);
        Assert.Equal(2, added);
        Assert.Equal(image.AsSpan(Luks1Header.RecordAt(slot), 48), file.ToArray().AsSpan(Luks1Header.RecordAt(slot), 48));
        using LuksVolume again = await OpenAsync(file);
        await UnlockAsync(again, "third");
        await UnlockAsync(again, "second");
    }

    /// <summary>The one slot that is known to be sound is the last one, whatever the state of a damaged one says.</summary>
    [Fact]
    public async Task A_damaged_slot_does_not_count_as_one_that_holds_the_key()
    {
        byte[] image = await MakeAsync();
        BigEndian.U32(image, Luks1Header.RecordAt(0) + StripesAt, 0);
        using LuksVolume volume = await OpenAsync(new MemoryNode(image));
        Assert.Equal(DiskImageErrorKind.Refused, (await Assert.ThrowsAsync<DiskImageException>(
            () => volume.RemoveAsync(1, allowLast: false, default).AsTask())).Kind);
    }

    /// <summary>Slots where they belong, and yet on the data: the data's offset is wrong, and nothing is opened.</summary>
    [Theory]
    [InlineData(0)] // all on the data
    [InlineData(7)] // only the last one
    public async Task A_wrong_offset_of_the_data_is_no_slots_fault(int slot)
    {
        byte[] image = await MakeAsync();
        BigEndian.U32(image, 104, BigEndian.U32(image, Luks1Header.RecordAt(slot) + OffsetAt) + 1);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(new MemoryNode(image)));
        Assert.Equal(DiskImageErrorKind.Corrupt, e.Kind);
        Assert.Contains($"key slot {slot} ", e.Message, StringComparison.Ordinal);
    }

    private static async Task<byte[]> MakeAsync()
    {
        var file = new MemoryNode();
        CipherSpec cipher = new(CipherAlgorithm.Aes256, CipherMode.Xts, IvGeneration.Plain64, null);
        using SecretBuffer secret = SecretBuffer.Of("first"u8);
        using LuksVolume volume = await Luks1Volume.CreateAsync(
            new LuksArea(file, 0, long.MaxValue / 2), cipher, HashAlgorithm.Sha256, false, Guid.Empty, secret, 1, default);
        _ = await volume.AddAsync(Images.Secret("second"), null, 1, default);
        await file.ResizeAsync(volume.Payload + 4096);
        return file.ToArray();
    }

    private static async Task<LuksVolume> OpenAsync(BlockNode file)
        => await LuksVolume.OpenAsync(new LuksArea(file, 0, file.Length), KeyLimits.Default, default);

    private static async Task UnlockAsync(LuksVolume volume, string secret)
    {
        using SecretBuffer text = SecretBuffer.Of(System.Text.Encoding.UTF8.GetBytes(secret));
        await volume.UnlockAsync(text, default);
    }
}
