namespace DiskImage.Block;

/// <summary>A node that can hold requests up at an event, each under a name, until it is told to let them go.</summary>
public interface IBreakpoints
{
    /// <summary>Called when a request stops and when it goes on. Not in parallel.</summary>
    Action<string, bool>? Told { get; set; }

    /// <summary>Has the next request that comes to an event stop there, once.</summary>
    /// <param name="eventName">The event, by QEMU's name.</param>
    /// <param name="tag">What the request is called from then on.</param>
    /// <returns>False if there is no such event.</returns>
    bool Break(string eventName, string tag);

    /// <summary>Lets a request go on that was stopped; false if none of that name is.</summary>
    bool GoOn(string tag);

    /// <summary>Takes back what <see cref="Break"/> asked for, and lets go on what was stopped; false if nothing bears that name.</summary>
    bool Remove(string tag);

    /// <summary>True while a request of that name is stopped.</summary>
    bool IsSuspended(string tag);

    /// <summary>Lets everything go on, and takes all back.</summary>
    void RemoveAll();
}
