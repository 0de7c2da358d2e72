BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'stop-export'
    $null = New-Item $folder -ItemType Directory
    $null = New-DiskImage "$folder/a.qcow2" 1MB
    $null = New-DiskImage "$folder/b.qcow2" 1MB
}

AfterAll { Get-DiskImageExport | Stop-DiskImageExport }

Describe 'Stop-DiskImageExport' {
    BeforeEach {
        $a = Start-DiskImageExport "$folder/a.qcow2" -Port 0
        $b = Start-DiskImageExport "$folder/b.qcow2" -Port 0
    }

    AfterEach { Get-DiskImageExport | Stop-DiskImageExport }

    It 'ends by name, with wildcards or without, and lets go of the image' {
        Stop-DiskImageExport a.* | Should -BeNullOrEmpty
        (Get-DiskImageExport).Name | Should -Be 'b.qcow2'
        Test-Released "$folder/a.qcow2" | Should -BeTrue
        Test-Released "$folder/b.qcow2" | Should -BeFalse
        { Read-DiskImage $a.Uri 0 1 -Format raw -ErrorAction Stop } | Should -Throw
    }

    It 'ends by number, and what comes from the pipeline' {
        Stop-DiskImageExport -Id $b.Id
        (Get-DiskImageExport).Id | Should -Be $a.Id
        Get-DiskImageExport | Stop-DiskImageExport
        Get-DiskImageExport | Should -BeNullOrEmpty
    }

    It 'has what clients wrote in the image when it returns' {
        Write-DiskImage $a.Uri -Offset 65536 -Bytes (, 9 * 512) -Format raw
        $a | Stop-DiskImageExport
        Read-DiskImage "$folder/a.qcow2" 65536 1 | Should -Be 9
        (Test-DiskImage "$folder/a.qcow2").IsConsistent | Should -BeTrue
    }

    It 'ends nothing with -WhatIf, and says which there is not' {
        Stop-DiskImageExport * -WhatIf
        @(Get-DiskImageExport).Count | Should -Be 2
        Stop-DiskImageExport none.qcow2 -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
        Stop-DiskImageExport none.* -ErrorVariable problems
        $problems | Should -BeNullOrEmpty
    }
}
