
namespace DiskImage.Tests.Campaign;

/// <summary>
/// Single bits of the headers: no repair loses what could be read, and none makes an image worse. A run takes a random sample, and all of
/// them where DISKIMAGE_CAMPAIGN is set.
/// </summary>
public sealed class HeaderBitTests
{
    private const int Sample = 15;

    public static TheoryData<string> Shapes() => [.. CampaignShape.All.Select(s => s.Name)];

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task One_flipped_bit_costs_no_data(string name)
    {
        CampaignImage image = await CampaignShape.All.Single(s => s.Name.Equals(name, StringComparison.Ordinal)).MakeAsync();
        int end = image.File.Length;
        (int Start, int Length)[] fields = image.Shape.Format switch
        {
            "qcow2" => [(0, 112)],
            "vpc" when name.Contains("fixed", StringComparison.Ordinal) => [(end - 512, 88)],
            "vpc" => [(0, 88), (512, 64), (end - 512, 88)],
            "vdi" => [(64, 400)],
            "qed" or "parallels" => [(0, 64)],
            "vmdk" => [(0, 79), (512, 300)],
            _ => [(64 << 10, 80), (128 << 10, 80), (192 << 10, 80), (256 << 10, 80)],
        };
        int[] bits = [.. fields.SelectMany(f => Enumerable.Range(f.Start * 8, f.Length * 8))];
        bool isWhole = CampaignTests.Setting("DISKIMAGE_CAMPAIGN", 0) > 0;
        int seed = CampaignTests.Setting("DISKIMAGE_TEST_SEED", Random.Shared.Next(1, int.MaxValue));
        await FlipAsync(image, isWhole ? bits : new Random(seed).GetItems(bits, Sample), seed);
    }

    /// <summary>Bits that cost something once.</summary>
    [Theory]
    [InlineData("vmdk-zeroed", 513, 5)] // a zero in the descriptor's first line
    [InlineData("vmdk-zeroed", 584, 1)] // the parent's content identifier
    [InlineData("qcow2-zstd", 35, 0)] // the method of encryption
    [InlineData("vmdk-zeroed", 48, 3)] // where the redundant directory is: a new one kept a grain from being moved
    public async Task A_bit_of_before(string name, int at, int bit)
        => await FlipAsync(await CampaignShape.All.Single(s => s.Name.Equals(name, StringComparison.Ordinal)).MakeAsync(), [(at * 8) + bit], 0);

    private static async Task FlipAsync(CampaignImage image, int[] bits, int seed)
    {
        var failures = new List<string>();
        foreach (int bit in bits)
        {
            byte[] damaged = (byte[])image.File.Clone();
            damaged[bit / 8] ^= (byte)(1 << (bit % 8));
            try
            {
                await new CampaignCase(image with { File = damaged }, folder: null).RepairsAsync();
            }
            catch (Xunit.Sdk.XunitException e)
            {
                failures.Add($"bit {bit % 8} of byte {bit / 8}: {e.Message}");
            }
        }
        Assert.True(failures.Count == 0, $"seed {seed}, {failures.Count}:\n{string.Join('\n', failures.Take(30))}");
    }
}
