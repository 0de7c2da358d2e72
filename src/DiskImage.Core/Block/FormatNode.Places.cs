using System.Buffers;

namespace DiskImage.Block;

/// <summary>Filling places: with data, with what else a new one must hold, by the host.</summary>
internal abstract partial class FormatNode
{
    /// <summary>Copy-on-write joins the old bytes and the new into one request up to this size. Ours.</summary>
    private const int JoinedWriteLimit = 1 << 20;

    /// <summary>Writes a mapping's first bytes to their place.</summary>
    private ValueTask StoreAsync(in WriteMapping mapping, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
        => _debug is null ? PutAsync(mapping, data, cancellationToken) : StoreToldAsync(_debug, mapping, data, cancellationToken);

    private async ValueTask StoreToldAsync(
        IDebugEvents debug, WriteMapping mapping, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        await debug.RaiseAsync(DebugEvent.WriteAio).ConfigureAwait(false);
        await PutAsync(mapping, data, cancellationToken).ConfigureAwait(false);
    }

    private ValueTask PutAsync(in WriteMapping mapping, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
        => Cipher is { } cipher
            ? cipher.WriteAsync(
                mapping.Node, mapping.HostOffset, cipher.IsByPlace ? mapping.HostOffset : mapping.Offset, data, cancellationToken)
            : mapping.Node.WriteAsync(mapping.HostOffset, data, cancellationToken);

    private async ValueTask WriteNewAsync(WriteMapping mapping, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        try
        {
            long end = mapping.Offset + data.Length;
            bool head = await MustCopyAsync(mapping, mapping.CopyStart, mapping.Offset, cancellationToken).ConfigureAwait(false);
            bool tail = await MustCopyAsync(mapping, end, mapping.CopyEnd, cancellationToken).ConfigureAwait(false);
            long start = head ? mapping.CopyStart : mapping.Offset;
            long stop = tail ? mapping.CopyEnd : end;
            if (!head && !tail)
            {
                await StoreAsync(mapping, data, cancellationToken).ConfigureAwait(false);
            }
            else if (stop - start <= JoinedWriteLimit)
            {
                await CopyAndWriteAsync(mapping, start, (int)(stop - start), data, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await CopyAndWriteAsync(mapping, start, (int)(mapping.Offset - start), default, cancellationToken).ConfigureAwait(false);
                await StoreAsync(mapping, data, cancellationToken).ConfigureAwait(false);
                await CopyAndWriteAsync(mapping, end, (int)(stop - end), default, cancellationToken).ConfigureAwait(false);
            }
        }
        catch
        {
            await AbandonMappingAsync(mapping).ConfigureAwait(false);
            throw;
        }
        await CommitMappingAsync(mapping).ConfigureAwait(false);
    }

    /// <summary>Has the host fill a mapping; what it leaves is read and written. If it does nothing the place is given back.</summary>
    private async ValueTask<CopyOutcome> CopyToPlaceAsync(
        WriteMapping mapping, BlockNode source, long sourceOffset, CopyOffload how, CancellationToken cancellationToken)
    {
        CopyOutcome outcome = default;
        try
        {
            long end = mapping.Offset + mapping.Length;
            if (!mapping.IsNew
                || (!await MustCopyAsync(mapping, mapping.CopyStart, mapping.Offset, cancellationToken).ConfigureAwait(false)
                    && !await MustCopyAsync(mapping, end, mapping.CopyEnd, cancellationToken).ConfigureAwait(false)))
            {
                outcome = await mapping.Node.CopyFromAsync(
                    mapping.HostOffset, source, sourceOffset, mapping.Length, how, cancellationToken).ConfigureAwait(false);
            }
            if (outcome.Done is > 0 and var done && done < mapping.Length)
            {
                await RangeCopy.RunAsync(
                    source, sourceOffset + done, mapping.Node, mapping.HostOffset + done, mapping.Length - done, cancellationToken)
                    .ConfigureAwait(false);
                outcome = outcome with { Done = mapping.Length };
            }
        }
        catch when (mapping.IsNew)
        {
            await AbandonMappingAsync(mapping).ConfigureAwait(false);
            throw;
        }
        if (mapping.IsNew && outcome.Done == 0)
        {
            await AbandonMappingAsync(mapping).ConfigureAwait(false);
        }
        else if (mapping.IsNew)
        {
            await CommitMappingAsync(mapping).ConfigureAwait(false);
        }
        return outcome;
    }

    /// <summary>Writes [start, start + length) of the new place in one request: the old contents, with the new data over them.</summary>
    private async ValueTask CopyAndWriteAsync(
        WriteMapping mapping, long start, int length, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        if (length == 0)
        {
            return;
        }
        byte[] rented = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            Memory<byte> joined = rented.AsMemory(0, length);
            int before = data.IsEmpty ? length : (int)(mapping.Offset - start);
            await ReadOldAsync(start, joined[..before], cancellationToken).ConfigureAwait(false);
            data.CopyTo(joined[before..]);
            int after = before + data.Length;
            await ReadOldAsync(start + after, joined[after..], cancellationToken).ConfigureAwait(false);
            long place = mapping.HostStart + (start - mapping.CopyStart);
            if (Cipher is { } cipher)
            {
                cipher.Encrypt(joined.Span, cipher.IsByPlace ? place : start);
            }
            await _debug.TellAsync(data.IsEmpty ? DebugEvent.None : DebugEvent.WriteAio).ConfigureAwait(false);
            await _debug.TellAsync(DebugEvent.CowWrite).ConfigureAwait(false);
            await mapping.Node.WriteAsync(place, joined, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private async ValueTask<bool> MustCopyAsync(WriteMapping mapping, long start, long end, CancellationToken cancellationToken)
        => start < end
            && !(mapping.HostReadsZero && Cipher is null && await ReadsAsZeroAsync(start, end, cancellationToken).ConfigureAwait(false));

    private async ValueTask ReadOldAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        int inside = (int)Math.Clamp(Length - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        await _debug.TellAsync(inside == 0 ? DebugEvent.None : DebugEvent.CowRead).ConfigureAwait(false);
        await ReadMappedAsync(offset, buffer[..inside], cancellationToken).ConfigureAwait(false);
    }
}
