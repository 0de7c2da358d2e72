BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'iscsi'
    $null = New-Item $folder -ItemType Directory
    $iqn = 'iqn.2026-11.org.example:disks'
    $server = $null
    if (Get-Command tgtd -CommandType Application -ErrorAction Ignore) {
        $probe = [Net.Sockets.TcpListener]::new([ipaddress]::Loopback, 0)
        $probe.Start()
        $port = $probe.LocalEndpoint.Port
        $probe.Stop()
        $number = $port -band 0x7FFF
        $env:TGT_IPC_SOCKET = "$folder/c"
        $server = Start-Process tgtd '-f', '--iscsi', "portal=127.0.0.1:$port", '-C', $number -PassThru -RedirectStandardError "$folder/log"
        for ($i = 0; $i -lt 200 -and -not (Test-Path "$folder/c.$number"); $i++) { Start-Sleep -Milliseconds 50 }
        function Invoke-Admin { tgtadm -C $number --lld iscsi @args; if ($LASTEXITCODE) { throw "tgtadm $args" } }
        [IO.File]::Create("$folder/disk").Dispose()
        $null = New-DiskImage "$folder/disk" 8MB -Format raw -Force
        [IO.File]::WriteAllBytes("$folder/disc.iso", [byte[]](, 7 * 1MB))
        [IO.File]::WriteAllBytes("$folder/other", [byte[]]::new(1MB))
        Invoke-Admin --op new --mode target --tid 1 -T $iqn
        Invoke-Admin --op new --mode logicalunit --tid 1 --lun 1 -b "$folder/disk"
        Invoke-Admin --op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1
        Invoke-Admin --op new --mode logicalunit --tid 1 --lun 2 -b "$folder/disc.iso" --device-type cd
        Invoke-Admin --op bind --mode target --tid 1 -I ALL
        Invoke-Admin --op new --mode target --tid 2 -T "${iqn}2"
        Invoke-Admin --op new --mode logicalunit --tid 2 --lun 1 -b "$folder/other"
        Invoke-Admin --op bind --mode target --tid 2 -I ALL
        Invoke-Admin --op new --mode account --user me --password 'open sesame 12'
        Invoke-Admin --op bind --mode account --tid 2 --user me
        Invoke-Admin --op new --mode target --tid 3 -T "${iqn}3"
        Invoke-Admin --op new --mode logicalunit --tid 3 --lun 1 -b "$folder/other"
        Invoke-Admin --op bind --mode target --tid 3 -Q iqn.2026-11.org.example:me
    }

    $disk = "iscsi://127.0.0.1:$port/$iqn/1"
    $guarded = "127.0.0.1:$port/${iqn}2/1"
    $me = [pscredential]::new('me', (ConvertTo-SecureString 'open sesame 12' -AsPlainText -Force))
}

AfterAll {
    if ($server) {
        $server.Kill()
        $server.WaitForExit()
        $env:TGT_IPC_SOCKET = $null
    }
}

Describe 'Get-DiskImageIscsiTarget' {
    BeforeEach { Skip-Without tgtd }

    It 'is whom -InitiatorName says, where a target lets in by name' {
        $found = Get-DiskImageIscsiTarget "127.0.0.1:$port" "${iqn}3" -InitiatorName iqn.2026-11.org.example:me
        $found.Lun | Should -Contain 1
        Get-DiskImageIscsiTarget "127.0.0.1:$port" "${iqn}3" -InitiatorName iqn.2026-11.org.example:you -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
    }

    It 'lists targets and units, also from the pipeline, and says which do not let one in' {
        $all = "127.0.0.1:$port" | Get-DiskImageIscsiTarget -ErrorAction SilentlyContinue -ErrorVariable problems
        $all | Should -BeOfType DiskImage.PowerShell.DiskImageIscsiTarget
        $units = $all | Where-Object Target -EQ $iqn
        $units.Lun | Should -Be 0, 1, 2
        $units.Kind | Should -Be 'controller', 'disk', 'CD-ROM'
        $units.ForEach{ $_.VirtualSize } | Should -Be $null, 8MB, 1MB
        $units[1].BlockSize, $units[2].BlockSize | Should -Be 512, 2048
        $units[1].IsThin | Should -BeTrue
        $units[2].IsReadOnly | Should -BeTrue
        $units[1].Uri | Should -Be $disk
        $units[1].Portals | Should -Be "127.0.0.1:$port"
        ($all | Where-Object Target -EQ "${iqn}2").Lun | Should -BeNullOrEmpty
        $problems.Count | Should -Be 1
        $problems[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageWrongSecret,*'
    }

    It 'asks as a user, and only those that are meant' {
        (Get-DiskImageIscsiTarget "127.0.0.1:$port" *disks2 -Credential $me | Where-Object Kind -EQ disk).VirtualSize | Should -Be 1MB
        { Get-DiskImageIscsiTarget "127.0.0.1:$port" *disks2 -Credential $me -TargetCredential ([pscredential]::new('them', (ConvertTo-SecureString 'not known here' -AsPlainText -Force))) -ErrorAction Stop } |
            Should -Throw "*prove that it is 'them'*"
    }

    It 'says what cannot be reached, and what is no server' {
        $null = Get-DiskImageIscsiTarget '127.0.0.1:1', 'iser://127.0.0.1', 'a b' -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.Count | Should -Be 3
        "$($problems[1])" | Should -BeLike '*iSER*not supported*'
    }
}

Describe 'Units of iSCSI targets' {
    BeforeEach { Skip-Without tgtd }

    It 'are opened, mapped, read, written, converted both ways, compared and served' {
        $bytes = [byte[]](1..250) * 2000
        Write-DiskImage $disk 1MB $bytes -Format raw
        [Convert]::ToHexString((Read-DiskImage $disk -Offset (1MB - 1) -Length 500001 -Format raw)) | Should -Be ('00' + [Convert]::ToHexString($bytes))
        $info = Get-DiskImageIscsiTarget "127.0.0.1:$port" $iqn | Where-Object Lun -EQ 1 | Get-DiskImageInfo
        $info.Path, $info.Format, $info.VirtualSize | Should -Be $disk, 'raw', 8MB
        $map = Get-DiskImageMap $disk -Format raw
        ($map | Where-Object Data).Start | Should -Be 1MB
        $null = Convert-DiskImage $disk "$folder/disk.qcow2"
        (Compare-DiskImage "$folder/disk.qcow2" $disk).Identical | Should -BeTrue
        Write-DiskImage "$folder/disk.qcow2" 4MB $bytes
        $null = Convert-DiskImage "$folder/disk.qcow2" $disk -DestinationFormat raw -Force -InPlace
        (Compare-DiskImage "$folder/disk.qcow2" $disk -DifferenceFormat raw).Identical | Should -BeTrue
        $export = Start-DiskImageExport $disk -Format raw -ReadOnly -Port 0
        (Compare-DiskImage $export.Uri $disk -Format raw -DifferenceFormat raw).Identical | Should -BeTrue
        $export | Stop-DiskImageExport
        { Convert-DiskImage "$folder/disk.qcow2" $disk -DestinationFormat raw -ErrorAction Stop } | Should -Throw '*cannot be replaced, only written to*'
    }

    It 'are a CD-ROM that is only read' {
        $disc = $disk -replace '1$', '2'
        (Get-DiskImageInfo $disc -Format raw).VirtualSize | Should -Be 1MB
        { Write-DiskImage $disc 0 ([byte[]](1, 2)) -Format raw -ErrorAction Stop } | Should -Throw '*is a CD-ROM*'
    }

    It 'take a credential, a secret by name, and a password in the URL, which nobody sees' {
        (Get-DiskImageInfo "iscsi://$guarded" -Credential $me -Format raw).VirtualSize | Should -Be 1MB
        $described = "json:{`"driver`":`"iscsi`",`"portal`":`"127.0.0.1:$port`",`"target`":`"${iqn}2`",`"lun`":1,`"user`":`"me`",`"password-secret`":`"word`"}"
        (Get-DiskImageInfo $described -Secret @{ word = $me.Password }).VirtualSize | Should -Be 1MB
        $null = New-DiskImage "$folder/guarded.raw" 1MB
        $null = Convert-DiskImage "$folder/guarded.raw" "iscsi://$guarded" -DestinationFormat raw -Force -InPlace -Secret @{ "iscsi://$guarded" = $me }
        $null = Convert-DiskImage "$folder/guarded.raw" "iscsi://$guarded" -DestinationFormat raw -Force -InPlace -Credential $me -ErrorAction Ignore
        $all = & { Get-DiskImageInfo "iscsi://me%open sesame 12@$guarded" -Format raw -Verbose *>&1; Convert-DiskImage "iscsi://me%open sesame 12@$guarded" "$folder/x.qcow2" -Verbose *>&1
            Convert-DiskImage "$folder/guarded.raw" "iscsi://me%open sesame 12@$guarded" -DestinationFormat raw -Force -InPlace -Verbose *>&1 }
        ($all | Out-String -Width 300) + ($all | Where-Object { $_ -isnot [Management.Automation.VerboseRecord] } | ConvertTo-Json -Depth 5) | Should -Not -Match 'sesame'
        $wrong = try { Get-DiskImageInfo "iscsi://me%not sesame 12@$guarded" -Format raw -ErrorAction Stop } catch { $_ }
        $wrong.FullyQualifiedErrorId | Should -BeLike 'DiskImageWrongSecret,*'
        "$($wrong.Exception)" + ($wrong | Format-List * -Force | Out-String -Width 400) | Should -Not -Match 'not sesame 12@127'
        { Get-DiskImageInfo 'iscsi://me%not sesame 12@127.0.0.1:x/y/1' -ErrorAction Stop } | Should -Throw '*no good port*'
    }
}
