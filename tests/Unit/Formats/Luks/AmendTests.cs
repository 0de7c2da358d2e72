using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>Key slots changed by options, as QEMU's amend has it, and judged by it.</summary>
public sealed class AmendTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public AmendTests() => Images.Secrets.Value = new Dictionary<string, SecureString>(StringComparer.Ordinal)
    {
        ["image"] = Images.Secret(LuksQemu.Passphrase),
        ["s1"] = Images.Secret("the second one"),
        ["s2"] = Images.Secret("the third one"),
        [""] = Images.Secret(LuksQemu.Passphrase),
    };

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("luks", "")]
    [InlineData("qcow2", "encrypt.")]
    public async Task Slots_are_filled_and_emptied_by_options(string format, string prefix)
    {
        await MakeAsync(format, prefix);
        await AmendAsync(format, prefix, "state=active,new-secret=s1,keyslot=5,iter-time=1");
        Assert.Equal("0, 5", await ActiveAsync());
        await AmendAsync(format, prefix, "state=active,new-secret=s2,iter-time=1"); // the first that is free
        await AmendAsync(format, prefix, "state=active,new-secret=s1,keyslot=3,iter-time=1");
        Assert.Equal("0, 1, 3, 5", await ActiveAsync());
        await AmendAsync(format, prefix, "state=inactive,keyslot=1");
        await AmendAsync(format, prefix, "state=inactive,old-secret=s1"); // all of its slots
        Assert.Equal("0", await ActiveAsync());
        if (Programs.WhyMissing("qemu-img") is null)
        {
            _ = await LuksQemu.IoAsync(_folder["image"], format == "luks" ? "luks" : "qcow2-luks", "read 0 512");
        }
    }

    [Theory]
    [InlineData("luks", "")]
    [InlineData("qcow2", "encrypt.")]
    public async Task What_does_not_fit_is_refused_before_anything_changes(string format, string prefix)
    {
        await MakeAsync(format, prefix);
        await AmendAsync(format, prefix, "state=active,new-secret=s1,iter-time=1");
        byte[] before = await File.ReadAllBytesAsync(_folder["image"]);
        foreach ((string change, DiskImageErrorKind kind) in new[]
        {
            ("new-secret=s2", DiskImageErrorKind.InvalidOption),
            ("state=active", DiskImageErrorKind.InvalidOption),
            ("state=active,new-secret=s2,old-secret=s1", DiskImageErrorKind.InvalidOption),
            ("state=active,new-secret=s2,keyslot=1", DiskImageErrorKind.InvalidOption), // in use
            ("state=active,new-secret=s2,keyslot=20", DiskImageErrorKind.InvalidOption), // not there
            ("state=active,new-secret=nobody", DiskImageErrorKind.SecretRequired),
            ("state=inactive", DiskImageErrorKind.InvalidOption),
            ("state=inactive,new-secret=s1", DiskImageErrorKind.InvalidOption),
            ("state=inactive,keyslot=1,old-secret=s1", DiskImageErrorKind.InvalidOption),
            ("state=inactive,keyslot=1,iter-time=5", DiskImageErrorKind.InvalidOption),
            ("state=inactive,keyslot=7", DiskImageErrorKind.NotFound),
            ("state=inactive,old-secret=s2", DiskImageErrorKind.WrongSecret), // opens none
        })
        {
            DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => AmendAsync(format, prefix, change));
            Assert.True(kind == e.Kind, $"{change}: {e.Message}");
        }
        Assert.Equal(before, await File.ReadAllBytesAsync(_folder["image"]));
        await AmendAsync(format, prefix, "state=inactive,old-secret=s1");
        foreach (string last in new[] { "state=inactive,keyslot=0", "state=inactive,old-secret=image" })
        {
            DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => AmendAsync(format, prefix, last));
            Assert.Equal(DiskImageErrorKind.Refused, e.Kind);
        }
    }

    [Fact]
    public async Task An_image_without_slots_has_none_to_change()
    {
        await Images.CreateAsync(_folder["image"], "qcow2", "size=1M,encrypt.format=aes");
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            () => AmendAsync("qcow2", "encrypt.", "state=active,new-secret=s1"));
        Assert.Equal(DiskImageErrorKind.Unsupported, e.Kind);
    }

    /// <summary>QEMU's amend of what is made here, and what it leaves read here.</summary>
    [OracleTheory]
    [InlineData("luks", "")]
    [InlineData("qcow2", "encrypt.")]
    public async Task QEMU_changes_the_same_slots(string format, string prefix)
    {
        await MakeAsync(format, prefix);
        string theirs = format == "luks" ? "luks" : "qcow2-luks";
        await LuksQemu.AmendAsync(
            _folder["image"], theirs, "the second one", $"{prefix}state=active,{prefix}new-secret=s1,{prefix}keyslot=2,{prefix}iter-time=10");
        Assert.Equal("0, 2", await ActiveAsync());
        await AmendAsync(format, prefix, "state=inactive,keyslot=0");
        Images.UseSecret("the second one");
        await using BlockNode disk = await Images.OpenAsync(_folder["image"]);
        Assert.Equal(2, await disk.As<IKeySlots>()!.FindKeySlotAsync(Images.Secret("the second one"), default));
    }

    private Task MakeAsync(string format, string prefix) => Images.CreateAsync(
        _folder["image"], format, $"size=1M,{(format == "qcow2" ? "encrypt.format=luks," : "")}{prefix}iter-time=1");

    private async Task AmendAsync(string format, string prefix, string change)
    {
        var driver = (IAmendable)Images.Registry.Format(format);
        object options = driver.AmendOptions.Bind(OptionSchema.Split(string.Join(',', change.Split(',').Select(c => prefix + c))));
        await using BlockNode disk = await Images.OpenAsync(_folder["image"], writable: true);
        await driver.AmendAsync(disk, options, null, default);
    }

    private async Task<string> ActiveAsync()
    {
        await using BlockNode disk = await Images.OpenAsync(_folder["image"]);
        return string.Join(", ", disk.As<IKeySlots>()!.GetKeySlots().Where(s => s.IsActive).Select(s => s.Number));
    }
}
