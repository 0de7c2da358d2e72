using System.Runtime.InteropServices;

namespace DiskImage.Tests.Support;

/// <summary>Wine, which says that it is Windows and lacks some of it.</summary>
internal static class Wine
{
    /// <summary>Its ntdll has a function that Windows' has not.</summary>
    private static readonly bool s_isHere = OperatingSystem.IsWindows()
        && NativeLibrary.TryGetExport(NativeLibrary.Load("ntdll"), "wine_get_version", out _);

    /// <summary>Why a test that needs something of the other systems cannot run on Windows; null elsewhere.</summary>
    public static string? WhyNotOnWindows(string lacks)
        => OperatingSystem.IsWindows() ? $"{(s_isHere ? nameof(Wine) : "Windows")} lacks {lacks}" : null;

    /// <summary>Why a test that needs something of Windows cannot run here, or null where it can.</summary>
    public static string? WhyNot(string lacks) => s_isHere ? $"Wine lacks {lacks}" : null;
}

/// <summary>A theory that Wine cannot pass for want of something that the other systems have.</summary>
public sealed class NotOnWineTheoryAttribute : TheoryAttribute
{
    public NotOnWineTheoryAttribute(string lacks) => Skip = Wine.WhyNot(lacks);
}

/// <summary>A fact that Wine cannot pass for want of something that the other systems have.</summary>
public sealed class NotOnWineFactAttribute : FactAttribute
{
    public NotOnWineFactAttribute(string lacks) => Skip = Wine.WhyNot(lacks);
}

/// <summary>A theory that needs something that Windows has not.</summary>
public sealed class NotOnWindowsTheoryAttribute : TheoryAttribute
{
    public NotOnWindowsTheoryAttribute(string lacks) => Skip = Wine.WhyNotOnWindows(lacks);
}

/// <summary>A fact that needs something that Windows has not.</summary>
public sealed class NotOnWindowsFactAttribute : FactAttribute
{
    public NotOnWindowsFactAttribute(string lacks) => Skip = Wine.WhyNotOnWindows(lacks);
}
