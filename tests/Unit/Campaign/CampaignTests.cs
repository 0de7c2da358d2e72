using System.Globalization;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Campaign;

/// <summary>
/// The campaign of faults: images of every kind, damaged at random, through everything that can be done with them. See
/// <see cref="CampaignCase"/> for what must hold.
/// </summary>
/// <remarks>
/// A run takes a sample. All of it: DISKIMAGE_CAMPAIGN=5000 is the number of damaged images of each kind; DISKIMAGE_TEST_SEED is the first
/// seed. A failure names kind and seed, and DISKIMAGE_CAMPAIGN_KEEP is a folder that the damaged image is then written to.
/// </remarks>
public sealed class CampaignTests
{
    private const int Sample = 6; // images of each kind

    public static TheoryData<string> Shapes() => [.. CampaignShape.All.Select(s => s.Name)];

    [Theory]
    [MemberData(nameof(Shapes))]
    public Task Damaged_images_lose_nothing_more(string name) => RunAsync(name, folder: null, skip: Setting("DISKIMAGE_CAMPAIGN", Sample));

    /// <summary>Others with qemu-img as judge, which has no check for VHD but reads it.</summary>
    [OracleTheory]
    [MemberData(nameof(Shapes))]
    public async Task Damaged_images_are_judged_by_qemu_as_by_us(string name)
    {
        using var folder = new TestFolder();
        await RunAsync(name, folder, skip: 0);
    }

    private static async Task RunAsync(string name, TestFolder? folder, int skip)
    {
        CampaignImage image = await MakeAsync(name);
        int first = Setting("DISKIMAGE_TEST_SEED", 1) + skip, count = Setting("DISKIMAGE_CAMPAIGN", Sample);
        var failures = new List<string>();
        for (int seed = first; seed < first + count; seed++)
        {
            CampaignImage damaged = image with { File = Mutation.Damage(image.File, seed, image.Shape.Format) };
            try
            {
                await new CampaignCase(damaged, folder).RunAsync();
            }
            catch (Exception e)
            {
                failures.Add($"{name}, seed {seed}: {(e is Xunit.Sdk.XunitException ? e.Message : e.ToString())}");
                if (Environment.GetEnvironmentVariable("DISKIMAGE_CAMPAIGN_KEEP") is { Length: > 0 } keep)
                {
                    _ = Directory.CreateDirectory(keep);
                    await File.WriteAllBytesAsync(Path.Combine(keep, $"{name}-{seed}"), damaged.File);
                }
            }
        }
        Assert.True(failures.Count == 0, $"{failures.Count} of {count}:\n{string.Join("\n\n", failures.Take(40))}");
    }

    private static Task<CampaignImage> MakeAsync(string name)
        => CampaignShape.All.Single(s => s.Name.Equals(name, StringComparison.Ordinal)).MakeAsync();

    /// <summary>What is not damaged passes, so a failure above is the damage's.</summary>
    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Sound_images_pass(string name)
    {
        CampaignImage image = await MakeAsync(name);
        using var folder = new TestFolder();
        var test = new CampaignCase(image, Programs.Find("qemu-img") is null ? null : folder);
        await test.RunAsync();
        Assert.True(test.WasConsistent);
    }

    internal static int Setting(string name, int otherwise)
        => int.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.None, CultureInfo.InvariantCulture, out int value)
            ? value
            : otherwise;
}
