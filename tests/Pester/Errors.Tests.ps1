# The ids of errors: as the code has them, as about_DiskImage lists them, and each of them seen by some test.
BeforeDiscovery {
    . "$PSScriptRoot/Common.ps1"
    $kinds = [Enum]::GetValues([DiskImage.Block.DiskImageErrorKind])
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $page = Get-Content "$RepositoryRoot/docs/en-US/about_DiskImage.help.txt" -Raw
    $listed = [regex]::Matches($page, '(?m)^        (DiskImage[A-Z]\w+)\s+([A-Z]\w+)\s+\S')
    $tests = Get-ChildItem "$RepositoryRoot/tests/Pester" -Filter *.Tests.ps1 | Where-Object Name -NE 'Errors.Tests.ps1' | ForEach-Object { Get-Content $_ -Raw }
    $record = [DiskImage.PowerShell.DiskImageInfo].Assembly.GetType('DiskImage.PowerShell.DiskImageError').GetMethod('Record')
}

Describe 'The id of <_>' -ForEach $kinds {
    It 'stands in about_DiskImage with its category' {
        $made = $record.Invoke($null, @([DiskImage.Block.DiskImageException]::new($_, 'what happened', 'disk.raw', $null, $null), $null))
        $made.FullyQualifiedErrorId | Should -Be "DiskImage$_"
        $made.TargetObject | Should -Be 'disk.raw'
        $row = $listed | Where-Object { $_.Groups[1].Value -eq $made.FullyQualifiedErrorId }
        @($row).Count | Should -Be 1
        $row.Groups[2].Value | Should -Be $made.CategoryInfo.Category
    }

    It 'is asserted by a test' {
        $tests -match "DiskImage$_\b" | Should -Not -BeNullOrEmpty
    }
}

Describe 'about_DiskImage' {
    It 'lists no id that there is not, and the one of faults' {
        $made = $record.Invoke($null, @([InvalidOperationException]::new('oh'), 'disk.raw'))
        $made.CategoryInfo.Category | Should -Be 'NotSpecified'
        $ids = @([Enum]::GetNames([DiskImage.Block.DiskImageErrorKind]) | ForEach-Object { "DiskImage$_" }) + $made.FullyQualifiedErrorId
        $listed.ForEach{ $_.Groups[1].Value } | Sort-Object | Should -Be ($ids | Sort-Object)
    }
}
