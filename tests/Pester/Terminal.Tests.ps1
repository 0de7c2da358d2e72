# What images and files are called reaches the terminal only as text, and nothing in a name ends a pipeline.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'terminal'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $evil = "`e]0;owned`a`e[31m$([char]0x9b)2J$([char]0x202e)gpj`nINJECTED"
    $null = New-DiskImage evil.qcow2 1MB
    $null = New-DiskImageSnapshot evil.qcow2 "snap$evil"
    $null = New-DiskImageBitmap evil.qcow2 "bits$evil"
    Set-DiskImageBacking evil.qcow2 "base$evil" -BackingFormat raw -Unsafe -WarningAction Ignore
    $null = New-DiskImage plain.qcow2 1MB

    # Lines of text without anything that a terminal would obey.
    function Test-Printable([string] $Text) { $Text -notmatch '[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]' -and $Text -notmatch '(?m)^\s*INJECTED' }
    function Out-View { $PSStyle.OutputRendering = 'PlainText'; ($input | Out-String -Width 400) }
}

AfterAll { Pop-Location }

Describe 'Names from images' {
    It 'are raw in properties' {
        (Get-DiskImageInfo evil.qcow2).BackingFile | Should -Be "base$evil"
        (Get-DiskImageSnapshot evil.qcow2).Name | Should -Be "snap$evil"
        (Get-DiskImageBitmap evil.qcow2).Name | Should -Be "bits$evil"
    }

    It 'are escaped in the views of <_>' -ForEach @(
        'Get-DiskImageInfo evil.qcow2', 'Get-DiskImageInfo evil.qcow2 | Format-Table', '(Get-DiskImageInfo evil.qcow2).Children'
        'Get-DiskImageSnapshot evil.qcow2', 'Get-DiskImageBitmap evil.qcow2', 'Test-DiskImage evil.qcow2', '(Test-DiskImage evil.qcow2).Findings'
    ) {
        $text = Invoke-Expression $_ | Out-View
        Test-Printable $text | Should -BeTrue -Because $text.Replace("`e", '<ESC>')
        $text | Should -Match '\S'
    }

    It 'are escaped where an object stands in a text' {
        foreach ($item in (Get-DiskImageInfo evil.qcow2), (Get-DiskImageSnapshot evil.qcow2), (Get-DiskImageBitmap evil.qcow2), (Test-DiskImage evil.qcow2).Findings[0]) {
            Test-Printable "$item" | Should -BeTrue
        }
    }

    It 'are escaped in errors, warnings, -Verbose and -WhatIf' {
        $null = Get-DiskImageHash evil.qcow2 -ErrorAction SilentlyContinue -ErrorVariable problem
        Test-Printable $problem[0].Exception.Message | Should -BeTrue
        $problem[0].Exception.Message | Should -BeLike '*base\u001b]0;owned\u0007*'
        $null = Restore-DiskImageSnapshot evil.qcow2 nowhere -Confirm:$false -ErrorAction SilentlyContinue -ErrorVariable problem
        Test-Printable $problem[0].Exception.Message | Should -BeTrue
        $said = (Invoke-FreshPwsh @"
            Import-Module '$ModuleManifest'
            Set-Location '$folder'
            Remove-DiskImageSnapshot evil.qcow2 * -WhatIf
            Clear-DiskImageBitmap evil.qcow2 * -WhatIf -Verbose
            Set-DiskImageBacking evil.qcow2 '' -Unsafe -WhatIf
"@).Output
        $said | Should -BeLike '*snap\u001b*bits\u001b*base\u001b*'
        Test-Printable $said | Should -BeTrue
    }

    It 'are escaped in a file''s own name' {
        Skip-OnWindows 'file names with control characters'
        $name = "f$evil"
        [IO.File]::Copy("$folder/plain.qcow2", "$folder/$name")
        try {
            $info = Get-DiskImageInfo -LiteralPath $name
            $info.Path | Should -Be "$folder/$name"
            Test-Printable ($info | Out-View) | Should -BeTrue
            Test-Printable ($info | Format-Table | Out-View) | Should -BeTrue
        } finally {
            [IO.File]::Delete("$folder/$name") # Pester cannot remove it
        }
    }

    It 'are all shown by the views of format-specific facts: <_>' -ForEach 'qcow2', 'vhd', 'vhdx' {
        $facts = (New-DiskImage "facts.$_" 4MB).FormatSpecific
        $text = $facts | Out-View
        foreach ($name in $facts.psobject.Properties.Name) { $text | Should -Match "(?m)^\s*$name\s*:" }
    }
}

Describe 'A bad item' {
    It 'does not end a pipeline: <Case>' -ForEach @(
        @{ Case = 'a URI'; Name = 'file://[' }, @{ Case = 'a query'; Name = 'file:///a?b' }, @{ Case = 'half a pair in json'; Name = 'json:{"file":{"filename":"\ud800"}}' }
        @{ Case = 'NUL'; Name = "nul`0byte" }, @{ Case = 'no json'; Name = 'json:' }, @{ Case = 'blank'; Name = ' ' }, @{ Case = 'a protocol'; Name = 'x://y' }
        @{ Case = 'half a pair'; Name = "a$([char]0xd800)" }, @{ Case = 'length'; Name = 'x' * 5000 }
    ) {
        $good = $Name, 'plain.qcow2' | Get-DiskImageInfo -ErrorAction SilentlyContinue -ErrorVariable problems
        $good.Format | Should -Be 'qcow2'
        @($problems).Count | Should -Be 1
        $problems[0].FullyQualifiedErrorId | Should -Match '^DiskImage(InvalidOption|NotFound|Unsupported),'
    }

    It 'with an odd backing name does not either: <Case>' -ForEach @(
        @{ Case = 'a URI'; Name = 'file://[' }, @{ Case = 'half a pair in json'; Name = 'json:{"filename":"\ud800"}' }, @{ Case = 'an encoded NUL'; Name = 'file:///a%00b' }
    ) {
        # Another program wrote it: ours would not.
        $null = New-DiskImage odd.qcow2 1MB -Force
        Set-DiskImageBacking odd.qcow2 ('y' * $Name.Length) -BackingFormat raw -Unsafe
        $bytes = [IO.File]::ReadAllBytes("$folder/odd.qcow2")
        $at = [Text.Encoding]::Latin1.GetString($bytes).IndexOf('y' * $Name.Length, [StringComparison]::Ordinal)
        [Text.Encoding]::UTF8.GetBytes($Name).CopyTo($bytes, $at)
        [IO.File]::WriteAllBytes("$folder/odd.qcow2", $bytes)
        foreach ($scope in 'None', 'SameFolder', 'LocalFiles', 'Anywhere') {
            $read = 'odd.qcow2', 'plain.qcow2' | Get-DiskImageHash -References $scope -ErrorAction SilentlyContinue -ErrorVariable problems
            @($read).Count | Should -Be 1
            @($problems).Count | Should -Be 1
            $problems[0].FullyQualifiedErrorId | Should -Match '^DiskImage(InvalidOption|Refused),'
        }
        (Get-DiskImageInfo odd.qcow2).BackingFile | Should -Be $Name
    }
}
