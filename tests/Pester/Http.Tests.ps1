# Images of a web server that asks who one is, by a server of this test's own.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    if ($IsWine) { return } # its HTTP server cannot be had

    $null = New-TestDisk "$TestDrive/disk.raw" -Size 1MB -Seed 41
    $bytes = [IO.File]::ReadAllBytes("$TestDrive/disk.raw")
    $port = & {
        $probe = [Net.Sockets.TcpListener]::new([Net.IPAddress]::Loopback, 0)
        $probe.Start()
        $probe.LocalEndpoint.Port
        $probe.Stop()
    }
    $listener = [Net.HttpListener]::new()
    $listener.Prefixes.Add("http://127.0.0.1:$port/")
    $listener.AuthenticationSchemes = 'Basic'
    $listener.Start()
    $server = Start-ThreadJob {
        $listener, $bytes = $using:listener, $using:bytes
        while ($listener.IsListening) {
            try { $context = $listener.GetContext() } catch { break }
            $response = $context.Response
            $identity = $context.User.Identity
            if ($identity.Name -ne 'admin' -or $identity.Password -ne 'right') {
                $response.StatusCode = 401
                $response.Close()
                continue
            }

            $response.AddHeader('Accept-Ranges', 'bytes')
            $response.AddHeader('ETag', '"1"')
            $first, $last = 0, ($bytes.Length - 1)
            if ($context.Request.Headers['Range'] -match 'bytes=(\d+)-(\d*)') {
                $first = [int]$Matches[1]
                $last = $Matches[2] ? [Math]::Min([int]$Matches[2], $last) : $last
                $response.StatusCode = 206
                $response.AddHeader('Content-Range', "bytes $first-$last/$($bytes.Length)")
            }

            $response.ContentLength64 = $last - $first + 1
            if ($context.Request.HttpMethod -ne 'HEAD') {
                try { $response.OutputStream.Write($bytes, $first, $last - $first + 1) } catch { $null = $_ }
            }

            try { $response.Close() } catch { $null = $_ }
        }
    }
    $url = "http://127.0.0.1:$port/disk.raw"
    $right = [pscredential]::new('admin', (ConvertTo-SecureString 'right' -AsPlainText -Force))
    $wrong = [pscredential]::new('admin', (ConvertTo-SecureString 'wrong' -AsPlainText -Force))
}

AfterAll {
    if ($IsWine) { return }

    $listener.Stop()
    $null = $server | Wait-Job -Timeout 20
    $server | Remove-Job -Force
}

Describe 'Images of a web server' {
    It 'are read with the credential that is given' {
        Skip-OnWine 'the HTTP server of Windows'
        (Get-DiskImageHash $url -Format raw -Credential $right).Hash | Should -Be (Get-FileHash "$TestDrive/disk.raw").Hash
        (Compare-DiskImage "$TestDrive/disk.raw" $url -Format raw -DifferenceFormat raw -Credential $right).Identical | Should -BeTrue
        (Get-DiskImageHash $url -Format raw -Secret @{ "http://127.0.0.1:$port" = $right }).Hash | Should -Be (Get-FileHash "$TestDrive/disk.raw").Hash
    }

    It 'are refused with a wrong one or none, which no error repeats' {
        Skip-OnWine 'the HTTP server of Windows'
        foreach ($given in @{ Credential = $wrong }, @{}) {
            $null = Get-DiskImageHash $url -Format raw @given -ErrorAction SilentlyContinue -ErrorVariable problems
            Format-Error $problems | Should -Be 'DiskImageAccessDenied PermissionDenied'
            "$($problems | Format-List * -Force | Out-String)" | Should -Not -Match 'wrong'
        }
    }
}
