BeforeDiscovery {
    $cases = @(
        @{ Type = 'DiskImageInfo'; Nested = 'Snapshots.Name=first', 'Bitmaps.Name=day', 'Bitmaps.Flags=auto', 'Children.Role=file', 'FormatSpecific.CompressionType=Zlib' }
        @{ Type = 'DiskImageInfo'; Of = 'vhd'; Nested = 'FormatSpecific.DiskType=Differencing', 'FormatSpecific.ParentLocators.PlatformCode=W2ru' }
        @{ Type = 'DiskImageInfo'; Of = 'vhdx'; Nested = 'FormatSpecific.Subformat=Dynamic' }
        @{ Type = 'DiskImageInfo'; Of = 'converted'; Nested = , 'Statistics.BytesCopied=1' }
        @{ Type = 'DiskImageCheckResult'; Nested = 'Findings.Severity=Leak', 'Findings.Kind=Leak', 'ProfileRefusals=Azure would refuse it' }
        @{ Type = 'DiskImageFinding'; Nested = , 'Severity=Leak' }
        @{ Type = 'DiskImageSnapshot'; Nested = , 'Name=first' }
        @{ Type = 'DiskImageBitmap'; Nested = , 'Flags=auto' }
        @{ Type = 'DiskImageDirtyRange'; Nested = , 'Name=day' }
        @{ Type = 'DiskImageExport'; Nested = 'Name=disk.qcow2', 'Contexts=base:allocation' }
        @{ Type = 'DiskImageExtent'; Nested = , 'File=disk.qcow2' }
        @{ Type = 'DiskImageComparison'; Nested = , 'Difference=Content' }
        @{ Type = 'DiskImageDifference'; Nested = , 'Path=disk.raw' }
        @{ Type = 'DiskImageMeasurement'; Nested = , 'Format=qcow2' }
        @{ Type = 'DiskImagePerformance'; Nested = , 'Operation=Read' }
        @{ Type = 'DiskImageInfo'; Of = 'salvaged'; Nested = , 'Statistics.BadRanges.Length=1' }
        @{ Type = 'DiskImageBadRange'; Nested = , 'Reason=disk.raw' }
        @{ Type = 'DiskImageHash'; Nested = , 'Algorithm=SHA256' }
        @{ Type = 'DiskImageDevice'; Nested = , 'Partitions=/dev/sdx1' }
        @{ Type = 'DiskImageIscsiTarget'; Nested = , 'Portals=127.0.0.1' }
        @{ Type = 'DiskImageLock'; Nested = , 'Uses=ConsistentRead' }
        @{ Type = 'DiskImageFormat'; Nested = 'CreateOptions.Name=block_size', 'Aliases=vhd', 'Abilities=Create' }
        @{ Type = 'DiskImageFormatOption'; Nested = , 'Name=cluster_size' }
        @{ Type = 'DiskImageChild'; Nested = , 'Role=file' }
        @{ Type = 'DiskImageCopyStatistics'; Nested = , 'BytesCopied=1' }
    )
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'objects'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    New-TestBitmapDisk $folder
    $converted = Convert-DiskImage disk.raw converted.qcow2
    $salvaged = Convert-DiskImage disk.raw salvaged.raw -Salvage -ImageOption 'driver=blkdebug,inject-error.0.iotype=read,inject-error.0.sector=-1' -WarningAction Ignore
    $null = New-DiskImageSnapshot disk.qcow2 first
    $null = New-DiskImage parent.vhd 1MB
    $null = New-DiskImage child.vhd -BackingPath parent.vhd
    $null = New-DiskImage disk.vhdx 1MB

    # A cluster that nothing uses: the file's last one has a refcount, and its only reference is gone.
    $null = New-DiskImage leaky.qcow2 1MB
    Write-DiskImage leaky.qcow2 0 (, 1 * 65536)
    $l2 = (Get-Item leaky.qcow2).Length
    $map = Get-DiskImageMap leaky.qcow2 | Where-Object Data
    $bytes = [IO.File]::ReadAllBytes("$folder/leaky.qcow2")
    $entry = [BitConverter]::GetBytes([long]$map.Offset)
    [Array]::Reverse($entry)
    $entry[0] = 0x80
    for ($at = 0; $at -lt $l2; $at += 65536) {
        if ([Convert]::ToHexString($bytes, $at, 8) -eq [Convert]::ToHexString($entry)) {
            [Array]::Clear($bytes, $at, 8)
        }
    }

    [IO.File]::WriteAllBytes("$folder/leaky.qcow2", $bytes)
    $check = Test-DiskImage leaky.qcow2 -Profile Azure
    $info = Get-DiskImageInfo disk.qcow2
    $objects = @{
        DiskImageInfo           = $info
        vhd                     = Get-DiskImageInfo child.vhd
        vhdx                    = Get-DiskImageInfo disk.vhdx
        converted               = $converted
        salvaged                = $salvaged
        DiskImageBadRange       = $salvaged.Statistics.BadRanges[0]
        DiskImagePerformance    = Measure-DiskImagePerformance disk.qcow2 -Count 10
        DiskImageCheckResult    = $check
        DiskImageFinding        = $check.Findings[0]
        DiskImageSnapshot       = Get-DiskImageSnapshot disk.qcow2
        DiskImageBitmap         = Get-DiskImageBitmap disk.qcow2 day
        DiskImageDirtyRange     = Get-DiskImageBitmap disk.qcow2 day -Extents | Select-Object -First 1
        DiskImageExport         = Start-DiskImageExport disk.qcow2 -ReadOnly -Port 0
        DiskImageExtent         = Get-DiskImageMap disk.qcow2 | Where-Object Data | Select-Object -First 1
        DiskImageComparison     = Compare-DiskImage disk.raw disk.qcow2
        DiskImageDifference     = Compare-DiskImage disk.raw disk.qcow2 -All | Select-Object -First 1
        DiskImageMeasurement    = Measure-DiskImage disk.qcow2
        DiskImageHash           = Get-DiskImageHash disk.raw
        DiskImageDevice         = [DiskImage.PowerShell.DiskImageDevice]@{ Path = '/dev/sdx'; Size = 1MB; Partitions = [DiskImage.PowerShell.ReadableList[string]]::new([string[]]'/dev/sdx1') }
        DiskImageIscsiTarget    = [DiskImage.PowerShell.DiskImageIscsiTarget]@{ Target = 'iqn.2026-11.org.example:disks'; Portals = [DiskImage.PowerShell.ReadableList[string]]::new([string[]]'127.0.0.1'); Lun = 1; Kind = 'disk'; VirtualSize = 1MB; Uri = 'iscsi://127.0.0.1/iqn.2026-11.org.example:disks/1' }
        DiskImageLock           = [DiskImage.PowerShell.DiskImageLock]@{ Path = "$folder/disk.raw"; ProcessId = 1; ProcessName = 'init'; Uses = [DiskImage.PowerShell.ReadableList[string]]::new([string[]]'ConsistentRead') }
        DiskImageFormat         = Get-DiskImageFormat vpc
        DiskImageFormatOption   = (Get-DiskImageFormat qcow2).CreateOptions | Where-Object Name -EQ cluster_size
        DiskImageChild          = $info.Children[0]
        DiskImageCopyStatistics = $converted.Statistics
    }

    Get-DiskImageExport | Stop-DiskImageExport

    # What a path of property names leads to, in an object or what became of it.
    function Get-Nested($Object, [string] $Names) {
        foreach ($name in $Names -split '\.') {
            $Object = $Object | ForEach-Object { $_.$name }
        }

        $Object
    }
}

AfterAll { Pop-Location }

Describe '<Type> <Of>' -ForEach $cases {
    BeforeAll { $object = $objects[$Of ? $Of : $Type] }

    It 'is one, and short as text' {
        $object | Should -BeOfType "DiskImage.PowerShell.$Type"
        "$object" | Should -Not -BeNullOrEmpty
        "$object" | Should -Not -Match 'DiskImage\.|\{ '
        "$object".Length | Should -BeLessOrEqual 300
        ($object | Get-Member -Force).Name | Should -Not -Contain '<Clone>$'
    }

    It 'comes whole from a job, as text from JSON and as a line from CSV' {
        $xml = [System.Management.Automation.PSSerializer]::Serialize($object, 1) # as a job's output is
        $copies = @{
            job  = [System.Management.Automation.PSSerializer]::Deserialize($xml)
            json = $object | ConvertTo-Json -Depth 4 | ConvertFrom-Json
        }
        foreach ($expected in $Nested) {
            $names, $value = $expected -split '='
            foreach ($copy in $copies.GetEnumerator()) {
                $found = @(Get-Nested $copy.Value $names)
                $found.Count | Should -Be @(Get-Nested $object $names).Count -Because "$($copy.Key): $names"
                $found | ForEach-Object { $_ | Should -BeIn (Get-Nested $object $names) -Because "$($copy.Key): $names" }
                "$found" | Should -BeLike ($value -eq '1' ? '[1-9]*' : "*$value*") -Because "$($copy.Key): $names"
            }
        }

        $line = $object | ConvertTo-Csv | ConvertFrom-Csv
        foreach ($property in $object.PSObject.Properties) {
            $line.($property.Name) | Should -Not -Match '\[\]$|ReadOnly|DiskImage\.(PowerShell|Formats)|\{ ' -Because $property.Name
        }
    }
}

Describe 'Objects of the module' {
    It 'have enumerations nowhere' {
        $types = $objects.Values | ForEach-Object { $_; $_.FormatSpecific } | Where-Object { $_ } | ForEach-Object { $_.GetType() } | Sort-Object -Unique FullName
        $types.Count | Should -BeGreaterThan 17
        foreach ($type in $types) {
            $type.GetProperties() | Where-Object { $_.PropertyType.IsEnum } | Should -BeNullOrEmpty -Because $type.FullName
        }
    }

    It 'come from a job as they were, dates too, and are shown as the module shows them' {
        $job = Start-Job { param($module, $path) Import-Module $module; Get-DiskImageInfo $path } -ArgumentList $ModuleManifest, "$folder/disk.qcow2"
        $copy = $job | Receive-Job -Wait -AutoRemoveJob
        $copy.Snapshots.Date | Should -Be $info.Snapshots.Date
        $copy.Snapshots.Date | Should -BeOfType datetime
        $copy.VirtualSize | Should -Be 1MB
        $copy.FormatSpecific.Compat | Should -Be '1.1'
        ($copy | Out-String).Trim() | Should -Be ($info | Out-String).Trim()
    }

    It 'are lines of text in CSV' {
        $line = $info | ConvertTo-Csv | ConvertFrom-Csv
        $line.Snapshots | Should -Be '1: first'
        $line.Bitmaps | Should -Be 'day, week'
        $line.FormatSpecific | Should -Be 'compat 1.1'
    }

    It 'show dates by the culture' {
        $before = [cultureinfo]::CurrentCulture
        try {
            [cultureinfo]::CurrentCulture = 'de-DE'
            Get-DiskImageSnapshot disk.qcow2 | Out-String | Should -Match $info.Snapshots[0].Date.ToString('dd\\.MM\\.yyyy')
        } finally {
            [cultureinfo]::CurrentCulture = $before
        }
    }
}
