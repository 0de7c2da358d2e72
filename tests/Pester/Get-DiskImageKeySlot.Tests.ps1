BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $secret = ConvertTo-SecureString 'first of all' -AsPlainText -Force
    $luks = "$TestDrive/disk.luks"
    $null = New-DiskImage $luks 1MB -Option @{ 'iter-time' = 1 } -NewSecret $secret
}

Describe 'Get-DiskImageKeySlot' {
    It 'gives the slots that hold the key as objects, without any secret' {
        $slot = Get-DiskImageKeySlot $luks
        $slot | Should -BeOfType DiskImage.PowerShell.DiskImageKeySlot
        $slot.Path | Should -Be $luks
        $slot.Slot | Should -Be 0
        $slot.IsActive | Should -BeTrue
        $slot.KeyDerivation | Should -Be 'pbkdf2'
        $slot.Hash | Should -Be 'sha256'
        $slot.Iterations | Should -BeGreaterThan 0
    }

    It 'gives all slots with -All, and takes files from the pipeline' {
        $slots = Get-Item $luks | Get-DiskImageKeySlot -All
        $slots.Slot | Should -Be (0..7)
        @($slots.Where{ $_.IsActive }).Slot | Should -Be 0
        for ($i = 1; $i -lt 8; $i++) { $slots[$i].Offset | Should -BeGreaterOrEqual ($slots[$i - 1].Offset + $slots[$i - 1].Length) }
    }

    It 'gives the slots of an encrypted qcow2 image' {
        $null = New-DiskImage "$TestDrive/a.qcow2" 1MB -Option @{ 'encrypt.format' = 'luks'; 'encrypt.iter-time' = 1 } -NewSecret $secret
        (Get-DiskImageKeySlot "$TestDrive/a.qcow2").Slot | Should -Be 0
    }

    It 'says what has none, and goes on' {
        $null = New-DiskImage "$TestDrive/plain.qcow2" 1MB
        $slots = "$TestDrive/plain.qcow2", "$TestDrive/none.luks", $luks | Get-DiskImageKeySlot -ErrorAction SilentlyContinue -ErrorVariable problems
        $slots.Path | Should -Be $luks
        Format-Error $problems | Should -Be 'DiskImageUnsupported NotImplemented', 'DiskImageNotFound ObjectNotFound'
    }
}
