using System.Runtime.InteropServices;

namespace DiskImage.Platform;

/// <summary>A process that Windows says uses a file.</summary>
/// <param name="ProcessId">Its number.</param>
/// <param name="Name">What it is called for people: its description, or the name of its program.</param>
internal readonly record struct FileUser(int ProcessId, string Name);

/// <summary>Windows' Restart Manager, which knows who uses a file.</summary>
internal interface IRestartManager
{
    /// <summary>Who uses a file; empty if that cannot be told.</summary>
    IReadOnlyList<FileUser> UsersOf(string path);
}

/// <summary>Windows: who uses a file, by the Restart Manager. What they locked the system does not tell.</summary>
internal sealed class WindowsProcesses(IRestartManager manager) : HostProcesses
{
    public override IReadOnlyList<HostHolder> HoldersOf(string path, long? except = null)
        =>
        [
            .. manager.UsersOf(path).Where(u => except is null || u.ProcessId != Environment.ProcessId)
                .Select(u => new HostHolder(u.ProcessId, u.Name.Length == 0 ? null : u.Name, Ranges: null, IsWhole: false)),
        ];
}

/// <summary>rstrtmgr.dll. Source: Microsoft's reference of RmStartSession, RmRegisterResources, RmGetList.</summary>
internal sealed partial class RestartManager : IRestartManager
{
    private const int MoreData = 234; // ERROR_MORE_DATA
    private const int KeyLength = 33, NameLength = 256, ServiceLength = 64; // CCH_RM_SESSION_KEY, CCH_RM_MAX_APP_NAME, CCH_RM_MAX_SVC_NAME
    private const int Attempts = 4; // as many times the list may grow while it is asked for. Ours

    public IReadOnlyList<FileUser> UsersOf(string path)
    {
        try
        {
            if (!TryStart(out uint session))
            {
                return [];
            }
            try
            {
                return Register(session, 1, [path], 0, 0, 0, 0) == 0 ? List(session) : [];
            }
            finally
            {
                _ = End(session);
            }
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            return []; // Nano Server has none
        }
    }

    private static unsafe bool TryStart(out uint session)
    {
        ushort* key = stackalloc ushort[KeyLength];
        return Start(out session, 0, key) == 0;
    }

    private static unsafe FileUser[] List(uint session)
    {
        uint room = 8;
        for (int attempt = 0; attempt < Attempts; attempt++)
        {
            var list = new ProcessInfo[room];
            uint count = room;
            uint needed;
            int result;
            fixed (ProcessInfo* first = list)
            {
                result = GetList(session, out needed, ref count, first, out _);
            }
            if (result == 0)
            {
                return [.. list.Take((int)count).Select(p => new FileUser((int)p.ProcessId, p.NameText()))];
            }
            if (result != MoreData)
            {
                break;
            }
            room = needed;
        }
        return [];
    }

    [LibraryImport("rstrtmgr", EntryPoint = "RmStartSession")]
    private static unsafe partial int Start(out uint session, uint flags, ushort* key);

    [LibraryImport("rstrtmgr", EntryPoint = "RmEndSession")]
    private static partial int End(uint session);

    [LibraryImport("rstrtmgr", EntryPoint = "RmRegisterResources", StringMarshalling = StringMarshalling.Utf16)]
    private static partial int Register(
        uint session, uint fileCount, string[] files, uint processCount, nint processes, uint serviceCount, nint services);

    [LibraryImport("rstrtmgr", EntryPoint = "RmGetList")]
    private static unsafe partial int GetList(
        uint session, out uint needed, ref uint count, ProcessInfo* processes, out uint reasons);

    /// <summary>RM_PROCESS_INFO.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct ProcessInfo
    {
        public uint ProcessId;
        public uint StartLow;
        public uint StartHigh;
        private fixed ushort _name[NameLength];
        private fixed ushort _service[ServiceLength];
        public uint Kind;
        public uint Status;
        public uint Session;
        public int IsRestartable;

        public readonly string NameText()
        {
            fixed (ushort* start = _name)
            {
                var all = new ReadOnlySpan<char>(start, NameLength);
                return new string(all.IndexOf('\0') is var end and >= 0 ? all[..end] : all);
            }
        }
    }
}
