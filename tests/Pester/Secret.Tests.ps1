BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $plain = 'Xyzzy-Plugh-4711'
    $secret = ConvertTo-SecureString $plain -AsPlainText -Force
    $other = ConvertTo-SecureString 'another one' -AsPlainText -Force
    $quick = @{ 'iter-time' = 1 }
    $quickQcow2 = @{ 'encrypt.format' = 'luks'; 'encrypt.iter-time' = 1 }
}

Describe 'Secrets' {
    BeforeAll {
        $raw = New-TestDisk "$TestDrive/disk.raw" -Size 2MB
        $luks = "$TestDrive/disk.luks"
        $qcow2 = "$TestDrive/disk.qcow2"
        $null = Convert-DiskImage $raw $luks -Option $quick -NewSecret $secret
        $null = Convert-DiskImage $luks $qcow2 -Secret $secret -Option $quickQcow2 -NewSecret $other
    }

    It 'converts from and to encrypted images with both secrets' {
        (Compare-DiskImage $raw $qcow2 -Secret $other).Identical | Should -BeTrue
        (Get-DiskImageHash $luks -Secret $secret).Hash | Should -Be (Get-DiskImageHash $raw).Hash
        (Get-DiskImageInfo $qcow2).Encrypted | Should -BeTrue # needs none
    }

    It 'takes a SecureString, a PSCredential, and a dictionary by path, file name or key-secret' -ForEach @(
        @{ Given = { $secret } }
        @{ Given = { [pscredential]::new('anybody', $secret) } }
        @{ Given = { @{ $luks = $secret } } }
        @{ Given = { @{ 'disk.luks' = [pscredential]::new('anybody', $secret) } } }
    ) {
        (Read-DiskImage $luks 0 512 -Secret (& $Given)).Count | Should -Be 512
        $named = "driver=luks,key-secret=sec0,file.filename=$luks"
        (Read-DiskImage -ImageOption $named -Offset 0 -Length 512 -Secret @{ sec0 = $secret; x = $other }).Count | Should -Be 512
        Read-DiskImage -ImageOption $named -Offset 0 -Length 512 -Secret @{ x = $other } -ErrorVariable missing -ErrorAction SilentlyContinue
        $missing[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageSecretRequired,*'
    }

    It 'compares two encrypted images, each with its own secret' {
        (Compare-DiskImage $luks $qcow2 -Secret @{ $luks = $secret; $qcow2 = $other }).Identical | Should -BeTrue
    }

    It 'works with a Get-Secret of that name' {
        function Get-Secret([string] $Name) { @{ Server = $secret }[$Name] }
        Test-DiskImageSecret $luks -Secret (Get-Secret Server) | Should -BeTrue
        Test-DiskImageSecret $luks -Secret $other | Should -BeFalse
    }

    It 'reads a secret from a file, and warns if others may read it' {
        $file = "$TestDrive/secret.txt"
        Set-Content $file $plain
        if (-not $IsWindows) { chmod 644 $file }
        (Read-DiskImage $luks 0 512 -SecretFile $file -WarningVariable warning -WarningAction SilentlyContinue).Count | Should -Be 512
        if (-not $IsWindows) {
            $warning | Should -BeLike '*chmod 600*'
            chmod 600 $file
            $null = Read-DiskImage $luks 0 512 -SecretFile $file -WarningVariable warning
            $warning | Should -BeNullOrEmpty
        }
    }

    It 'says what is missing, and what is wrong, by one error id each' {
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Read-DiskImage '$luks' 0 512 -ErrorVariable e -ErrorAction SilentlyContinue; `$e[0].FullyQualifiedErrorId; `$e[0].Exception.Message"
        $fresh.Output | Should -BeLike 'DiskImageSecretRequired,*-Secret*'
        Read-DiskImage $luks 0 512 -Secret $other -ErrorVariable wrong -ErrorAction SilentlyContinue
        $wrong[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageWrongSecret,*'
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; New-DiskImage '$TestDrive/new.luks' 1MB -ErrorVariable e -ErrorAction SilentlyContinue; `$e[0].FullyQualifiedErrorId; `$e[0].Exception.Message"
        $fresh.Output | Should -BeLike 'DiskImageSecretRequired,*-NewSecret*'
        Test-Path "$TestDrive/new.luks" | Should -BeFalse
        { Read-DiskImage $luks 0 512 -Secret 'text' -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'keeps key slots' {
        $image = "$TestDrive/slots.luks"
        $null = New-DiskImage $image 1MB -Option $quick -NewSecret $secret
        (Get-DiskImageKeySlot $image).Slot | Should -Be 0
        (Get-DiskImageKeySlot $image -All).Count | Should -Be 8
        $added = Add-DiskImageKeySlot $image -Secret $secret -NewSecret $other -IterationTime 1
        $added | Should -BeOfType DiskImage.PowerShell.DiskImageKeySlot
        $added.Slot | Should -Be 1
        Remove-DiskImageKeySlot $image -Secret $secret -Confirm:$false
        Test-DiskImageSecret $image -Secret $secret | Should -BeFalse
        Test-DiskImageSecret $image -Secret $other | Should -BeTrue
        Remove-DiskImageKeySlot $image 1 -Confirm:$false -ErrorVariable last -ErrorAction SilentlyContinue
        $last[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageRefused,*'
        $last[0].Exception.Message | Should -BeLike '*-Force*'
        Remove-DiskImageKeySlot $image 1 -Force -WhatIf
        Get-DiskImageKeySlot $image | Remove-DiskImageKeySlot -Force -Confirm:$false
        Get-DiskImageKeySlot $image | Should -BeNullOrEmpty
        (Test-DiskImage $image).IsConsistent | Should -BeFalse
    }

    It 'has key slots changed by options, as amend of QEMU does: <Name>' -ForEach @(
        @{ Name = 'amended.luks'; Prefix = ''; Make = { $quick } }
        @{ Name = 'amended.qcow2'; Prefix = 'encrypt.'; Make = { $quickQcow2 } }
    ) {
        $image = "$TestDrive/$Name"
        $null = New-DiskImage $image 1MB -Option (& $Make) -NewSecret $secret
        $secrets = @{ $image = $secret; s1 = $other }
        Set-DiskImageOption $image "${Prefix}state=active,${Prefix}new-secret=s1,${Prefix}keyslot=4,${Prefix}iter-time=1" -Secret $secrets
        (Get-DiskImageKeySlot $image).Slot | Should -Be 0, 4
        Set-DiskImageOption $image @{ "${Prefix}state" = 'inactive'; "${Prefix}old-secret" = 's1' } -Secret $secrets
        (Get-DiskImageKeySlot $image).Slot | Should -Be 0
        Set-DiskImageOption $image "${Prefix}state=inactive,${Prefix}keyslot=0" -Secret $secrets -ErrorVariable last -ErrorAction SilentlyContinue
        $last[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageRefused,*'
        Test-DiskImageSecret $image -Secret $secret | Should -BeTrue
    }

    It 'makes a header alone, and opens the data with it' {
        $null = New-DiskImage "$TestDrive/header.luks" 1MB -Option @{ 'iter-time' = 1; 'detached-header' = $true } -NewSecret $secret
        $null = New-TestDisk "$TestDrive/data" -Size 1MB
        $both = @{ driver = 'luks'; file = @{ filename = "$TestDrive/data" }; header = @{ filename = "$TestDrive/header.luks" } }
        Write-DiskImage -ImageOption $both -Offset 0 -Bytes (, 5 * 512) -Secret $secret
        Read-DiskImage -ImageOption $both -Offset 511 -Length 1 -Secret $secret | Should -Be 5
        (Get-DiskImageKeySlot "$TestDrive/header.luks").Slot | Should -Be 0
        (Get-DiskImageInfo "$TestDrive/header.luks" -WarningAction Ignore).VirtualSize | Should -Be 0
    }

    It 'asks for a missing secret where somebody can answer, without showing it' -Skip:($IsWindows -or -not (Get-Command script -ErrorAction Ignore)) {
        $asking = "Import-Module '$ModuleManifest'; 'BYTES {0}' -f (Read-DiskImage '$luks' 0 512).Count"
        Set-Content "$TestDrive/asking.ps1" $asking
        $shown = bash -c "(sleep 1; for i in `$(seq 40); do grep -q 'Secret of' '$TestDrive/asked' && break; sleep 1; done; printf '$plain\n'; sleep 2) |
            script -qfec 'pwsh -NoProfile -File $TestDrive/asking.ps1' '$TestDrive/asked'" | Out-String
        $shown | Should -BeLike "*Secret of $luks*BYTES 512*"
        $shown | Should -Not -Match $plain
    }

    It 'shows a secret nowhere' {
        $image = "$TestDrive/silent.qcow2"
        $everything = & {
            $VerbosePreference = $DebugPreference = $ErrorActionPreference = 'Continue'
            New-DiskImage $image 1MB -Option $quickQcow2 -NewSecret $secret -Verbose | Format-List * -Force
            Get-DiskImageInfo $image -Secret $secret -Verbose | ConvertTo-Json -Depth 5
            Get-DiskImageInfo $image -Secret $other -Verbose
            Convert-DiskImage $image "$TestDrive/silent.raw" -Secret $secret -Verbose
            Add-DiskImageKeySlot $image -Secret $other -NewSecret $secret -Verbose
            Add-DiskImageKeySlot $image -Secret $secret -NewSecret $other -IterationTime 1 -Verbose | Out-String
            Get-DiskImageKeySlot $image -Verbose | ConvertTo-Csv
            Test-DiskImageSecret $image -Secret $secret -Verbose
            Set-DiskImageOption $image 'encrypt.state=active,encrypt.new-secret=s1' -Secret @{ $image = $secret; s1 = $other } -Verbose
            Set-DiskImageOption $image 'encrypt.state=active,encrypt.new-secret=none' -Secret @{ $image = $secret } -Verbose
            Get-DiskImageFormat qcow2 | ForEach-Object { $_ | ConvertTo-Json -Depth 6 -WarningAction Ignore }
            $job = Start-ThreadJob { param($m, $i, $s) Import-Module $m; Get-DiskImageInfo $i -Secret $s -Verbose; Read-DiskImage $i 0 1 -Secret $s } -ArgumentList $ModuleManifest, $image, $secret
            $null = $job | Wait-Job
            $job | Format-List * -Force
            $job | Receive-Job
            Remove-Job $job
            [psobject]::AsPSObject($secret) | ConvertTo-Json
            Read-DiskImage -ImageOption "driver=qcow2,encrypt.key-secret=nobody,file.filename=$image" -Offset 0 -Length 1 -Secret @{ x = $secret } -Verbose
            Set-Content "$TestDrive/s.txt" $plain
            Read-DiskImage $image 0 1 -SecretFile "$TestDrive/s.txt" -Verbose
            try { Read-DiskImage $image 0 1 -SecretFile "$TestDrive/none.txt" -Verbose } catch { $_ | Format-List * -Force }
            $Error | ForEach-Object { $_ | Format-List * -Force; $_.Exception.ToString() }
        } *>&1 | Out-String
        $everything.Length | Should -BeGreaterThan 2000
        $everything | Should -Not -Match 'Xyzzy|Plugh|4711|another one'
    }
}
