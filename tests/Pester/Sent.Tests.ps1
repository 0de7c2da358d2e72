# New images that are sent: to a pipe, to standard output, to a stream.

BeforeAll {
    . $PSScriptRoot/Common.ps1
    $folder = Join-Path $TestDrive 'sent'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 24MB
    $null = Convert-DiskImage disk.raw disk.qcow2
    $hash = (Get-FileHash disk.raw).Hash
}

AfterAll { Pop-Location }

Describe 'An image that is sent' {
    It 'goes to a stream, which stays open: <Name>' -ForEach @{ Name = 'Convert-DiskImage' }, @{ Name = 'Copy-DiskImage' } {
        $stream = [IO.MemoryStream]::new()
        $info = & $Name disk.qcow2 sent.raw -DestinationStream $stream
        $info.Format | Should -Be 'raw'
        $info.VirtualSize | Should -Be 24MB
        $info.Statistics.BytesCopied | Should -BeGreaterThan 1MB
        $stream.CanWrite | Should -BeTrue
        $stream.Length | Should -Be 24MB
        $stream.Position = 0
        (Get-FileHash -InputStream $stream).Hash | Should -Be $hash
        'sent.raw' | Should -Not -Exist
    }

    It 'may be a fixed VHD' {
        $stream = [IO.File]::Create("$folder/fixed.vhd")
        $null = Convert-DiskImage disk.qcow2 any.vhd -DestinationStream $stream -Fixed
        $stream.Dispose()
        (Test-DiskImage fixed.vhd).IsConsistent | Should -BeTrue
        (Compare-DiskImage disk.raw fixed.vhd).Identical | Should -BeTrue
    }

    It 'goes to standard output, and nothing else does' {
        Skip-OnWindows 'a shell that passes bytes on'
        $pwsh = [IO.Path]::GetFileNameWithoutExtension([Environment]::ProcessPath) -eq 'dotnet' ? "dotnet '$PSHOME/pwsh.dll'" : "'$([Environment]::ProcessPath)'"
        & sh -c "$pwsh -NoProfile -NonInteractive -Command `"Import-Module '$ModuleManifest'; Convert-DiskImage '$folder/disk.qcow2' - -DestinationFormat raw`" | cat > '$folder/arrived.raw'"
        (Get-FileHash arrived.raw).Hash | Should -Be $hash
    }

    It 'goes to a pipe that has a name' {
        Skip-OnWindows 'pipes in folders'
        & mkfifo pipe
        $reader = Start-Process sh -ArgumentList '-c', "`"cat '$folder/pipe' > '$folder/piped.raw'`"" -PassThru
        $info = Convert-DiskImage disk.qcow2 pipe -DestinationFormat raw
        $reader.WaitForExit(30000) | Should -BeTrue
        $info.Path | Should -Be "$folder/pipe"
        (Get-FileHash piped.raw).Hash | Should -Be $hash
        (Get-Item pipe).UnixStat.ItemType | Should -Be 'NamedPipe'
        Remove-Item pipe
    }

    It 'is not of a format that is written in another order' {
        $stream = [IO.MemoryStream]::new()
        { Convert-DiskImage disk.raw sent.qcow2 -DestinationStream $stream -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageUnsupported,*' -ExpectedMessage '*raw, vpc with subformat=fixed*'
        $stream.Length | Should -Be 0
    }

    It 'cannot be verified' {
        { Convert-DiskImage disk.qcow2 sent.raw -DestinationStream ([IO.MemoryStream]::new()) -Verify -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*cannot be read back*'
    }

    It 'is not sent with -WhatIf' {
        $stream = [IO.MemoryStream]::new()
        Convert-DiskImage disk.qcow2 sent.raw -DestinationStream $stream -WhatIf | Should -BeNullOrEmpty
        $stream.Length | Should -Be 0
    }
}
