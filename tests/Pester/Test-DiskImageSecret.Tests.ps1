BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $right = ConvertTo-SecureString 'the right one' -AsPlainText -Force
    $wrong = ConvertTo-SecureString 'another one' -AsPlainText -Force
    $luks = "$TestDrive/disk.luks"
    $null = New-DiskImage $luks 1MB -Option @{ 'iter-time' = 1 } -NewSecret $right
}

Describe 'Test-DiskImageSecret' {
    It 'tells whether a secret opens the image, as a Boolean and without an error' {
        $answer = Test-DiskImageSecret $luks -Secret $right
        $answer | Should -BeOfType bool
        $answer | Should -BeTrue
        Test-DiskImageSecret $luks -Secret $wrong -ErrorVariable problems | Should -BeFalse
        $problems | Should -BeNullOrEmpty
    }

    It 'takes images from the pipeline, each with its own secret' {
        Copy-Item $luks "$TestDrive/copy.luks"
        Get-Item "$TestDrive/*.luks" | Test-DiskImageSecret -Secret @{ 'disk.luks' = $right; 'copy.luks' = $wrong } | Should -Be $false, $true
    }

    It 'takes the secret from a file, and changes nothing' {
        $before = (Get-FileHash $luks).Hash
        Set-Content "$TestDrive/secret" 'the right one'
        if (-not $IsWindows) { chmod 600 "$TestDrive/secret" }
        Test-DiskImageSecret $luks -SecretFile "$TestDrive/secret" | Should -BeTrue
        (Get-FileHash $luks).Hash | Should -Be $before
    }

    It 'needs a secret, and an image that has slots' {
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Test-DiskImageSecret '$luks' -ErrorVariable e -ErrorAction SilentlyContinue; `$e[0].FullyQualifiedErrorId"
        $fresh.Output | Should -BeLike 'DiskImageSecretRequired,*'
        $null = New-DiskImage "$TestDrive/plain.qcow2" 1MB
        Test-DiskImageSecret "$TestDrive/plain.qcow2" -Secret $right -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageUnsupported NotImplemented'
    }
}
