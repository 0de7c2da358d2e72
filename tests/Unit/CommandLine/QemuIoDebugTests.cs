using DiskImage.Tests.Support;

namespace DiskImage.Tests.CommandLine;

/// <summary>
/// The same rules of blkdebug, breakpoints and requests of the machine's state to qemu-io and to our program: the same errors, where both
/// write to the file at the same time. Ours keeps changed tables in memory until a flush, so errors of those are QEMU's at a flush only.
/// </summary>
public sealed class QemuIoDebugTests
{
    private const string Made = """
        ~ rates
        ! qemu-img create -q -f qcow2 a.qcow2 64M
        ! qemu-io -c 'write -P 1 0 128k' a.qcow2

        """;

    public static TheoryData<string, string> Rules => new()
    {
        { "read_aio", "-c 'write 0 64k' -c 'read 0 64k' -c 'read 8M 64k' -c 'read 64k 64k'" },
        { "l2_load", "-r -c 'read 0 64k' -c 'read 0 64k'" },
        { "write_aio", "-c 'read 0 64k' -c 'write 0 64k' -c 'write 0 64k' -c 'write 8M 64k'" },
        { "refblock_load", "-c 'read 0 64k' -c 'write 8M 64k' -c 'write 16M 64k'" },
        { "cow_read", "-c 'write 0 64k' -c 'write 8M 512' -c 'read 0 64k'" },
        { "none", "-c 'read 0 64k'" },
    };

    [OracleTheory]
    [MemberData(nameof(Rules))]
    public Task An_event_arms_an_error_once_as_in_QEMU(string armed, string commands)
        => new QemuScript($"{Made}$ qemu-io {commands} '{Over($"\"inject-error\":[{{\"event\":\"{armed}\",\"once\":true}}]")}'\n= a.qcow2 qcow2")
            .RunAsync();

    [OracleFact]
    public Task States_errors_and_sectors_are_as_in_QEMU() => new QemuScript($"""
        {Made}
        $ qemu-io -c 'read 0 64k' -c 'read 0 64k' -c 'read 64k 64k' '{Over("""
            "inject-error":[{"event":"read_aio","state":2,"once":true}],"set-state":[{"event":"read_aio","new_state":2}]
            """.Trim())}'
        $ qemu-io -r -c 'read 0 64k' -c 'read 64k 64k' '{Over("""
            "inject-error":[{"event":"read_aio","sector":768}]
            """.Trim())}'
        $ qemu-io -c 'write 0 64k' -c 'read 0 64k' '{Over("""
            "inject-error":[{"event":"write_aio","errno":28,"iotype":"write","once":true}]
            """.Trim())}'
        $ qemu-io -c 'read 0 64k' '{Over("""
            "inject-error":[{"event":"write_ai"}]
            """.Trim())}'
        """).RunAsync();

    [OracleFact]
    public Task Breakpoints_hold_requests_up_as_in_QEMU() => new QemuScript($"""
        {Made}
        $ qemu-io -c 'break write_aio A' -c 'aio_write -P 2 0 64k' -c 'wait_break A' -c 'read -P 1 64k 64k' -c 'resume A' -c aio_flush -c 'read -P 2 0 64k' blkdebug::a.qcow2
        $ qemu-io -c 'break write_aio A' -c 'aio_write -P 3 1k 1k' -c 'wait_break A' -c 'aio_write -q -P 4 3k 1k' -c 'resume A' -c aio_flush -c 'read -P 3 1k 1k' -c 'read -P 4 3k 1k' blkdebug::a.qcow2
        $ qemu-io -c 'break x A' -c 'resume A' -c 'remove_break A' -c 'break read_aio B' -c 'remove_break B' -c 'read 0 512' blkdebug::a.qcow2
        $ qemu-io -c 'break write_aio A' -c 'resume A' -c 'remove_break A' a.qcow2
        = a.qcow2 qcow2
        """).RunAsync();

    [OracleFact]
    public Task The_machines_state_is_where_QEMU_has_it() => new QemuScript($"""
        {Made}
        ! qemu-io -c 'write -b -P 3 0 64k' a.qcow2
        $ qemu-io -c 'read -b -P 3 0 64k' -c 'read -b -P 0 64k 64k' -c 'write -b -P 4 1M 64k' -c 'write -b -P 5 512 512' a.qcow2
        $ qemu-io -r -c 'read -b -P 4 1M 64k' -c 'read -b -P 5 512 512' -c 'read -b -P 3 1k 63k' -c 'read -P 1 0 128k' a.qcow2
        $ qemu-io -c 'write -b 100 512' -c 'read -b 512 100' -c 'write -b -z 0 512' -c 'write -b -f 0 512' a.qcow2
        $ qemu-img snapshot -c s a.qcow2
        $ qemu-io -c 'write -b -P 6 0 64k' -c 'write -b -P 7 1000G 4k' -c 'read -b -P 7 1000G 4k' a.qcow2
        $ qemu-img snapshot -a s a.qcow2
        $ qemu-io -c 'read -b -P 5 512 512' a.qcow2
        ! qemu-img create -q -f raw a.raw 1M
        $ qemu-io -f raw -c 'read -b 0 512' -c 'write -b 0 512' a.raw
        = a.qcow2 qcow2
        """).RunAsync();

    private static string Over(string rules) => "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\"," + rules
        + ",\"image\":{\"driver\":\"file\",\"filename\":\"a.qcow2\"}}}";
}
