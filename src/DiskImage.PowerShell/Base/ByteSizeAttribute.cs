using System.Management.Automation;
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
            string text => throw new ArgumentTransformationMetadataException(
                $"'{text}' is not a size. Give bytes, or a number with one of the suffixes k, M, G, T, P, E: 65536, 64k, 10G, 1.5TB."),
            _ => value,
        };
    }
}
