using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>The kinds of VHD and VHDX, by the names that Hyper-V's cmdlets have for them.</summary>
public enum VhdType
{
    /// <summary>All space is there from the start.</summary>
    Fixed,

    /// <summary>Blocks are added as they are written to.</summary>
    Dynamic,

    /// <summary>Only what differs from a parent is stored.</summary>
    Differencing,
}

/// <summary>A kind of disk as the user asked for it.</summary>
/// <param name="Type">The kind.</param>
/// <param name="GivenBy">The parameter that gives it, for messages.</param>
internal sealed record GivenVhdType(VhdType Type, string GivenBy)
{
    /// <summary>The one kind that parameters ask for; null if none does.</summary>
    /// <exception cref="DiskImageException">InvalidOption: several do.</exception>
    public static GivenVhdType? Of(bool isFixed, bool isDynamic, bool isDifferencing, VhdType? named = null)
    {
        List<GivenVhdType> given = [];
        VhdType[] switches = [VhdType.Fixed, VhdType.Dynamic, VhdType.Differencing];
        foreach (VhdType type in switches.Where(t => t == VhdType.Fixed ? isFixed : t == VhdType.Dynamic ? isDynamic : isDifferencing))
        {
            given.Add(new(type, $"-{type}"));
        }
        if (named is { } by)
        {
            given.Add(new(by, $"-VHDType {by}"));
        }
        return given.Count < 2 ? given.FirstOrDefault() : throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{string.Join(" and ", given.Select(g => g.GivenBy))} exclude each other: a disk is of one kind. Give one of them.");
    }
}
