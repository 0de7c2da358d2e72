using System.Runtime.InteropServices;
using System.Text;

namespace DiskImage.Platform;

/// <summary>macOS: proc_listpidspath(3) finds who has a file open. What they locked the system does not tell.</summary>
internal sealed partial class MacProcesses : HostProcesses
{
    private const uint All = 1; // PROC_ALL_PIDS
    private const int MostProcesses = 4096; // that are told of. Ours
    private const int LongestName = 256; // more than the system's 2 * MAXCOMLEN

    public override IReadOnlyList<HostHolder> HoldersOf(string path, long? except = null)
    {
        int[] processes = new int[MostProcesses];
        int bytes = ListProcesses(All, 0, path, 0, processes, processes.Length * sizeof(int));
        return
        [
            .. processes.Take(Math.Max(0, bytes / sizeof(int))).Where(p => p > 0 && p != Environment.ProcessId)
                .Select(p => new HostHolder(p, NameOf(p), Ranges: null, IsWhole: false)),
        ];
    }

    private static string? NameOf(int process)
    {
        byte[] name = new byte[LongestName];
        int length = GetName(process, name, (uint)name.Length);
        return length > 0 ? Encoding.UTF8.GetString(name, 0, length) : null;
    }

    [LibraryImport("libproc", EntryPoint = "proc_listpidspath", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int ListProcesses(uint type, uint typeInfo, string path, uint flags, [Out] int[] buffer, int size);

    [LibraryImport("libproc", EntryPoint = "proc_name")]
    private static partial int GetName(int process, [Out] byte[] buffer, uint size);
}
