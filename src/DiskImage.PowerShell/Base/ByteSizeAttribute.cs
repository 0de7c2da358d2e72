using System.Globalization;
using System.Management.Automation;
using System.Numerics;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>Lets a parameter of bytes take what PowerShell knows (<c>10GB</c>) and what QEMU knows (<c>'10G'</c>, <c>'64k'</c>).</summary>
[AttributeUsage(AttributeTargets.Property | AttributeTargets.Field)]
public sealed class ByteSizeAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object? inputData)
    {
        object? value = inputData is PSObject wrapped ? wrapped.BaseObject : inputData;
        return value switch
        {
            null => null,
            string text when SizeText.TryParse(text, out long size) => size,
            string text => throw new ArgumentTransformationMetadataException(SizeText.WhyNot(text)),
            double or decimal or ulong or BigInteger when LanguagePrimitives.ConvertTo<double>(value) >= long.MaxValue
                => throw new ArgumentTransformationMetadataException(
                    SizeText.WhyNot(LanguagePrimitives.ConvertTo<double>(value).ToString("F0", CultureInfo.InvariantCulture))),
            _ => value,
        };
    }
}
