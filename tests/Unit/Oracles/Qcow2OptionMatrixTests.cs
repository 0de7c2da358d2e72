using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Options;
using DiskImage.Tests.Formats.Qcow2;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>
/// Every pair of values of qcow2's create options, each row of them under a random sequence of requests, snapshots, resizes and
/// bitmaps by this library; QEMU's tools do the same in <see cref="Qcow2OptionMatrixByQemuTests"/>. The judges: qemu-img, the
/// model's contents, and a reader of its own that says what lies in the file. The seed stands in the test's name; another can be
/// tried with DISKIMAGE_TEST_SEED, and every combination there is with DISKIMAGE_TEST_MATRIX=full (hours).
/// </summary>
public sealed class Qcow2OptionMatrixTests
{
    private const int Steps = 40;

    public static TheoryData<string, int> Rows() => Qcow2OptionMatrix.Rows(keep: _ => true);

    public static TheoryData<string, string, string> RefusedPairs()
    {
        var data = new TheoryData<string, string, string>();
        foreach ((string first, string second, string options) in new Qcow2OptionMatrix().Refused())
        {
            data.Add(options, first, second);
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Rows))]
    public async Task What_we_write_is_what_the_model_predicts(string options, int seed)
    {
        using var folder = new TestFolder();
        string path = folder["disk.qcow2"];
        (Qcow2GuestModel model, string full) = await Qcow2RandomImage.PrepareAsync(folder, options, seed, byQemu: false);
        await Images.CreateAsync(path, "qcow2", full);
        await using var actor = new OwnActor(path);
        await Qcow2Judge.PlayAsync(Qcow2RandomImage.ScriptOf(actor, model, options, seed), folder, model, Steps, $"{full}, seed {seed}");
    }

    [OracleTheory]
    [MemberData(nameof(RefusedPairs))]
    public async Task What_cannot_stand_together_is_refused_by_name(string options, string first, string second)
    {
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder[Qcow2OptionMatrix.BackingFile], new byte[1 << 20]);
        string full = Qcow2RandomImage.Placed(folder, $"size=1048576,{options}");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.CreateAsync(folder["disk.qcow2"], "qcow2", full));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.True(error.Message.Contains(first, StringComparison.Ordinal)
            || error.Message.Contains(second, StringComparison.Ordinal), error.Message);
        Assert.Equal([folder[Qcow2OptionMatrix.BackingFile]], Directory.GetFiles(folder.Root));
        if (!options.Contains("keep_data_file", StringComparison.Ordinal))
        {
            (int code, _, _) = await Programs.TryAsync("qemu-img", "create", "-f", "qcow2", "-o", full, folder["theirs.qcow2"]);
            Assert.NotEqual(0, code);
        }
    }

    [Fact]
    public void Every_pair_of_values_stands_in_a_row_or_is_refused()
    {
        var matrix = new Qcow2OptionMatrix();
        List<string> rows = matrix.Pairwise(Qcow2OptionMatrix.Seed);
        HashSet<string> refused = matrix.Refused().Select(r => r.Options).ToHashSet(StringComparer.Ordinal);
        int pairs = 0;
        OptionDescriptor[] closed =
        [
            .. OptionSchema.Of<Qcow2CreateOptions>().Options
                .Where(o => o.AllowedValues.Count > 0 && !Qcow2OptionMatrix.IsOfEncryption(o)),
        ];
        foreach (OptionDescriptor one in closed)
        {
            foreach (OptionDescriptor other in closed.Where(o => !ReferenceEquals(o, one)))
            {
                foreach ((
                    string value,
                    string with) in one.AllowedValues.SelectMany(
                        v => other.AllowedValues.Select(w => ($"{one.Name}={v}", $"{other.Name}={w}"))))
                {
                    bool stands = rows.Any(r => r.Split(',') is var parts && parts.Contains(value, StringComparer.Ordinal)
                        && parts.Contains(with, StringComparer.Ordinal));
                    Assert.True(
                        stands != (refused.Contains($"{value},{with}") || refused.Contains($"{with},{value}")), $"{value} and {with}");
                    pairs++;
                }
            }
        }
        Assert.True(pairs > 100, $"only {pairs} pairs");
        Assert.True(rows.Count >= 91, $"{rows.Count} rows cannot hold every cluster size with every refcount width");
    }
}
