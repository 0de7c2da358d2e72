using System.Management.Automation;
using DiskImage.Operations;
using DiskImage.Options;

namespace DiskImage.PowerShell;

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
