BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'get-export'
    $null = New-Item $folder -ItemType Directory
    $disk = "$folder/disk.qcow2"
    $null = New-DiskImage $disk 4MB
    $other = New-DiskImage "$folder/other.qcow2" 4MB
}

AfterAll { Get-DiskImageExport | Stop-DiskImageExport }

Describe 'Get-DiskImageExport' {
    AfterEach { Get-DiskImageExport | Stop-DiskImageExport }

    It 'gives nothing where nothing is served' {
        Get-DiskImageExport | Should -BeNullOrEmpty
    }

    It 'gives what this session serves, by name, with what its clients did' {
        $null = Start-DiskImageExport $disk -Name one -Port 0
        $null = Start-DiskImageExport $other.Path -Name two -Port 0 -ReadOnly
        $all = Get-DiskImageExport
        $all | Should -BeOfType DiskImage.PowerShell.DiskImageExport
        $all.Name | Should -Be 'one', 'two'
        $all.ForEach{ $_.IsReadOnly } | Should -Be $false, $true
        $null = Read-DiskImage $all[0].Uri -Offset 0 -Length 4096 -Format raw
        $one = Get-DiskImageExport -Name o*
        $one.Name | Should -Be 'one'
        $one.BytesRead | Should -BeGreaterOrEqual 4096
        $one.Errors | Should -Be 0
    }

    It 'lists what a server has, also from the pipeline, and says which cannot be reached' {
        $export = Start-DiskImageExport $disk -Name one -Description 'a disk' -Port 0
        $server = $export.Uri -replace '/[^/]*$'
        $found = 'nbd+unix:///?socket=/nowhere', $server | Get-DiskImageExport -ErrorAction SilentlyContinue -ErrorVariable problems
        $found.Name | Should -Be 'one'
        $found.Description | Should -Be 'a disk'
        $found.VirtualSize | Should -Be 4MB
        $problems.Count | Should -Be 1
        $problems[0].FullyQualifiedErrorId | Should -BeLike 'DiskImage*,*'
    }

    It 'lists what qemu-nbd has' {
        Skip-Without qemu-nbd
        $server = Start-Process qemu-nbd -ArgumentList '--persistent', "--socket=$folder/s", '--export-name=theirs', '-f', 'qcow2', $disk -PassThru
        try {
            # its socket is there before it listens
            for ($i = 0; $i -lt 100 -and -not $found; $i++) {
                Start-Sleep -Milliseconds 50
                $found = Get-DiskImageExport "nbd+unix:///?socket=$folder/s" -ErrorAction SilentlyContinue
            }

            $found.Name | Should -Be 'theirs'
        } finally {
            $server.Kill()
            $server.WaitForExit()
        }
    }
}
