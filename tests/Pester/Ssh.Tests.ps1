# Images on an SSH server: OpenSSH's own, on this machine's loopback, with a configuration and keys of this test's own.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $why = -not $IsLinux ? 'the server of Debian is needed' : -not (Test-Path /usr/sbin/sshd) ? 'openssh-server is not installed' : $null
    if ($why) { return }

    # The processes below one, by its number.
    function Get-Below([int] $Id) {
        foreach ($child in & pgrep -P $Id) {
            $child
            Get-Below $child
        }
    }

    $far = "$TestDrive/far"
    $null = New-Item -ItemType Directory $far
    foreach ($key in 'host', 'id') {
        & ssh-keygen -q -t ed25519 -N '' -C test -f "$TestDrive/$key"
    }

    Copy-Item "$TestDrive/id.pub" "$TestDrive/authorized"
    $port = & {
        $probe = [Net.Sockets.TcpListener]::new([Net.IPAddress]::Loopback, 0)
        $probe.Start()
        $probe.LocalEndpoint.Port
        $probe.Stop()
    }
    Set-Content "$TestDrive/known" "[127.0.0.1]:$port $(Get-Content "$TestDrive/host.pub")"
    Set-Content "$TestDrive/config" @"
UserKnownHostsFile $TestDrive/known
GlobalKnownHostsFile none
IdentityFile $TestDrive/id
IdentityAgent none
"@
    Set-Content "$TestDrive/sshd_config" @"
Port $port
ListenAddress 127.0.0.1
HostKey $TestDrive/host
AuthorizedKeysFile $TestDrive/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
Subsystem sftp internal-sftp
"@
    $null = [IO.Directory]::CreateDirectory('/run/sshd') # where root's server locks its children in
    $server = Start-Process /usr/sbin/sshd "-D -f $TestDrive/sshd_config -E $TestDrive/sshd.log" -PassThru
    for ($i = 0; $i -lt 1000; $i++) {
        if ((Test-Path "$TestDrive/sshd.log") -and (Select-String -Quiet 'Server listening' "$TestDrive/sshd.log")) { break }
        Start-Sleep -Milliseconds 10
    }

    $env:DISKIMAGE_SSH_CONFIG = "$TestDrive/config"
    $url = "ssh://127.0.0.1:$port$far"
    $disk = New-TestDisk "$TestDrive/disk.raw" -Size 3MB -Seed 43
}

AfterAll {
    if ($why) { return }

    $below = @(Get-Below $server.Id) # all of them, before the first is ended
    $below | ForEach-Object { & kill -9 $_ }
    $server.Kill()
    $server.WaitForExit()
    $env:DISKIMAGE_SSH_CONFIG = $null
}

Describe 'Images on an SSH server' {
    BeforeEach {
        if ($why) { Set-ItResult -Skipped -Because $why }
    }

    It 'are made there and read back as they are' {
        $info = Convert-DiskImage $disk "$url/disk.qcow2"
        $info.Path | Should -Be "$url/disk.qcow2"
        $info.Format | Should -Be qcow2
        (Convert-DiskImage "$url/disk.qcow2" "$TestDrive/back.raw").VirtualSize | Should -Be 3MB
        (Get-FileHash "$TestDrive/back.raw").Hash | Should -Be (Get-FileHash $disk).Hash
        (Compare-DiskImage $disk "$url/disk.qcow2" -Format raw).Identical | Should -BeTrue
        (Get-DiskImageInfo "$url/disk.qcow2").VirtualSize | Should -Be 3MB
        (Test-DiskImage "$url/disk.qcow2").IsConsistent | Should -BeTrue
        (Get-DiskImageMap "$url/disk.qcow2" | Measure-Object Length -Sum).Sum | Should -Be 3MB
        Get-Unfinished $far | Should -BeNullOrEmpty
    }

    It 'are changed there' {
        $null = New-DiskImage "$url/new.qcow2" 1MB
        (Resize-DiskImage "$url/new.qcow2" 5MB -PassThru).VirtualSize | Should -Be 5MB
        (Resize-DiskImage "$url/new.qcow2" 2MB -Shrink -Confirm:$false -PassThru).VirtualSize | Should -Be 2MB
        $null = New-DiskImage "$url/new.raw" 1MB
        (Resize-DiskImage "$url/new.raw" 3MB -Format raw -PassThru).VirtualSize | Should -Be 3MB
        (Resize-DiskImage "$url/new.raw" 2MB -Format raw -Shrink -Confirm:$false -PassThru).VirtualSize | Should -Be 2MB
        (Get-Item "$far/new.raw").Length | Should -Be 2MB
        Write-DiskImage "$url/new.raw" -Format raw -Offset 1MB -Bytes (1, 2, 3)
        "$(Read-DiskImage "$url/new.raw" -Format raw -Offset 1MB -Length 3)" | Should -Be '1 2 3'
    }

    It 'are replaced only if that is asked for' {
        $null = New-DiskImage "$url/there.qcow2" 1MB
        $null = New-DiskImage "$url/there.qcow2" 2MB -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageAlreadyExists ResourceExists'
        (New-DiskImage "$url/there.qcow2" 2MB -Force).VirtualSize | Should -Be 2MB
    }

    It 'stand below an image here, if the user says so' {
        Copy-Item $disk "$far/base.raw"
        $null = New-DiskImage "$TestDrive/over.qcow2" -BackingPath "$url/base.raw" -BackingFormat raw
        (Get-DiskImageHash "$TestDrive/over.qcow2" -References Anywhere).Hash | Should -Be (Get-FileHash $disk).Hash
        $null = Get-DiskImageHash "$TestDrive/over.qcow2" -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageRefused SecurityError'
    }

    It 'are not opened where the server is another than is known' {
        $null = Get-DiskImageInfo "$url/disk.qcow2?host_key_check=sha256:$('0' * 64)" -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageRefused SecurityError'
        $right = (& ssh-keygen -l -E md5 -f "$TestDrive/host").Split(' ')[1].Substring(4)
        $null = Get-DiskImageInfo "$url/disk.qcow2?host_key_check=md5:$right" -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Match 'MD5 can be forged.*sha256:[0-9a-f]{64}'
    }

    It 'are errors that fit a narrow terminal and say what ssh says' {
        $null = Get-DiskImageInfo "ssh://127.0.0.1:1/none.raw" -ErrorAction SilentlyContinue -ErrorVariable problems
        "$problems" | Should -Match 'ssh says: .*Connection refused'
        $null = Get-DiskImageInfo "$url/none.raw" -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
    }

    It 'have options that Tab knows without asking the server' {
        Get-Completion "New-DiskImage ssh://no-such-host.invalid/disk.qcow2 -Clu" | Should -Be '-ClusterSize'
    }

    It 'are given up while the server hangs' {
        Copy-Item $disk "$far/slow.raw"
        $run = Invoke-Interrupted Convert-DiskImage @{
            Path = "$url/slow.raw"; Format = 'raw'; Destination = "$TestDrive/slow.raw"; RateLimit = 64KB
        } -When {
            $isBegun = Test-Begun $TestDrive 64KB
            if ($isBegun) { @(Get-Below $server.Id) | ForEach-Object { & kill -STOP $_ } }
            $isBegun
        }
        $run.State | Should -BeIn 'Stopped', 'Completed', 'Failed'
        for ($i = 0; $i -lt 1000 -and (& pgrep -P $PID -x ssh); $i++) { Start-Sleep -Milliseconds 10 }
        & pgrep -P $PID -x ssh | Should -BeNullOrEmpty
    }
}
