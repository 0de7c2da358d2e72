using DiskImage.Options;
using DiskImage.Tests.Formats.Qcow2;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>
/// The rows of <see cref="Qcow2OptionMatrixTests"/> in the hands of qemu-img and qemu-io: what they write, we read and find sound.
/// </summary>
public sealed class Qcow2OptionMatrixByQemuTests
{
    private const int Steps = 30;

    /// <summary>QEMU 7.2 has no option that wraps an existing data file.</summary>
    public static TheoryData<string, int> Rows()
        => Qcow2OptionMatrix.Rows(options => !options.Contains("keep_data_file=on", StringComparison.Ordinal));

    [OracleTheory]
    [MemberData(nameof(Rows))]
    public async Task What_qemu_writes_is_what_the_model_predicts(string options, int seed)
    {
        using var folder = new TestFolder();
        string path = folder["disk.qcow2"];
        (Qcow2GuestModel model, string full) = await Qcow2RandomImage.PrepareAsync(folder, options, seed, byQemu: true);
        // QEMU wants it named
        full += model.Shape.HasBacking && !full.Contains("backing_fmt", StringComparison.Ordinal) ? ",backing_fmt=raw" : "";
        full = string.Join(
            ',', OptionSchema.Split(full).Where(o => o.Key is not ("keep_data_file" or "size")).Select(o => $"{o.Key}={o.Value}"));
        _ = await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", "-o", full, path, $"{model.Size}");
        await using var actor = new QemuActor(folder, path);
        await Qcow2Judge.PlayAsync(Qcow2RandomImage.ScriptOf(actor, model, options, seed), folder, model, Steps, $"{full}, seed {seed}");
    }
}
