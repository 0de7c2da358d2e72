using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>What qemu-img and cryptsetup do with encrypted images.</summary>
internal static class LuksQemu
{
    public const string Passphrase = "correct horse battery";

    private static readonly string[] s_secret = ["--object", $"secret,id=s0,data={Passphrase}"];

    /// <summary>How qemu-img is told of an image.</summary>
    public static string Described(string path, string format)
        => format switch
        {
            "luks" => $"driver=luks,key-secret=s0,file.filename={path}",
            "qcow2-luks" => $"driver=qcow2,encrypt.format=luks,encrypt.key-secret=s0,file.filename={path}",
            "qcow2-aes" => $"driver=qcow2,encrypt.format=aes,encrypt.key-secret=s0,file.filename={path}",
            "qcow-aes" => $"driver=qcow,encrypt.format=aes,encrypt.key-secret=s0,file.filename={path}",
            _ => $"driver={format},file.filename={path}",
        };

    public static Task CreateAsync(string path, string format, string options, string size)
        => Programs.QemuImgAsync(["create", "-q", .. s_secret, "-f", format, "-o", options, path, size]);

    public static Task ConvertAsync(string source, string sourceFormat, string target, string targetFormat, string options)
        => Programs.QemuImgAsync(
            ["convert", .. s_secret, "--image-opts", Described(source, sourceFormat), "-O", targetFormat, .. options.Length == 0
                ? Array.Empty<string>() : ["-o", options], target]);

    public static Task CompareAsync(string left, string leftFormat, string right, string rightFormat)
        => Programs.QemuImgAsync(
            ["compare", .. s_secret, "--image-opts", Described(left, leftFormat), Described(right, rightFormat)]);

    /// <summary>Changes key slots; the secret s1 is another one.</summary>
    public static Task AmendAsync(string path, string format, string other, string options)
        => Programs.QemuImgAsync(
            ["amend", .. s_secret, "--object", $"secret,id=s1,data={other}", "--image-opts", "-o", options, Described(path, format)]);

    public static Task CheckAsync(string path, string format)
        => Programs.QemuImgAsync(["check", .. s_secret, "--image-opts", Described(path, format)]);

    public static Task<string> IoAsync(string path, string format, params string[] commands)
        => Programs.RunAsync("qemu-io", [.. s_secret, "--image-opts", Described(path, format), .. commands.SelectMany(c => new[] { "-c", c })]);
}
