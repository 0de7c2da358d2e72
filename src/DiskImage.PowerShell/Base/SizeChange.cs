using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>A new size: in bytes, or as what it is to grow or shrink by.</summary>
/// <param name="Bytes">Bytes; negative to shrink by so many.</param>
/// <param name="IsRelative">The bytes are added to the present size.</param>
public sealed record SizeChange(long Bytes, bool IsRelative)
{
    private const int Sector = 512; // disks are whole sectors

    /// <summary>The size that a disk of <paramref name="present"/> bytes gets, rounded up to whole sectors.</summary>
    /// <exception cref="DiskImageException">OutOfRange: below zero, or more than a disk can have.</exception>
    public long From(long present, string path)
    {
        Int128 size = (IsRelative ? (Int128)present : 0) + Bytes;
        Int128 rounded = (size + Sector - 1) / Sector * Sector;
        return size >= 0 && rounded <= long.MaxValue
            ? (long)rounded
            : throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{path}: a disk of {present:#,0} bytes cannot change by {Bytes:#,0} bytes", path);
    }

    /// <inheritdoc/>
    public override string ToString() => (IsRelative && Bytes >= 0 ? "+" : "") + Bytes.ToString("0", null);
}

/// <summary>Reads <c>10GB</c>, <c>'10G'</c>, <c>+1G</c> and <c>-1G</c>.</summary>
[AttributeUsage(AttributeTargets.Property | AttributeTargets.Field)]
public sealed class SizeChangeAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object? inputData)
    {
        object? value = inputData is PSObject wrapped ? wrapped.BaseObject : inputData;
        if (value is null or SizeChange)
        {
            return value;
        }
        string text = LanguagePrimitives.ConvertTo<string>(value).Trim();
        int sign = text.StartsWith('+') ? 1 : text.StartsWith('-') ? -1 : 0;
        return SizeText.TryParse(sign == 0 ? text : text[1..], out long size)
            ? new SizeChange(sign < 0 ? -size : size, sign != 0)
            : throw new ArgumentTransformationMetadataException(
                $"{SizeText.WhyNot(sign == 0 ? text : text[1..])} With a sign the disk grows or shrinks by it: +1G, -512M.");
    }
}
