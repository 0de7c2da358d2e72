
namespace DiskImage.Tests.Campaign;

/// <summary>Every single bit of the headers: no repair loses what could be read, and none makes an image worse.</summary>
public sealed class HeaderBitTests
{
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
            _ => [(64 << 10, 80), (128 << 10, 80), (192 << 10, 80), (256 << 10, 80)],
        };
        var failures = new List<string>();
        foreach (int at in fields.SelectMany(f => Enumerable.Range(f.Start, f.Length)))
        {
            for (int bit = 0; bit < 8; bit += image.File.Length > 4 << 20 ? 3 : 1) // the large ones are sampled
            {
                byte[] damaged = (byte[])image.File.Clone();
                damaged[at] ^= (byte)(1 << bit);
                try
                {
                    await new CampaignCase(image with { File = damaged }, folder: null).RepairsAsync();
                }
                catch (Xunit.Sdk.XunitException e)
                {
                    failures.Add($"bit {bit} of byte {at}: {e.Message}");
                }
            }
        }
        Assert.True(failures.Count == 0, $"{failures.Count}:\n{string.Join('\n', failures.Take(30))}");
    }
}
