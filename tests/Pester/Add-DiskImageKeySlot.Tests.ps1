BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $first = ConvertTo-SecureString 'first of all' -AsPlainText -Force
    $second = ConvertTo-SecureString 'a second one' -AsPlainText -Force
    function New-Encrypted([string] $Name) {
        $null = New-DiskImage "$TestDrive/$Name" 1MB -Option @{ 'iter-time' = 1 } -NewSecret $first
        "$TestDrive/$Name"
    }
}

Describe 'Add-DiskImageKeySlot' {
    It 'has a further secret open the image, and says in which slot; the data stays as it is' {
        $image = New-Encrypted added.luks
        Write-DiskImage $image 0 (, 7 * 4096) -Secret $first
        $added = Add-DiskImageKeySlot $image -Secret $first -NewSecret $second -IterationTime 1
        $added | Should -BeOfType DiskImage.PowerShell.DiskImageKeySlot
        $added.Slot | Should -Be 1
        foreach ($secret in $first, $second) { Read-DiskImage $image 4095 1 -Secret $secret | Should -Be 7 }
    }

    It 'takes the slot that is named, if it is free' {
        $image = New-Encrypted named.luks
        (Get-Item $image | Add-DiskImageKeySlot -Secret $first -NewSecret $second -Slot 5 -IterationTime 1).Slot | Should -Be 5
        Add-DiskImageKeySlot $image -Secret $first -NewSecret $second -Slot 5 -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageInvalidOption InvalidArgument'
        (Get-DiskImageKeySlot $image).Slot | Should -Be 0, 5
    }

    It 'changes nothing with -WhatIf, nor with a wrong secret' {
        $image = New-Encrypted same.luks
        $before = (Get-FileHash $image).Hash
        Add-DiskImageKeySlot $image -Secret $first -NewSecret $second -WhatIf
        Add-DiskImageKeySlot $image -Secret $second -NewSecret $second -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -BeLike 'DiskImageWrongSecret *'
        (Get-FileHash $image).Hash | Should -Be $before
    }

    It 'is judged by cryptsetup' {
        Skip-Without cryptsetup
        $image = New-Encrypted judged.luks
        $null = Add-DiskImageKeySlot $image -Secret $first -NewSecret $second -IterationTime 1
        'a second one' | cryptsetup open --test-passphrase --key-slot 1 $image
        $LASTEXITCODE | Should -Be 0
    }
}
