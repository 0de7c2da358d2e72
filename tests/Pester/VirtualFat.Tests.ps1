# Folders as disks with a FAT volume.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    $null = New-Item -ItemType Directory "$TestDrive/seed/inner"
    Set-Content "$TestDrive/seed/user-data" "#cloud-config`n" -NoNewline
    Set-Content "$TestDrive/seed/inner/Grüße 日本.txt" 'text' -NoNewline
}

Describe 'A folder as a disk' {
    It 'is told of, mapped, read and converted' {
        $info = Get-DiskImageInfo "fat:$TestDrive/seed"
        $info.Format | Should -Be 'raw'
        $info.VirtualSize | Should -BeGreaterThan 1MB
        $map = Get-DiskImageMap "fat:$TestDrive/seed"
        ($map | Measure-Object Length -Sum).Sum | Should -Be $info.VirtualSize
        @($map | Where-Object Data).Count | Should -BeGreaterThan 1
        $boot = Read-DiskImage "fat:$TestDrive/seed" -Offset 1MB -Length 512
        [Text.Encoding]::ASCII.GetString($boot, 43, 11) | Should -Be 'QEMU VVFAT '
        $made = Convert-DiskImage "fat:$TestDrive/seed" "$TestDrive/seed.vhdx" -WarningVariable warnings
        $made.Format | Should -Be 'vhdx'
        $warnings | Should -BeNullOrEmpty
        (Compare-DiskImage "fat:$TestDrive/seed" "$TestDrive/seed.vhdx").Identical | Should -BeTrue
    }

    It 'takes a relative folder from the session''s location' {
        Push-Location $TestDrive
        try { (Get-DiskImageInfo 'fat:./seed').VirtualSize | Should -BeGreaterThan 1MB } finally { Pop-Location }
    }

    It 'takes options as json: and as -ImageOption' {
        $folder = "$TestDrive/seed".Replace('\', '/')
        foreach ($boot in @(
                Read-DiskImage "json:{`"driver`":`"vvfat`",`"dir`":`"$folder`",`"label`":`"cidata`"}" -Offset 1MB -Length 512 | ForEach-Object { , $_ }
                Read-DiskImage -ImageOption @{ driver = 'vvfat'; dir = $folder; label = 'CIDATA' } -Offset 1MB -Length 512 | ForEach-Object { , $_ })) {
            $boot.Count | Should -BeGreaterThan 0
        }
        $boot = Read-DiskImage -ImageOption @{ driver = 'vvfat'; dir = $folder; label = 'CIDATA' } -Offset 1MB -Length 512
        [Text.Encoding]::ASCII.GetString($boot, 43, 11) | Should -Be 'CIDATA     '
        (Get-DiskImageInfo -ImageOption @{ driver = 'vvfat'; dir = $folder; size = '64M' }).VirtualSize | Should -Be 64MB
        (Get-DiskImageInfo "fat:floppy:$TestDrive/seed").VirtualSize | Should -Be 1474560
    }

    It 'warns of what cannot be on it' -Skip:($IsWindows) {
        $null = New-Item -ItemType Directory "$TestDrive/odd"
        Set-Content "$TestDrive/odd/good" 'x'
        [IO.File]::WriteAllText("$TestDrive/odd/a:b", 'x')
        $null = Get-DiskImageInfo "fat:$TestDrive/odd" -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -BeLike "*a:b*not on the disk*':'*"
    }

    It 'says what is wrong with a folder' {
        { Get-DiskImageInfo "fat:$TestDrive/missing" -ErrorAction Stop } | Should -Throw '*no such folder*'
        { Get-DiskImageInfo "fat:$TestDrive/seed/user-data" -ErrorAction Stop } | Should -Throw '*is no folder*'
        { Get-DiskImageInfo 'fat:rw:' -ErrorAction Stop } | Should -Throw '*needs the folder*'
        { Write-DiskImage "fat:$TestDrive/seed" -Offset 2MB -Bytes ([byte[]](1, 2)) -Confirm:$false -ErrorAction Stop } | Should -Throw '*fat:rw:*'
    }

    It 'brings what is written into the folder' {
        $null = New-Item -ItemType Directory "$TestDrive/share"
        Set-Content "$TestDrive/share/FILE" ('old ' * 300) -NoNewline
        $last = Get-DiskImageMap "fat:rw:$TestDrive/share" | Where-Object Data | Select-Object -Last 1
        $at = $last.Start + $last.Length - 1200 # the one file's contents are what comes last
        Write-DiskImage "fat:rw:$TestDrive/share" -Offset $at -Bytes ([Text.Encoding]::ASCII.GetBytes('NEW ')) -Confirm:$false
        Get-Content "$TestDrive/share/FILE" -Raw | Should -Be ('NEW ' + 'old ' * 299)
        @(Get-ChildItem "$TestDrive/share" -Force).Name | Should -Be 'FILE'
    }
}
