# Images in a Sheepdog cluster, on GlusterFS volumes and in an NVMe namespace, by the cmdlets of a real session. Sheepdog's gateway is the
# unit tests' own, in this process; glusterd is a real one, where it is installed; the controller is QEMU's, in a Linux guest that the
# program of DISKIMAGE_GUEST boots (run OUT COMMAND [options of QEMU]; OUT is /out there).
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $disk = New-TestDisk "$TestDrive/disk.raw" -Size 4MB -Seed 5
    $built = Get-ChildItem "$RepositoryRoot/tests/Unit/bin/*/net*/DiskImage.Tests.dll" -ErrorAction Ignore |
        Sort-Object LastWriteTime | Select-Object -Last 1
    $tests = $built ? [Reflection.Assembly]::LoadFrom($built.FullName) : $null
    $noTests = 'the unit tests, whose server it takes, are not built'

    # What a user does with a place for a disk: fills it, looks at it, changes it, and gets it back.
    $usePlace = {
        param($place, $disk, $folder, $writing = @{})
        $made = Convert-DiskImage $disk $place -Format raw -DestinationFormat raw -Force -Confirm:$false -Verify @writing
        Write-DiskImage $place ([byte[]](1..64)) -Offset 12345 -Format raw -Confirm:$false @writing
        $null = Convert-DiskImage $place "$folder/back.qcow2" -Format raw -Force -Confirm:$false
        Write-DiskImage $disk ([byte[]](1..64)) -Offset 12345 -Format raw -Confirm:$false
        [pscustomobject]@{
            Made   = $made.Path
            Size   = (Get-DiskImageInfo $place -Format raw).VirtualSize
            Same   = (Compare-DiskImage $disk $place -Format raw -DifferenceFormat raw).Identical
            Hash   = (Get-DiskImageHash $place -Format raw).Hash -eq (Get-FileHash $disk).Hash
            Mapped = (Get-DiskImageMap $place -Format raw | Measure-Object Length -Sum).Sum
            Read   = (Read-DiskImage $place -Offset 12346 -Length 3 -Format raw) -join ' '
            Back   = (Compare-DiskImage $disk "$folder/back.qcow2" -Format raw).Identical
        } | ConvertTo-Json -Compress
    }

    function Assert-Used($Used, [string] $Place, [long] $Size = 4MB) {
        $used = $Used | ConvertFrom-Json
        $used.Made, $used.Size, $used.Same, $used.Hash, $used.Mapped, $used.Read, $used.Back |
            Should -Be $Place, $Size, $true, $true, $Size, '2 3 4', $true
    }
}

Describe 'A Sheepdog cluster' {
    BeforeAll {
        if ($tests) {
            $sheep = [Activator]::CreateInstance(
                $tests.GetType('DiskImage.Tests.Protocols.Sheepdog.ScriptedSheep'), [Reflection.BindingFlags] 'Instance, Public', $null, [object[]] @($null), $null)
            $place = $sheep.Url('disk')
        }
    }

    AfterAll {
        if ($tests) { $sheep.DisposeAsync().AsTask().Wait() }
    }

    BeforeEach {
        if (-not $tests) { Set-ItResult -Skipped -Because $noTests }
    }

    It 'takes a disk, and gives it back' {
        Assert-Used (& $usePlace $place $disk $TestDrive) $place
    }

    It 'keeps snapshots, begins disks as they are, and goes back to them' {
        (New-DiskImageSnapshot $place first).Name | Should -Be first
        Write-DiskImage $place ([byte[]]::new(4096)) -Offset 0 -Format raw -Confirm:$false
        $null = New-DiskImage $sheep.Url('clone') -Format raw -BackingPath "$place#first"
        foreach ($same in "$place#first", $sheep.Url('clone')) {
            (Compare-DiskImage $disk $same -Format raw -DifferenceFormat raw).Identical | Should -BeTrue -Because $same
        }

        (Compare-DiskImage $disk $place -Format raw -DifferenceFormat raw).FirstDifference | Should -BeLessThan 4096
        Restore-DiskImageSnapshot $place first -Confirm:$false
        (Compare-DiskImage $disk $place -Format raw -DifferenceFormat raw).Identical | Should -BeTrue
        (Get-DiskImageSnapshot $place).Name | Should -Contain first
        Remove-DiskImageSnapshot $place first -Confirm:$false
        Get-DiskImageSnapshot $place | Where-Object Name -EQ first | Should -BeNullOrEmpty
    }

    It 'grows a disk, and cuts one' {
        Resize-DiskImage $place 6MB -Format raw
        (Get-DiskImageInfo $place).VirtualSize | Should -Be 6MB
        Resize-DiskImage $place 4MB -Format raw -Shrink -Confirm:$false
        $compared = Compare-DiskImage $disk $place -Format raw -DifferenceFormat raw
        $compared.Identical, $compared.SizesDiffer | Should -Be $true, $false
    }

    It 'says what is not there' {
        { Get-DiskImageInfo $sheep.Url('none') -ErrorAction Stop } | Should -Throw '*there is no such VDI*'
        { Get-DiskImageInfo "$place#none" -ErrorAction Stop } | Should -Throw '*no such snapshot*'
    }
}

Describe 'GlusterFS volumes' {
    BeforeAll {
        $server = $tests ? $tests.GetType('DiskImage.Tests.Protocols.Gluster.GlusterServer') : $null
        $whyNot = $tests ? $server.GetProperty('WhyNot').GetValue($null) : $noTests
        if (-not $whyNot) {
            $volumes = [Activator]::CreateInstance($server)
            $volumes.StartAsync().Wait()
        }
    }

    AfterAll {
        if (-not $whyNot) { $volumes.Dispose() }
    }

    BeforeEach {
        if ($whyNot) { Set-ItResult -Skipped -Because $whyNot }
    }

    It 'take a disk on <_>, and give it back' -ForEach dist, repl {
        $place = $server::Url($_, 'disk.raw')
        Assert-Used (& $usePlace $place $disk $TestDrive) $place
    }

    It 'hold chains, snapshots and a disk that grows' {
        $base, $child = $server::Url('dist', 'base.qcow2'), $server::Url('dist', 'child.qcow2')
        $null = Convert-DiskImage $disk $base -Format raw
        $null = New-DiskImage $child -BackingPath $base -BackingFormat qcow2
        $named = @{ References = 'Anywhere' } # what an image names is opened at the user's word only
        { Get-DiskImageHash $child -ErrorAction Stop } | Should -Throw '*names the backing file*'
        $null = New-DiskImageSnapshot $child first @named
        Resize-DiskImage $child 8MB @named
        (Get-DiskImageInfo $child @named).VirtualSize | Should -Be 8MB
        (Test-DiskImage $child @named).IsConsistent | Should -BeTrue
        (Compare-DiskImage $disk $child -Format raw -DifferenceFormat qcow2 @named).Identical | Should -BeTrue # what is longer is zero
    }

    It 'say what is not there' {
        { Get-DiskImageInfo $server::Url('dist', 'none') -ErrorAction Stop } | Should -Throw '*none*'
    }
}

Describe 'An NVMe namespace' {
    It 'takes a disk, and gives it back' {
        if (-not $env:DISKIMAGE_GUEST) {
            Set-ItResult -Skipped -Because 'DISKIMAGE_GUEST names no program that boots a Linux guest'
            return
        }

        $null = New-Item -ItemType Directory "$TestDrive/out"
        $null = New-Item "$TestDrive/namespace.raw" -Value ''
        Resize-DiskImage "$TestDrive/namespace.raw" 4MB -Format raw | Out-Null
        Copy-Item $disk "$TestDrive/out/disk.raw"
        Set-Content "$TestDrive/out/use.ps1" @"
`$ErrorActionPreference = 'Stop'
`$PSStyle.OutputRendering = 'PlainText'
Import-Module '$ModuleManifest'
`$use = { $usePlace }
& `$use "nvme://`$(`$args[0])/1" /out/disk.raw /tmp @{ AllowDeviceWrite = `$true }
"@
        $shell = [Environment]::ProcessPath
        $pwsh = [IO.Path]::GetFileNameWithoutExtension($shell) -eq 'dotnet' ? "$shell $PSHOME/pwsh.dll" : $shell
        $command = @"
modprobe nvme; modprobe vfio_iommu_type1; modprobe vfio-pci
for d in /sys/bus/pci/devices/*; do if [ `$(cat `$d/class) = 0x010802 ]; then bdf=`$(basename `$d); dev=`$d; fi; done
echo vfio-pci > `$dev/driver_override; echo `$bdf > `$dev/driver/unbind; echo `$bdf > /sys/bus/pci/drivers_probe
$pwsh -NoProfile -NonInteractive -File /out/use.ps1 `$bdf > /out/said 2>&1; echo `$bdf > /out/bdf
"@
        & $env:DISKIMAGE_GUEST run "$TestDrive/out" $command -drive "file=$TestDrive/namespace.raw,format=raw,if=none,id=n1" -device nvme,serial=A,drive=n1 |
            Out-Host
        $said = Get-Content "$TestDrive/out/said" -Raw
        Assert-Used ($said.Trim() -split "`n" | Select-Object -Last 1) "nvme://$((Get-Content "$TestDrive/out/bdf").Trim())/1"
        (Get-FileHash "$TestDrive/namespace.raw").Hash | Should -Be (Get-FileHash "$TestDrive/out/disk.raw").Hash
    }
}
