using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Luks;

/// <summary>LUKS, the encrypted disks of Linux. Layout: see SPEC.md beside this file.</summary>
internal sealed class LuksDriver : FormatDriver, ICreatable, IMeasurable, IAmendable
{
    public const string FormatName = "luks";

    private const string HeaderRole = "header";
    private const int Sector = 512;

    public override string Name => FormatName;

    public override string Description => "LUKS encrypted disk, version 1 and 2";

    public override IReadOnlyList<string> Extensions => [".luks"];

    public override IReadOnlyList<string> Roles => ["file", HeaderRole];

    public override IReadOnlyList<Type> NodeTypes => [typeof(LuksNode)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<LuksOpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<LuksCreateOptions>();

    public OptionSchema AmendOptions { get; } = OptionSchema.Of<LuksAmendment>();

    public override int Probe(in ProbeInput input)
        => Luks1Header.IsSigned(input.Header) && Luks1Header.Version(input.Header) is 1 or 2 ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        var options = (LuksOpenOptions)context.Options;
        BlockNode? header = await context.OpenGivenAsync(HeaderRole, cancellationToken).ConfigureAwait(false);
        LuksVolume? volume = null;
        try
        {
            BlockNode holder = header ?? context.File;
            volume = await LuksVolume.OpenAsync(
                new LuksArea(holder, 0, holder.Length), options.Opening.Limits, cancellationToken)
                .ConfigureAwait(false);
            RequireData(context.File, volume);
            using SecretBuffer? secret = Secrets.Find(context.Secrets, options.Opening.KeySecret, context.File.Name);
            if (secret is not null)
            {
                await volume.UnlockAsync(secret, cancellationToken).ConfigureAwait(false);
            }
            return new LuksNode(context.File, header, volume, context.Secrets);
        }
        catch
        {
            volume?.Dispose();
            await Closing.FailedAsync(header).ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        var options = (LuksCreateOptions)context.Options;
        BlockNode file = context.File;
        CipherSpec cipher = options.Parameters.Cipher(file.Name);
        long size = options.Size is long given ? Round.Up(given, Sector) : throw Invalid(file, "a new image needs a size");
        if (options is { DetachedHeader: true, Preallocation: not LuksPreallocation.Off } or { DetachedHeader: true, Version: 2 })
        {
            throw Invalid(file, "detached-header goes with version 1 and without preallocation: the data is in a file of its own");
        }
        using SecretBuffer secret = Secrets.ForNew(context.Secrets, options.Parameters.KeySecret, file.Name);
        Guid uuid = NewIdentity.Of("luks", size);
        await file.ResizeAsync(0, cancellationToken: cancellationToken).ConfigureAwait(false);
        using LuksVolume volume = options.Version == 2
            ? await Luks2Volume.CreateAsync(
                new LuksArea(file, 0, long.MaxValue / 2),
                cipher,
                options.Parameters.Hash,
                uuid,
                secret,
                options.Parameters.IterationTime,
                cancellationToken).ConfigureAwait(false)
            : await Luks1Volume.CreateAsync(
                new LuksArea(file, 0, long.MaxValue / 2),
                cipher,
                options.Parameters.Hash,
                options.DetachedHeader,
                uuid,
                secret,
                options.Parameters.IterationTime,
                cancellationToken).ConfigureAwait(false);
        long length = options.DetachedHeader ? Luks1Volume.NewLength(cipher) : volume.Payload + size;
        await file.ResizeAsync(
            length, (PreallocationMode)options.Preallocation, context.Claimed, cancellationToken).ConfigureAwait(false);
    }

    public ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        var given = (LuksCreateOptions)options;
        CipherSpec cipher = given.Parameters.Cipher("Measuring");
        long size = source?.Length ?? given.Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, "Measuring needs a size or a source image.");
        long length = given.DetachedHeader ? Luks1Volume.NewLength(cipher)
            : Round.Up(size, Sector) + (given.Version == 2 ? Luks2Volume.NewPayload : Luks1Volume.NewLength(cipher));
        return new(new ImageMeasurement(length, length));
    }

    public ValueTask AmendAsync(BlockNode node, object options, IProgress<long>? bytes, CancellationToken cancellationToken)
        => RequireOwn<LuksNode>(node).AmendAsync((LuksAmendment)options, cancellationToken);

    private static void RequireData(BlockNode file, LuksVolume volume)
    {
        if (volume.Payload > file.Length || volume.PayloadLength > file.Length - volume.Payload)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: its data begins at {volume.Payload:#,0}{(volume.PayloadLength is long n ? $" and has {n:#,0} bytes" : "")}, "
                    + $"but the file has only {file.Length:#,0} bytes",
                file.Name,
                volume.Payload);
        }
    }

    private static DiskImageException Invalid(BlockNode file, string what)
        => new(DiskImageErrorKind.InvalidOption, $"{file.Name}: {what}.", file.Name);
}
