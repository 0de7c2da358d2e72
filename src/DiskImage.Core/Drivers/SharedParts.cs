using System.Collections.Concurrent;

namespace DiskImage.Drivers;

/// <summary>
/// What nodes share that are no relatives, under a name that their descriptions give: the limits of a group. One of them holds for an
/// operation, with all images that it opens.
/// </summary>
public sealed class SharedParts
{
    private readonly ConcurrentDictionary<(Type Type, string Name), object> _parts = new();

    /// <summary>The part of a kind and name, made by whoever asks first.</summary>
    /// <param name="name">Its name; case matters, as in node names.</param>
    /// <param name="make">Makes it; one that comes second is thrown away.</param>
    public T Of<T>(string name, Func<string, T> make)
        where T : class
        => (T)_parts.GetOrAdd((typeof(T), name), key => make(key.Name));
}
