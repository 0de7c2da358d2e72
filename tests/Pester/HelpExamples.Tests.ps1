# Every example of the help pages is run, each in a folder of its own with the images that the pages speak of.
BeforeDiscovery {
    # What cannot be run here, with the reason.
    $elsewhere = @{
        'Get-DiskImageDevice 2'  = 'it reads a stick'
        'Get-DiskImageExport 2'  = 'it asks a server'
        'Set-DiskImageOption 3'  = 'it names a folder of another machine'
        'Start-DiskImageExport 3' = 'it serves until it is stopped'
    }
    $examples = foreach ($file in Get-ChildItem "$PSScriptRoot/../../docs/en-US" -Filter '*-*.md') {
        $text = [IO.File]::ReadAllText($file.FullName).ReplaceLineEndings("`n")
        foreach ($match in [regex]::Matches($text, '(?s)\n### Example (\d+): ([^\n]+)\n(.*?)(?=\n###? )')) {
            $number, $title, $body = $match.Groups[1, 2, 3].Value
            $key = "$($file.BaseName) $number"
            @{
                Key     = $key
                Page    = $file.BaseName
                Title   = $title
                Code    = [regex]::Match($body, '(?s)```powershell\n(.*?)```').Groups[1].Value
                Prints  = $body.Contains('```output') -and $body -notmatch '-WhatIf|-Verbose' -and $file.BaseName -ne 'Get-DiskImageDevice'
                Because = $file.BaseName -eq 'Get-DiskImageIscsiTarget' ? 'it asks a server' : $elsewhere[$key]
            }
        }
    }
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $fixture = (New-Item "$TestDrive/fixture" -ItemType Directory).FullName
    $was = (Get-Location).ProviderPath
    Set-Location $fixture
    $secrets = @{}
    foreach ($name in 'Server', 'Backup', 'Old', 'OldOne') {
        $secrets[$name] = ConvertTo-SecureString "the secret $name" -AsPlainText -Force
    }

    function Get-Secret([string] $Name) { $secrets[$Name] }
    function Read-Host([switch] $AsSecureString) { $secrets[$asked.Dequeue()] }

    # The refcount of an image's last cluster becomes another: 2 is a leak, 0 a corruption. The table is one block of 64 KiB, 16 bits each.
    function Set-LastRefcount([string] $Path, [byte] $Count) {
        $bytes = [IO.File]::ReadAllBytes($Path)
        $number = { param($at) [byte[]] $part = $bytes[$at..($at + 7)]; [Array]::Reverse($part); [BitConverter]::ToInt64($part, 0) }
        $block = & $number (& $number 48)
        $last = (Get-DiskImageMap $Path | Where-Object Data | Select-Object -Last 1)
        $bytes[$block + 2 * (($last.Offset + $last.Length) / 65536 - 1) + 1] = $Count
        [IO.File]::WriteAllBytes($Path, $bytes)
    }

    $null = New-TestDisk "$fixture/server.raw" -Size 6MB -Seed 421
    Write-DiskImage server.raw 510 0x55, 0xAA
    foreach ($name in 'server.qcow2', 'server.vhdx', 'server.vhd', 'changed.qcow2', 'leaky.qcow2', 'damaged.qcow2', 'top.qcow2', 'before.qcow2', 'after.qcow2') {
        $null = Convert-DiskImage server.raw $name -Format raw
    }

    Write-DiskImage changed.qcow2 2MB 1, 2, 3
    Write-DiskImage after.qcow2 2MB 1, 2, 3
    Set-LastRefcount "$fixture/leaky.qcow2" 2
    Set-LastRefcount "$fixture/damaged.qcow2" 0
    $null = New-DiskImageSnapshot server.qcow2 'before update'
    $null = New-DiskImageSnapshot server.qcow2 trial1
    $null = New-DiskImageBitmap server.qcow2 day
    $null = New-DiskImageBitmap server.qcow2 week -Disabled
    Write-DiskImage server.qcow2 2MB 4, 5, 6
    $null = New-DiskImage update.qcow2 -BackingPath server.qcow2 -BackingFormat qcow2
    $null = New-DiskImage trial.qcow2 -BackingPath update.qcow2 -BackingFormat qcow2
    Write-DiskImage trial.qcow2 1MB ([byte[]](1..100))
    $null = New-DiskImage server.luks 1MB -NewSecret $secrets.Server -Option @{ 'iter-time' = 1 }
    $null = Convert-DiskImage server.raw disk.qcow2
    foreach ($name in 'disk.raw', 'part1.raw', 'part2.raw') {
        Copy-Item server.raw $name
    }

    $null = New-DiskImage volume.raw 6MB

    # A disk with one partition (MBR) of 1 MiB at 1 MiB.
    $null = New-DiskImage vm.vhdx 64MB
    Write-DiskImage vm.vhdx 446 ([byte[]](0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0))
    Write-DiskImage vm.vhdx 510 0x55, 0xAA

    # What an example needs beside, or must not find.
    $prepare = @{
        'Convert-DiskImage 2'    = { $null = New-Item out -ItemType Directory }
        'New-DiskImage 1'        = { Remove-Item server.qcow2 }
        'New-DiskImage 3'        = { Remove-Item trial.qcow2 }
        'New-DiskImageBitmap'    = { Get-DiskImageBitmap server.qcow2 | Remove-DiskImageBitmap }
        'New-DiskImageSnapshot'  = { Get-DiskImageSnapshot server.qcow2 | Remove-DiskImageSnapshot }
        'Get-DiskImageInfo'      = { Remove-Item leaky.qcow2, damaged.qcow2 }
        'Get-DiskImageLock 1'    = { $null = Start-DiskImageExport server.qcow2 -Port 0 }
        'Restore-DiskImageSnapshot' = { Get-DiskImageBitmap server.qcow2 | Remove-DiskImageBitmap }
        'Set-DiskImageOption 1'  = { Get-DiskImageBitmap server.qcow2 | Remove-DiskImageBitmap }
        'Get-DiskImageExport'    = { $null = Start-DiskImageExport server.vhdx -Port 0 }
        'Stop-DiskImageExport'   = { $null = Start-DiskImageExport server.vhdx -Port 0 }
        'Remove-DiskImageKeySlot 1' = { $null = Add-DiskImageKeySlot server.luks -Secret $secrets.Server -NewSecret $secrets.OldOne }
    }
}

AfterAll { Set-Location $was }

Describe 'Help of <Page>' -ForEach $examples {
    It 'example <Key>: <Title>' {
        if ($Because) {
            Set-ItResult -Skipped -Because $Because
        }

        $folder = (New-Item "$TestDrive/$($Key.Replace(' ', '-'))" -ItemType Directory).FullName
        Copy-Item "$fixture/*" $folder
        Set-Location $folder
        $ConfirmPreference = 'None'
        $asked = [Collections.Generic.Queue[string]]::new([string[]]('Server', 'Backup'))
        try {
            foreach ($name in $Page, $Key) {
                if ($prepare[$name]) {
                    . $prepare[$name]
                }
            }

            $code = $Code.Replace('/run/user/1000', $folder).Replace('Start-DiskImageExport server.vhdx', 'Start-DiskImageExport server.vhdx -Port 0')
            $ErrorActionPreference = 'Continue'
            $output = @(. ([scriptblock]::Create($code)) 2>&1 3>$null 4>$null)
            $output | Where-Object { $_ -is [System.Management.Automation.ErrorRecord] } | Should -BeNullOrEmpty
            if ($Prints) {
                $output | Should -Not -BeNullOrEmpty
            }
        } finally {
            Get-DiskImageExport | Stop-DiskImageExport
            Set-Location $fixture
            Remove-Item $folder -Recurse -Force
        }
    }
}
