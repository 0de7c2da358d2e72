using System.Runtime.CompilerServices;

namespace DiskImage.Block;

/// <summary>
/// Chains of images are as deep as the user allows, and what goes down one calls itself for each: where little of the thread's stack is
/// left, it goes on with another.
/// </summary>
internal static class StackRoom
{
    /// <summary>True if it is time to go on elsewhere.</summary>
    public static bool IsShort => !RuntimeHelpers.TryEnsureSufficientExecutionStack();

    /// <summary>Awaited, goes on with the stack of another thread.</summary>
    public static ConfiguredTaskAwaitable GoOn() => Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
}
