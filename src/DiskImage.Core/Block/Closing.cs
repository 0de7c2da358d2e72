using System.Runtime.ExceptionServices;

namespace DiskImage.Block;

/// <summary>Closing several things: all of them, whatever fails.</summary>
public static class Closing
{
    private const string Further = "Further"; // in the Data of the failure that is thrown: the messages of the others

    /// <summary>
    /// Closes each part after the one before it. Then the first failure is thrown, with the messages of any further ones in its Data.
    /// </summary>
    public static async ValueTask AllAsync(IEnumerable<Func<ValueTask>> parts)
    {
        ArgumentNullException.ThrowIfNull(parts);
        var failures = new List<Exception>();
        foreach (Func<ValueTask> part in parts)
        {
            try
            {
                await part().ConfigureAwait(false);
            }
            catch (Exception e)
            {
                failures.Add(e);
            }
        }
        if (failures.Count == 0)
        {
            return;
        }
        Exception first = failures[0];
        if (failures.Count > 1)
        {
            IEnumerable<string> more = failures.Skip(1).Select(f => f.Message);
            first.Data[Further] = string.Join(Environment.NewLine, first.Data[Further] is string before ? more.Prepend(before) : more);
        }
        ExceptionDispatchInfo.Throw(first);
    }

    /// <summary>
    /// Closes nodes that could not be used, those that are there; the failure that led here is on its way already, and
    /// is the one that is told.
    /// </summary>
    public static async ValueTask FailedAsync(params IEnumerable<IAsyncDisposable?> nodes)
    {
        try
        {
            await AllAsync(nodes.OfType<IAsyncDisposable>().Select(node => (Func<ValueTask>)node.DisposeAsync)).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // The first failure is told.
        }
    }
}
