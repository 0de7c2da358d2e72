BeforeAll { . "$PSScriptRoot/Common.ps1" }

Describe 'ReadableSize' {
    It 'shows <Bytes> as <Text>' -ForEach @(
        @{ Bytes = 0; Text = '0 B' }
        @{ Bytes = 512; Text = '512 B' }
        @{ Bytes = 1024; Text = '1 KiB' }
        @{ Bytes = 65536; Text = '64 KiB' }
        @{ Bytes = 1567656960; Text = '1.46 GiB' }
        @{ Bytes = 15GB + 307MB; Text = '15.3 GiB' }
        @{ Bytes = [long]::MaxValue; Text = '8 EiB' }
        @{ Bytes = -2048; Text = '-2 KiB' }
        @{ Bytes = $null; Text = '' }
    ) {
        [DiskImage.PowerShell.ReadableSize]::Of($Bytes) | Should -Be $Text
    }

    It 'adds the exact number where there is room' {
        [DiskImage.PowerShell.ReadableSize]::WithBytes(65536) | Should -Be '64 KiB (65,536 bytes)'
        [DiskImage.PowerShell.ReadableSize]::WithBytes(512) | Should -Be '512 bytes'
    }
}

Describe 'ReadableText' {
    It 'breaks lines between words' {
        [DiskImage.PowerShell.ReadableText]::Wrap('one two three four', 9) | Should -Be "one two`nthree`nfour"
        [DiskImage.PowerShell.ReadableText]::Wrap('immeasurable is it', 5) | Should -Be "immeasurable`nis it"
        [DiskImage.PowerShell.ReadableText]::Wrap($null, 5) | Should -Be ''
    }
}
