using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>An open file, and what its reads and writes must keep to.</summary>
/// <param name="Handle">The file.</param>
/// <param name="RequestAlignment">Offset and length of a request are multiples of it; 1 where any will do.</param>
/// <param name="MemoryAlignment">The address of a request's first byte is a multiple of it; 1 where any will do.</param>
internal readonly record struct OpenFile(SafeFileHandle Handle, int RequestAlignment = 1, int MemoryAlignment = 1);
