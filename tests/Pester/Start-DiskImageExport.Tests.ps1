BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'exports'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 4MB -Seed 14
    $null = Convert-DiskImage disk.raw disk.qcow2
    $null = Convert-DiskImage disk.raw disk.vhdx
    $expected = (Get-FileHash disk.raw).Hash
}

AfterAll {
    Get-DiskImageExport | Stop-DiskImageExport
    Pop-Location
}

Describe 'Start-DiskImageExport' {
    AfterEach {
        Get-DiskImageExport | Stop-DiskImageExport
    }

    It 'serves several images from one server, which this module and qemu-img read' {
        $exports = Get-ChildItem disk.qcow2, disk.vhdx | Start-DiskImageExport -ReadOnly -Port 0
        $exports.Name | Should -Be 'disk.qcow2', 'disk.vhdx'
        $exports.Id | Select-Object -Unique | Should -HaveCount 1
        $exports[0].Uri | Should -Match '^nbd://127\.0\.0\.1:\d+/disk\.qcow2$'
        foreach ($export in $exports) {
            (Get-DiskImageHash $export.Uri -Format raw).Hash | Should -Be $expected
        }

        $listed = Get-DiskImageExport ($exports[0].Uri -replace '/[^/]*$')
        $listed.Name | Should -Be $exports.Name
        $listed.VirtualSize | Should -Be 4MB, 4MB
        $listed[0].Contexts | Should -Be 'base:allocation', 'qemu:allocation-depth'
        $listed.ForEach{ $_.IsReadOnly } | Should -Be $true, $true
        (Get-DiskImageExport disk.vhdx -ErrorAction Ignore) | Should -BeNullOrEmpty
        (Get-DiskImageExport -Name *.vhdx).BytesRead | Should -BeGreaterThan 0
        $null = Invoke-Qemu qemu-img compare -f raw -F raw disk.raw $exports[0].Uri
    }

    It 'takes what is converted into an export, and closes the image when it ends' {
        $null = New-DiskImage target.qcow2 4MB
        $export = Start-DiskImageExport target.qcow2 -Name t -Port 0
        { Convert-DiskImage disk.vhdx $export.Uri -DestinationFormat raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists*'
        $null = Convert-DiskImage disk.vhdx $export.Uri -DestinationFormat raw -Force -InPlace
        Stop-DiskImageExport t
        (Compare-DiskImage disk.raw target.qcow2).Identical | Should -BeTrue
        (Test-DiskImage target.qcow2).IsConsistent | Should -BeTrue
        Get-DiskImageExport | Should -BeNullOrEmpty
    }

    It 'keeps the image as it is with -TemporaryOverlay' {
        $before = (Get-FileHash disk.qcow2).Hash
        $export = Start-DiskImageExport disk.qcow2 -TemporaryOverlay -Port 0
        Write-DiskImage $export.Uri -Offset 4096 -Bytes (1, 2, 3) -Format raw
        (Read-DiskImage $export.Uri -Offset 4096 -Length 3 -Format raw) | Should -Be 1, 2, 3
        $export | Stop-DiskImageExport
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'serves a snapshot, and a part of the disk' {
        Copy-Item disk.qcow2 old.qcow2
        $null = New-DiskImageSnapshot old.qcow2 first
        Write-DiskImage old.qcow2 0 (, 7 * 512)
        $export = Start-DiskImageExport old.qcow2 -Snapshot first -Port 0
        (Get-DiskImageHash $export.Uri -Format raw).Hash | Should -Be $expected
        Get-DiskImageExport | Stop-DiskImageExport
        $export = Start-DiskImageExport old.qcow2 -ReadOnly -Offset 512 -Length 1k -Port 0
        $export.VirtualSize | Should -Be 1024
    }

    It 'ends at Ctrl+C with -Wait, and lets go of the image' {
        Copy-Item disk.qcow2 waited.qcow2
        $run = Invoke-Interrupted Start-DiskImageExport @{ Path = "$folder/waited.qcow2"; Port = 0; Wait = $true } -When { Get-DiskImageExport -Name waited* }
        $run.State | Should -Be 'Stopped'
        $run.Errors | Should -BeNullOrEmpty
        Get-DiskImageExport | Should -BeNullOrEmpty
        Test-Released "$folder/waited.qcow2" | Should -BeTrue
    }

    It 'ends with the session' {
        $fresh = Invoke-FreshPwsh @"
            Import-Module '$ModuleManifest'
            `$export = Start-DiskImageExport '$folder/disk.qcow2' -Port 0
            Write-DiskImage `$export.Uri -Offset 0 -Bytes (, 5 * 512) -Format raw
            Remove-Module DiskImage
            [IO.File]::Open('$folder/disk.qcow2', 'Open', 'ReadWrite', 'None').Dispose()
            'closed'
"@
        $fresh.Error | Should -BeNullOrEmpty
        $fresh.Output | Should -Be 'closed'
        (Read-DiskImage disk.qcow2 -Offset 0 -Length 1) | Should -Be 5
    }

    It 'refuses what does not fit' {
        { Start-DiskImageExport disk.qcow2 -Name a, b -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption*'
        { Start-DiskImageExport disk.qcow2 -ReadOnly -TemporaryOverlay -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption*'
        { Start-DiskImageExport none.qcow2 -Port 0 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound*'
        { Stop-DiskImageExport none -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound*'
        Start-DiskImageExport disk.qcow2 -Port 0 -WhatIf
        Get-DiskImageExport | Should -BeNullOrEmpty
    }
}

Describe 'Where and how Start-DiskImageExport serves' {
    BeforeAll {
        $null = New-DiskImage served.qcow2 1MB
        $null = New-DiskImageBitmap served.qcow2 day
    }

    AfterEach { Get-DiskImageExport | Stop-DiskImageExport }

    It 'listens at a socket, or at an address' {
        if (-not $IsWindows) {
            $short = Join-Path ([IO.Path]::GetTempPath()) "diskimage-$PID.sock" # a socket's name has 107 bytes at most
            $null = Start-DiskImageExport served.qcow2 -Socket $short -ReadOnly
            (Get-DiskImageInfo "nbd+unix:///served.qcow2?socket=$short").VirtualSize | Should -Be 1MB
            Get-DiskImageExport | Stop-DiskImageExport
            Test-Path $short | Should -BeFalse
        }

        $export = Start-DiskImageExport served.qcow2 -Address 127.0.0.2 -Port 0 -ReadOnly
        $export.Uri | Should -BeLike 'nbd://127.0.0.2:*'
        (Get-DiskImageInfo $export.Uri).VirtualSize | Should -Be 1MB
    }

    It 'tells of the bitmaps that were named' {
        $export = Start-DiskImageExport served.qcow2 -Port 0 -ReadOnly -Bitmap day
        $export.Contexts | Should -Contain 'qemu:dirty-bitmap:day'
        Invoke-Qemu nbdinfo --map=qemu:dirty-bitmap:day $export.Uri | Should -Not -BeNullOrEmpty
    }

    It 'has no more clients at once than -Share' {
        # the system's own Python has the package's module, whichever Python is on PATH
        if (-not (Test-Path /usr/bin/python3) -or (/usr/bin/python3 -c 'import nbd' 2>&1)) {
            Set-ItResult -Skipped -Because 'the system lacks python3-libnbd'
        }

        $export = Start-DiskImageExport served.qcow2 -Port 0 -ReadOnly -Share 1
        $code = 'import nbd', 'a=nbd.NBD()', "a.connect_uri('$($export.Uri)')", 'b=nbd.NBD()', 'try:', "  b.connect_uri('$($export.Uri)'); print('two')", 'except nbd.Error:', "  print('one')"
        /usr/bin/python3 -c ($code -join "`n") | Should -Be 'one'
    }

    It 'lets in who has a key of -TlsPsk' {
        Skip-Without psktool
        psktool -u me -p "$folder/keys.psk" *> $null
        $export = Start-DiskImageExport served.qcow2 -Port 0 -ReadOnly -TlsPsk "$folder/keys.psk"
        Invoke-Qemu nbdinfo --size "$($export.Uri -replace '^nbds?://', 'nbds://me@')?tls-psk-file=$folder/keys.psk" | Should -Be 1MB
        nbdinfo --size ($export.Uri -replace '^nbds', 'nbd') 2>$null | Should -BeNullOrEmpty
    }

    It 'shows the certificate of -TlsCertificate' {
        $request = [Security.Cryptography.X509Certificates.CertificateRequest]::new('CN=localhost', [Security.Cryptography.ECDsa]::Create([Security.Cryptography.ECCurve+NamedCurves]::nistP256), 'SHA256')
        $names = [Security.Cryptography.X509Certificates.SubjectAlternativeNameBuilder]::new()
        $names.AddIpAddress('127.0.0.1')
        $names.AddDnsName('localhost')
        $request.CertificateExtensions.Add($names.Build())
        $request.CertificateExtensions.Add([Security.Cryptography.X509Certificates.X509BasicConstraintsExtension]::new($true, $false, 0, $true))
        $made = $request.CreateSelfSigned([datetimeoffset]::UtcNow.AddDays(-1), [datetimeoffset]::UtcNow.AddDays(1))
        $null = New-Item "$folder/tls" -ItemType Directory
        Set-Content "$folder/tls/server-cert.pem" $made.ExportCertificatePem()
        $null = New-Item "$folder/trusted" -ItemType Directory # in the server's folder it would ask for clients' certificates
        Set-Content "$folder/trusted/ca-cert.pem" $made.ExportCertificatePem()
        Set-Content "$folder/tls/server-key.pem" ([Security.Cryptography.X509Certificates.ECDsaCertificateExtensions]::GetECDsaPrivateKey($made).ExportPkcs8PrivateKeyPem())
        $export = Start-DiskImageExport served.qcow2 -Port 0 -ReadOnly -TlsCertificate "$folder/tls"
        $export.Uri | Should -BeLike 'nbds://*'
        Invoke-Qemu nbdinfo --size "$($export.Uri)?tls-certificates=$folder/trusted" | Should -Be 1MB
    }
}
