using System.Globalization;
using BenchmarkDotNet.Running;

namespace DiskImage.Bench;

/// <summary>
/// <c>compare</c> times ours beside qemu-img, <c>growth</c> shows how time grows with data and extents; <c>once</c> and <c>bare</c> are the child processes by which it measures memory;
/// <c>profile</c> repeats ours for a profiler, <c>serve</c> serves a file by NBD for one; anything else goes to BenchmarkDotNet.
/// </summary>
internal static class Program
{
    private static async Task<int> Main(string[] arguments)
    {
        switch (arguments)
        {
            case ["compare", .. string[] rest]:
                return await Comparison.RunAsync(ComparisonOptions.Parse(rest));
            case ["growth", string folder, string output, string sizes, string extents]:
                await Growth.RunAsync(folder, output, Numbers(sizes), Numbers(extents));
                return 0;
            case ["once", string scenario, string folder]:
                await Scenario.All.Single(s => s.Name.Equals(scenario, StringComparison.Ordinal)).OursAsync(folder);
                Memory.Print();
                return 0;
            case ["profile", string scenario, string folder, string runs]:
                await Comparison.ProfileAsync(scenario, folder, int.Parse(runs, CultureInfo.InvariantCulture));
                return 0;
            case ["serve", string file, string socket]:
                await NetworkScenarios.ServeAsync(file, socket);
                return 0;
            case ["bare"]:
                Memory.Print();
                return 0;
            default:
                BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly).Run(arguments);
                return 0;
        }
    }

    private static int[] Numbers(string text)
        => [.. text.Split(',').Select(n => int.Parse(n, NumberStyles.AllowThousands, CultureInfo.InvariantCulture))];
}
