namespace DiskImage.Block;

/// <summary>How writes reach the medium, by QEMU's names of the combinations of <see cref="CachePolicy"/>.</summary>
public enum CacheMode
{
    /// <summary>Through the host's cache; a flush makes them durable.</summary>
    Writeback,

    /// <summary>Past the host's cache; a flush makes them durable.</summary>
    None,

    /// <summary>Through the host's cache, and each is durable before it returns.</summary>
    Writethrough,

    /// <summary>Past the host's cache, and each is durable before it returns.</summary>
    DirectSync,

    /// <summary>Through the host's cache, and nothing is flushed: what was written is lost with the host.</summary>
    Unsafe,
}

/// <summary>What of the host's cache is used, and when writes become durable.</summary>
/// <param name="Direct">Reads and writes go past the host's cache, where it has one (<c>cache.direct</c>).</param>
/// <param name="NoFlush">Flushes do nothing (<c>cache.no-flush</c>).</param>
/// <param name="WriteThrough">Each write to the disk is flushed before it returns (<c>cache.writeback=off</c>).</param>
public readonly record struct CachePolicy(bool Direct = false, bool NoFlush = false, bool WriteThrough = false)
{
    /// <summary>What a mode stands for. Spec: the table of cache modes in QEMU's manual, -drive cache=.</summary>
    public static CachePolicy Of(CacheMode mode) => mode switch
    {
        CacheMode.None => new(Direct: true),
        CacheMode.Writethrough => new(WriteThrough: true),
        CacheMode.DirectSync => new(Direct: true, WriteThrough: true),
        CacheMode.Unsafe => new(NoFlush: true),
        _ => default,
    };
}
