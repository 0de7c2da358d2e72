namespace DiskImage.Block;

/// <summary>What formats tell whoever listens (<see cref="IDebugEvents"/>); nothing is done where nobody does.</summary>
internal static class DebugEventsOf
{
    /// <summary>Tells that something is about to be done; none for nothing.</summary>
    public static ValueTask TellAsync(this IDebugEvents? debug, DebugEvent what)
        => debug is null || what == DebugEvent.None ? default : debug.RaiseAsync(what);

    /// <summary>Flushes the file of a format that holds nothing back.</summary>
    public static ValueTask FlushAsync(this IDebugEvents? debug, BlockNode file, CancellationToken cancellationToken)
    {
        return debug is null ? file.FlushAsync(cancellationToken) : ToldAsync();

        async ValueTask ToldAsync()
        {
            await debug.RaiseAsync(DebugEvent.FlushToOs).ConfigureAwait(false);
            await debug.RaiseAsync(DebugEvent.FlushToDisk).ConfigureAwait(false);
            await file.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Tells that an extent is about to be read, unless that needs nothing to be read.</summary>
    public static ValueTask TellReadAsync(this IDebugEvents? debug, in BlockExtent extent, BlockNode? backing)
        => debug is null ? default
            : extent.Status == BlockStatus.None
                ? extent.Offset < backing?.Length ? debug.RaiseAsync(DebugEvent.ReadBackingAio) : default
            : extent.IsZero ? default : debug.RaiseAsync(extent.IsCompressed ? DebugEvent.ReadCompressed : DebugEvent.ReadAio);
}
