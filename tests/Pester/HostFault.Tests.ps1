# System calls that fail below the cmdlets, in a PowerShell of their own: what the user is told, and what is left.

BeforeDiscovery {
    $why = if ($IsWindows) { 'Wine lacks preloaded system calls' } elseif (-not $IsLinux) { 'faults of system calls are preloaded on Linux only' }
        elseif (-not (Get-Command cc -CommandType Application -ErrorAction Ignore)) { 'cc is not on PATH' }
}

Describe 'Failing system calls' -Skip:([bool]$why) {
    BeforeAll {
        . $PSScriptRoot/Common.ps1
        $library = Join-Path $TestDrive 'hostfault.so'
        & cc -shared -fPIC -O1 -o $library (Join-Path $RepositoryRoot 'tests' 'Native' 'hostfault.c') -ldl
        $LASTEXITCODE | Should -Be 0

        # Runs a script where system calls on files whose path has a part fail. Returns what it wrote: 'id category: message' of each error, or 'ok'.
        function Invoke-Failing([string] $Part, [string] $Calls, [int] $ErrorNumber, [string] $Script, [hashtable] $More = @{}) {
            $environment = @{ LD_PRELOAD = $library; HOSTFAULT_PATH = $Part; HOSTFAULT_CALLS = $Calls; HOSTFAULT_ERRNO = "$ErrorNumber" } + $More
            $run = Invoke-FreshPwsh -Environment $environment -Script @"
                Import-Module '$ModuleManifest' -ErrorAction Stop
                Set-Location -LiteralPath '$folder'
                & { $Script } -ErrorAction SilentlyContinue 2>&1 | ForEach-Object {
                    if (`$_ -is [Management.Automation.ErrorRecord]) { "`$((`$_.FullyQualifiedErrorId -split ',')[0]) `$(`$_.CategoryInfo.Category): `$_" } else { 'ok' }
                }
"@
            $run.ExitCode | Should -Be 0 -Because $run.Error
            $run.Output
        }
    }

    BeforeEach {
        $folder = (New-Item -ItemType Directory -Path (Join-Path $TestDrive ([guid]::NewGuid()))).FullName
        Push-Location -LiteralPath $folder
    }

    AfterEach {
        Pop-Location
    }

    It 'keeps the merged images when the base cannot be made durable (<Format>, -<Switch>)' -ForEach @(
        @{ Format = 'qcow2'; Switch = 'Delete' }, @{ Format = 'qcow2'; Switch = 'Force' }, @{ Format = 'vhdx'; Switch = 'Delete' }
    ) {
        $ending = @{ qcow2 = 'qcow2'; vhdx = 'vhdx'; vpc = 'vhd' }[$Format]
        $null = New-DiskImage "base.$ending" 4MB -Format $Format
        $null = New-DiskImage "top.$ending" -Format $Format -BackingPath "base.$ending" -BackingFormat $Format
        Write-DiskImage "top.$ending" 1MB (, 171 * 100000)
        $before = (Get-DiskImageHash "top.$ending").Hash
        Invoke-Failing "base.$ending" fsync 5 "Merge-DiskImage top.$ending -$Switch -Confirm:`$false" | Should -BeLike 'DiskImageWriteFailed WriteError: *base*'
        "top.$ending" | Should -Exist
        (Get-DiskImageHash "top.$ending" -IgnoreIdMismatch).Hash | Should -Be $before
    }

    It 'closes the base too when the image on it fails to close' {
        $null = New-DiskImage base.vhdx 4MB
        $null = New-DiskImage top.vhdx -BackingPath base.vhdx -BackingFormat vhdx
        Write-DiskImage top.vhdx 1MB (, 171 * 100000)
        $script = 'Merge-DiskImage top.vhdx -KeepTop -Confirm:$false; Write-DiskImage base.vhdx 0 (, 1 * 512)'
        Invoke-Failing top.vhdx fsync 5 $script | Should -BeLike 'DiskImageWriteFailed WriteError: *top*' # and nothing of a base in use
    }

    It 'fails a durable conversion and leaves no target (<Format>, <Number>)' -ForEach @(
        @{ Format = 'raw'; Number = 5 }, @{ Format = 'qcow2'; Number = 28 }, @{ Format = 'vhdx'; Number = 5 }
    ) {
        $null = New-TestDisk "$folder/disk.source" -Size 2MB -Seed 3
        $id = $Number -eq 28 ? 'DiskImageNoSpace' : 'DiskImageWriteFailed'
        Invoke-Failing $folder fsync $Number "Convert-DiskImage disk.source target.img -Format raw -DestinationFormat $Format -Durable" | Should -BeLike "$id WriteError: *"
        (Get-ChildItem).Name | Should -Be 'disk.source'
    }

    It 'flushes as the cache mode says (<Cmdlet> <Mode>)' -ForEach @(
        @{ Cmdlet = 'Convert'; Mode = ''; Flushes = $false }, @{ Cmdlet = 'Convert'; Mode = 'Unsafe'; Flushes = $false }
        @{ Cmdlet = 'Convert'; Mode = 'Writeback'; Flushes = $true }, @{ Cmdlet = 'Convert'; Mode = 'None'; Flushes = $true }
        @{ Cmdlet = 'Copy'; Mode = ''; Flushes = $false }, @{ Cmdlet = 'Copy'; Mode = 'Writethrough'; Flushes = $true }
        @{ Cmdlet = 'Write'; Mode = ''; Flushes = $true }, @{ Cmdlet = 'Write'; Mode = 'Unsafe'; Flushes = $false }
    ) {
        $null = New-TestDisk "$folder/disk.source" -Size 1MB -Seed 3
        $null = New-DiskImage there.qcow2 1MB
        $script = @{
            Convert = 'Convert-DiskImage disk.source target.img -Format raw -DestinationFormat qcow2;'
            Copy    = 'Copy-DiskImage disk.source target.img -Format raw -DestinationFormat raw;'
            Write   = 'Write-DiskImage there.qcow2 0 (1, 2, 3); if ($?) { 1 }'
        }[$Cmdlet].Replace(';', "$($Mode ? " -CacheMode $Mode" : '');")
        Invoke-Failing $folder fsync 5 $script | Should -BeLike ($Flushes ? 'DiskImageWriteFailed WriteError: *' : 'ok')
    }

    It 'leaves no target on a full disk (<Format>)' -ForEach @(@{ Format = 'qcow2' }) {
        $null = New-TestDisk "$folder/disk.source" -Size 2MB -Seed 3
        $result = Invoke-Failing $folder pwrite 28 "Convert-DiskImage disk.source target.img -Format raw -DestinationFormat $Format" @{ HOSTFAULT_SKIP = '1' }
        $result | Should -BeLike 'DiskImageNoSpace WriteError: *the disk is full*'
        (Get-ChildItem).Name | Should -Be 'disk.source'
    }
}
