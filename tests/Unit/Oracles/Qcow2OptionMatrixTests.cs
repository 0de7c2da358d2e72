using System.Globalization;
using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Options;
using DiskImage.Tests.Formats.Qcow2;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>
/// Every pair of values of qcow2's create options, each row of them under a random sequence of requests, snapshots, resizes and
/// bitmaps, once by this library and once by QEMU's tools. Judges: qemu-img, the model's contents, and a reader of its own that
/// says what lies in the file. The seed stands in the test's name; another can be tried with DISKIMAGE_TEST_SEED, and every
/// combination there is with DISKIMAGE_TEST_MATRIX=full (hours).
/// </summary>
public sealed class Qcow2OptionMatrixTests
{
    private const int DefaultSeed = 2024, Steps = 40, StepsOfQemu = 30;

    public static TheoryData<string, int> Rows() => Rows(keep: _ => true);

    /// <summary>QEMU 7.2 has no option that wraps an existing data file.</summary>
    public static TheoryData<string, int> RowsForQemu() => Rows(options => !options.Contains("keep_data_file=on", StringComparison.Ordinal));

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
        await PlayAsync(Qcow2RandomImage.ScriptOf(actor, model, options, seed), folder, model, $"{full}, seed {seed}");
    }

    [OracleTheory]
    [MemberData(nameof(RowsForQemu))]
    public async Task What_qemu_writes_is_what_the_model_predicts(string options, int seed)
    {
        using var folder = new TestFolder();
        string path = folder["disk.qcow2"];
        (Qcow2GuestModel model, string full) = await Qcow2RandomImage.PrepareAsync(folder, options, seed, byQemu: true);
        full += model.Shape.HasBacking && !full.Contains("backing_fmt", StringComparison.Ordinal) ? ",backing_fmt=raw" : ""; // QEMU wants it named
        full = string.Join(',', OptionSchema.Split(full).Where(o => o.Key is not ("keep_data_file" or "size")).Select(o => $"{o.Key}={o.Value}"));
        _ = await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", "-o", full, path, $"{model.Size}");
        await using var actor = new QemuActor(folder, path);
        await PlayAsync(Qcow2RandomImage.ScriptOf(actor, model, options, seed), folder, model, $"{full}, seed {seed}");
    }

    [OracleTheory]
    [MemberData(nameof(RefusedPairs))]
    public async Task What_cannot_stand_together_is_refused_by_name(string options, string first, string second)
    {
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder[Qcow2OptionMatrix.BackingFile], new byte[1 << 20]);
        string full = Qcow2RandomImage.Placed(folder, $"size=1048576,{options}");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.CreateAsync(folder["disk.qcow2"], "qcow2", full));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.True(error.Message.Contains(first, StringComparison.Ordinal) || error.Message.Contains(second, StringComparison.Ordinal), error.Message);
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
        List<string> rows = matrix.Pairwise(Seed());
        HashSet<string> refused = matrix.Refused().Select(r => r.Options).ToHashSet(StringComparer.Ordinal);
        int pairs = 0;
        OptionDescriptor[] closed = [.. OptionSchema.Of<Qcow2CreateOptions>().Options.Where(o => o.AllowedValues.Count > 0)];
        foreach (OptionDescriptor one in closed)
        {
            foreach (OptionDescriptor other in closed.Where(o => !ReferenceEquals(o, one)))
            {
                foreach ((string value, string with) in one.AllowedValues.SelectMany(v => other.AllowedValues.Select(w => ($"{one.Name}={v}", $"{other.Name}={w}"))))
                {
                    bool stands = rows.Any(r => r.Split(',') is var parts && parts.Contains(value, StringComparer.Ordinal) && parts.Contains(with, StringComparer.Ordinal));
                    Assert.True(stands != (refused.Contains($"{value},{with}") || refused.Contains($"{with},{value}")), $"{value} and {with}");
                    pairs++;
                }
            }
        }
        Assert.True(pairs > 100, $"only {pairs} pairs");
        Assert.True(rows.Count >= 91, $"{rows.Count} rows cannot hold every cluster size with every refcount width");
    }

    private static int Seed()
        => int.TryParse(Environment.GetEnvironmentVariable("DISKIMAGE_TEST_SEED"), NumberStyles.None, CultureInfo.InvariantCulture, out int given) ? given : DefaultSeed;

    private static TheoryData<string, int> Rows(Func<string, bool> keep)
    {
        var matrix = new Qcow2OptionMatrix();
        int seed = Seed();
        bool full = Environment.GetEnvironmentVariable("DISKIMAGE_TEST_MATRIX") is "full";
        var data = new TheoryData<string, int>();
        foreach (string row in full ? matrix.Full() : matrix.Pairwise(seed))
        {
            if (keep(row))
            {
                data.Add(row, seed);
            }
        }
        return data;
    }

    private static async Task PlayAsync(Qcow2Script script, TestFolder folder, Qcow2GuestModel model, string what)
    {
        try
        {
            await script.RunAsync(model.Shape.ByQemu ? StepsOfQemu : Steps);
            await JudgeAsync(folder, model, what);
        }
        catch (Exception e) when (e is DiskImageException or Xunit.Sdk.XunitException)
        {
            Assert.Fail($"{what}: {e.Message}\n{script.Log}");
        }
    }

    private static async Task JudgeAsync(TestFolder folder, Qcow2GuestModel model, string what)
    {
        string path = folder["disk.qcow2"], twin = folder["twin.raw"];
        await Programs.CheckAsync(path);
        await File.WriteAllBytesAsync(twin, model.Contents);
        await Programs.CompareAsync(twin, "raw", path, "qcow2");
        foreach ((string name, Qcow2GuestModel state) in model.Snapshots)
        {
            _ = await Programs.QemuImgAsync("convert", "-l", $"snapshot.name={name}", "-f", "qcow2", "-O", "raw", path, folder["snapshot.raw"]);
            byte[] kept = await File.ReadAllBytesAsync(folder["snapshot.raw"]);
            int both = Math.Min(kept.Length, state.Size); // qemu-img shows a snapshot in the present size
            Assert.True(state.Contents.AsSpan(0, both).SequenceEqual(kept.AsSpan(0, both)), $"{what}: snapshot {name} differs");
        }
        byte[]? data = model.Shape.HasDataFile ? await File.ReadAllBytesAsync(folder[Qcow2OptionMatrix.DataFile]) : null;
        VerifyFile(new Qcow2SpecReader(await File.ReadAllBytesAsync(path), data), model, what);
        await VerifyOwnAsync(path, model, what);
    }

    /// <summary>What lies in the file is what the model predicts.</summary>
    private static void VerifyFile(Qcow2SpecReader reader, Qcow2GuestModel model, string what)
    {
        reader.RequireSound(what);
        model.Verify(reader.Active, what);
        Assert.True(!model.Shape.DataFileIsRaw || model.Contents.AsSpan().SequenceEqual(reader.Data.AsSpan(0, model.Size)), $"{what}: the data file is not the disk");
        string[] names = [.. model.Snapshots.Select(s => s.Name)], found = [.. reader.Snapshots.Select(s => s.Name)];
        Assert.Equal(names, found);
        foreach (((string name, Qcow2GuestModel state), (_, _, Qcow2SpecView view)) in model.Snapshots.Zip(reader.Snapshots))
        {
            state.Verify(view, $"{what}, snapshot {name}");
        }
        string[] expected = [.. model.Bitmaps.Select(b => $"{b.Name} {b.Granularity} {b.IsEnabled} {string.Join(' ', b.Ranges())}")];
        string[] stored = [.. reader.Bitmaps.Select(b => $"{b.Name} {1L << b.GranularityBits} {b.IsAuto} {string.Join(' ', b.Dirty)}")];
        Assert.Equal(expected, stored);
    }

    /// <summary>We read the image as the model has it, and find nothing wrong.</summary>
    private static async Task VerifyOwnAsync(string path, Qcow2GuestModel model, string what)
    {
        await using BlockNode disk = await Images.OpenAsync(path, "qcow2");
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        Assert.True(model.Contents.AsSpan().SequenceEqual(contents), $"{what}: we read it otherwise");
        CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
        Assert.True(report.Findings.Count == 0, $"{what}: {string.Join('\n', report.Findings.Take(5))}");
        foreach ((string name, Qcow2GuestModel state) in model.Snapshots)
        {
            await using BlockNode view = await ((ISnapshots)disk).OpenSnapshotAsync(name, CancellationToken.None);
            byte[] kept = new byte[view.Length];
            await view.ReadAsync(0, kept);
            Assert.True(state.Contents.AsSpan().SequenceEqual(kept), $"{what}: we read snapshot {name} otherwise");
        }
    }
}
