BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'show'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-DiskImage base.qcow2 64MB
    [byte[]] $data = @(7) * 1MB
    0, 1MB, 2MB, 40MB | ForEach-Object { Write-DiskImage base.qcow2 $_ $data }
    $null = New-DiskImage top.qcow2 -BackingPath base.qcow2
    Write-DiskImage top.qcow2 20MB $data
    $style = $PSStyle.OutputRendering
    $PSStyle.OutputRendering = 'PlainText'
}

AfterAll {
    $PSStyle.OutputRendering = $style
    Pop-Location
}

Describe 'Show-DiskImageMap' {
    It 'draws each part as it is stored' {
        Show-DiskImageMap top.qcow2 -Width 80 -Rows 4 | Should -Be @(
            'top.qcow2: 64 MiB, 256 KiB a cell'
            '       0 B ' + '▒' * 12 + '·' * 52
            '    16 MiB ' + '·' * 16 + '█' * 4 + '·' * 44
            '    32 MiB ' + '·' * 32 + '▒' * 4 + '·' * 28
            '    48 MiB ' + '·' * 64
            '█ data 1 MiB  ▒ depth 1 4 MiB  · absent 59 MiB'
        )
    }

    It 'fits the width of <_> columns' -ForEach 20, 40, 80, 160 {
        $lines = Show-DiskImageMap top.qcow2 -Width $_ -Rows 8
        ($lines | Measure-Object Length -Maximum).Maximum | Should -BeLessOrEqual ([Math]::Max($_, 34)) # the heading is never cut
        ($lines | Where-Object { $_ -match '^ *\d' }).Count | Should -BeLessOrEqual 8
    }

    It 'shows a range' {
        $lines = Show-DiskImageMap top.qcow2 -Offset 20MB -Length 2MB -Width 80 -Rows 1
        $lines[0] | Should -Be 'top.qcow2: 2 MiB, 32 KiB a cell'
        $lines[1] | Should -Be ('    20 MiB ' + '█' * 32 + '·' * 32)
    }

    It 'marks what compare finds, and what anybody names' {
        Copy-Item top.qcow2 other.qcow2
        Write-DiskImage other.qcow2 50MB ([byte[]](1, 2, 3))
        $differences = Compare-DiskImage top.qcow2 other.qcow2 -All
        $lines = Show-DiskImageMap top.qcow2 -Width 80 -Rows 4 -Mark $differences
        $lines[4] | Should -Be ('    48 MiB ' + '·' * 8 + 'X' + '·' * 55)
        $lines[-1] | Should -BeLike 'X marked 3 B*'
        (Show-DiskImageMap top.qcow2 -Width 80 -Rows 4 -Mark @{ Offset = 0; Length = 512KB })[1] | Should -BeLike '*0 B XX▒*'
    }

    It 'marks what a check finds' {
        Copy-Item top.qcow2 torn.qcow2
        $map = Get-DiskImageMap torn.qcow2 | Where-Object { $_.Data -and $_.Depth -eq 0 }
        $file = [IO.File]::Open("$folder/torn.qcow2", 'Open')
        $file.SetLength($map[0].Offset) # the data are gone
        $file.Dispose()
        $check = Test-DiskImage torn.qcow2
        $check.Findings.GuestOffset | Should -Contain 20MB
        $expected = '    16 MiB ' + '·' * 16 + 'X' * 4 + '·' * 44
        (Show-DiskImageMap torn.qcow2 -Width 80 -Rows 4 -Mark $check)[2] | Should -Be $expected
        (Show-DiskImageMap torn.qcow2 -Width 80 -Rows 4)[2] | Should -Be $expected # as far as the map itself comes upon it
    }

    It 'is in colour where the session is' {
        $PSStyle.OutputRendering = 'Ansi'
        try {
            $line = (Show-DiskImageMap top.qcow2 -Width 80 -Rows 4)[2]
            $line.Contains("$($PSStyle.Foreground.Green)████") -and $line.EndsWith($PSStyle.Reset) | Should -BeTrue
        }
        finally {
            $PSStyle.OutputRendering = 'PlainText'
        }
    }

    It 'writes a picture that is well-formed and says what its parts are' {
        $file = Show-DiskImageMap top.qcow2 -Svg top.svg
        $file | Should -BeOfType System.IO.FileInfo
        $svg = [xml](Get-Content $file -Raw)
        $titles = $svg.svg.rect.title
        ($titles -match ': data$').Count | Should -BeGreaterThan 0
        ($titles -match ': depth 1$').Count | Should -BeGreaterThan 0
    }

    It 'writes a picture that a browser draws, each part in its colour' {
        $browser = Get-Command chromium, chromium-browser -CommandType Application -ErrorAction Ignore | Select-Object -First 1
        if (-not $browser) {
            Set-ItResult -Skipped -Because 'chromium is not on PATH'
        }

        $text = Get-Content (Show-DiskImageMap top.qcow2 -Svg seen.svg) -Raw
        $parts = ([xml]$text).svg.rect | Where-Object width -NE '100%'
        $points = @($parts | ForEach-Object { , @(([int]$_.x + [int]$_.width / 2), ([int]$_.y + [int]$_.height / 2)) })
        # The page says the colour of each point, and how large the picture is.
        Set-Content seen.html @"
<body><script>
const picture = new Image();
picture.onload = () => {
  const canvas = document.createElement('canvas'); canvas.width = picture.width; canvas.height = picture.height;
  const context = canvas.getContext('2d'); context.drawImage(picture, 0, 0);
  const hex = v => v.toString(16).padStart(2, '0');
  const colours = $(ConvertTo-Json $points -Compress).map(([x, y]) => '#' + [...context.getImageData(x, y, 1, 1).data].slice(0, 3).map(hex).join(''));
  document.body.textContent = 'seen:' + picture.width + 'x' + picture.height + ':' + colours.join(',') + ':';
};
picture.onerror = () => document.body.textContent = 'seen:broken:';
picture.src = 'data:image/svg+xml;base64,$([Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($text)))';
</script></body>
"@
        $dom = & $browser --headless --no-sandbox --disable-gpu --disable-dev-shm-usage "--user-data-dir=$folder/browser" --virtual-time-budget=10000 --dump-dom "file://$folder/seen.html" 2>$null
        $dom | Out-String | Should -Match 'seen:\d+x\d+:'
        $null, $size, $colours = [regex]::Match("$dom", '(seen):(\d+x\d+):([^:]*):').Groups[1, 2, 3].Value
        $size | Should -Be "$(([xml]$text).svg.width)x$(([xml]$text).svg.height)"
        $colours -split ',' | Should -Be $parts.fill
        $parts.fill | Sort-Object -Unique | Should -Contain '#2da44e'
    }

    It 'replaces a picture only if told to, and none with -WhatIf' {
        Set-Content kept.svg 'mine'
        { Show-DiskImageMap top.qcow2 -Svg kept.svg -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*'
        Get-Content kept.svg | Should -Be 'mine'
        $null = Show-DiskImageMap top.qcow2 -Svg kept.svg -Force
        Get-Content kept.svg -First 1 | Should -BeLike '<svg*'
        Show-DiskImageMap top.qcow2 -Svg none.svg -WhatIf
        Test-Path none.svg | Should -BeFalse
    }

    It 'shows an empty disk' {
        $null = New-DiskImage empty.raw 0
        Show-DiskImageMap empty.raw | Should -HaveCount 1
    }
}
