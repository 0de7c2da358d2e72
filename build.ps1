#!/usr/bin/env pwsh
#requires -Version 7.6
<#
.SYNOPSIS
    The one door to the repository's work.
.DESCRIPTION
    Build        stages the module in output/DiskImage, and the programs qemu-img and qemu-io in output/CommandLine.
    Test         runs the unit tests and Pester against output/DiskImage; the last line sums both up.
    TestWindows  runs both in a Windows PowerShell under Wine; the last line sums both up. On Windows itself, Test does that.
    Demo         converts a sample disk raw to qcow2 to raw through the cmdlets and shows what they say about it.
    Iotests      runs those of QEMU's iotests that need only qemu-img and qemu-io with the programs, and compares with tests/Iotests/list.tsv.
    Bench        times conversions beside qemu-img, then runs the micro benchmarks.
    Package      zips the module, and apart from it the programs, byte for byte the same from the same sources.

    All but Build build first.
.PARAMETER Quick
    Builds neither ReadyToRun images nor help, for the inner loop.
.PARAMETER Source
    For Iotests: the root of QEMU's source, which is not part of this repository.
.PARAMETER Format
    For Iotests: the formats to test; all if not given.
#>
[CmdletBinding()]
param(
    [Parameter(Position = 0)]
    [ValidateSet('Build', 'Test', 'TestWindows', 'Demo', 'Iotests', 'Bench', 'Package')]
    [string] $Task = 'Build',

    [ValidateSet('Release', 'Debug')]
    [string] $Configuration = 'Release',

    [switch] $Quick,

    [string] $Source,

    [string[]] $Format
)

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false
$root = $PSScriptRoot
$results = "$root/TestResults"

function Assert-ExitCode([string] $What) {
    if ($LASTEXITCODE -ne 0) {
        throw "$What failed with exit code $LASTEXITCODE."
    }
}

# A new PowerShell of the kind that runs this one, so that nothing loaded here is seen there.
function Invoke-FreshShell([string] $Script, [string[]] $With = @()) {
    $shell = [Environment]::ProcessPath
    [string[]] $start = [IO.Path]::GetFileNameWithoutExtension($shell) -eq 'dotnet' ? @("$PSHOME/pwsh.dll") : @()
    & $shell @start -NoProfile -NonInteractive -File $Script @With | Out-Host
}

function Invoke-Build([switch] $Portable) {
    dotnet msbuild "$root/build/Build.proj" -nologo -verbosity:minimal "-p:Configuration=$Configuration" "-p:Quick=$Quick" "-p:Native=$(-not $Portable)" | Out-Host
    Assert-ExitCode 'Build'
}

# Pester keeps one processor busy and the unit tests wait now and then, so they run beside each other.
function Start-UnitTest {
    dotnet build "$root/DiskImage.sln" --configuration $Configuration --nologo -verbosity:quiet | Out-Host
    Start-ThreadJob -ArgumentList "$root/DiskImage.sln", $Configuration, $results {
        param($solution, $configuration, $results)
        dotnet test $solution --no-build --configuration $configuration --nologo --results-directory $results `
            --logger 'trx;LogFilePrefix=unit' --blame-hang-timeout 8m --blame-hang-dump-type none 2>&1 |
            ForEach-Object ToString # its errors are lines like others: as errors they would end this script
        "exit code $LASTEXITCODE"
    }
}

function Complete-UnitTest([Management.Automation.Job] $Job) {
    $said = @(Receive-Job $Job -Wait -AutoRemoveJob)
    $said | Out-Host
    $failedRun = $said.Count -eq 0 -or $said[-1] -ne 'exit code 0'
    $counts = @{ Passed = 0; Failed = 0; Skipped = 0; Failures = @() }
    foreach ($file in Get-ChildItem $results -Filter 'unit*.trx') {
        $run = ([xml](Get-Content $file -Raw)).TestRun
        $counters = $run.ResultSummary.Counters
        $counts.Failures += @($run.Results.UnitTestResult | Where-Object outcome -EQ Failed |
            ForEach-Object { "$($_.testName): $($_.Output.ErrorInfo.Message)" })
        $counts.Passed += [int]$counters.passed
        $counts.Failed += [int]$counters.executed - [int]$counters.passed
        $counts.Skipped += [int]$counters.total - [int]$counters.executed
    }

    # A run that broke before it could count is a failure too.
    if ($failedRun -and $counts.Failed -eq 0) {
        $counts.Failed = 1
    }

    $counts
}

function Invoke-PesterTest {
    try {
        Invoke-Build -Portable
        # build/Pester.ps1 says what is missing where this fails.
        dotnet restore "$root/build/Pester.proj" -nologo -verbosity:quiet | Out-Host
        Invoke-FreshShell "$root/build/Pester.ps1"
        Get-Content "$results/pester-counts.json" -Raw | ConvertFrom-Json -AsHashtable
    } catch {
        @{ Passed = 0; Failed = 1; Skipped = 0; Failures = @("Pester did not run: $_") }
    }
}

function Invoke-Test {
    if (Test-Path $results) {
        Remove-Item $results -Recurse -Force
    }

    $job = Start-UnitTest
    $pester = Invoke-PesterTest
    $unit = Complete-UnitTest $job
    $failed = $unit.Failed + $pester.Failed
    # Named here once more: a log's end is what one reads, and all that some keep.
    $unit.Failures + $pester.Failures | ForEach-Object { Write-Host "FAILED $_" }
    Write-Host "$($unit.Passed + $pester.Passed) passed, $failed failed, $($unit.Skipped + $pester.Skipped) skipped"
    exit [Math]::Min($failed, 1)
}

function Invoke-TestWindows {
    if (-not $IsLinux) {
        throw 'TestWindows runs Wine on Linux. On Windows, -Task Test runs the same tests.'
    }

    Invoke-Build -Portable
    dotnet restore "$root/build/Pester.proj" -nologo -verbosity:quiet | Out-Host
    Assert-ExitCode 'Restoring Pester'
    dotnet build "$root/tests/Unit/DiskImage.Tests.csproj" --configuration $Configuration --nologo -verbosity:quiet | Out-Host
    Assert-ExitCode 'Building the unit tests'
    $env:CONFIGURATION = $Configuration
    bash "$root/build/TestWindows.sh" | Out-Host
    exit $LASTEXITCODE
}

function Invoke-Iotests {
    if (-not $Source) {
        throw 'Iotests needs -Source: the root of the source of QEMU, whose tests are not part of this repository.'
    }

    dotnet msbuild "$root/build/Build.proj" -nologo -verbosity:minimal -target:Programs -p:Native=false | Out-Host
    Assert-ExitCode 'Build'
    [string[]] $chosen = $Format ? @('-Format', ($Format -join ',')) : @()
    Invoke-FreshShell "$root/build/Iotests.ps1" (@('-Source', $Source) + $chosen)
    exit $LASTEXITCODE
}

function Invoke-Package {
    Invoke-Build
    $module = "$root/output/DiskImage"
    foreach ($rid in 'win-x64', 'win-arm64', 'linux-x64', 'linux-arm64', 'osx-arm64') {
        if (-not (Test-Path "$module/lib/$rid/DiskImage.PowerShell.dll")) {
            throw "The ReadyToRun image for $rid is missing; a package has them all."
        }
    }

    $version = (Import-PowerShellDataFile "$module/DiskImage.psd1").ModuleVersion
    Write-Archive $module "$root/output/DiskImage-$version.zip"
    # The programs are of this system alone.
    Write-Archive "$root/output/CommandLine" "$root/output/DiskImage-CommandLine-$version-$([Runtime.InteropServices.RuntimeInformation]::RuntimeIdentifier).zip"
}

# Zips a folder of output, with its name. Ordinal order, one date and one mode: the bytes depend on the contents alone.
function Write-Archive([string] $Folder, [string] $Archive) {
    $stream = [IO.File]::Create($Archive)
    $zip = [IO.Compression.ZipArchive]::new($stream, [IO.Compression.ZipArchiveMode]::Create)
    try {
        [string[]] $names = (Get-ChildItem $Folder -Recurse -File).FullName.ForEach{ [IO.Path]::GetRelativePath("$root/output", $_).Replace('\', '/') }
        [Array]::Sort($names, [StringComparer]::Ordinal)
        foreach ($name in $names) {
            $entry = $zip.CreateEntry($name, [IO.Compression.CompressionLevel]::SmallestSize)
            $entry.LastWriteTime = [DateTimeOffset]::new(1980, 1, 1, 0, 0, 0, [TimeSpan]::Zero)
            # files of mode 644; programs may be run
            $entry.ExternalAttributes = ($name -match '/qemu-(img|io)(\.exe)?$' ? 0x81ED : 0x81A4) -shl 16
            $content = $entry.Open()
            $content.Write([IO.File]::ReadAllBytes("$root/output/$name"))
            $content.Dispose()
        }
    } finally {
        $zip.Dispose()
        $stream.Dispose()
    }

    Write-Host "$([IO.Path]::GetRelativePath($root, $Archive))  SHA256 $((Get-FileHash $Archive).Hash)"
}

switch ($Task) {
    'Build' { Invoke-Build }
    'Test' { Invoke-Test }
    'TestWindows' { Invoke-TestWindows }
    'Demo' {
        Invoke-Build
        Invoke-FreshShell "$root/build/Demo.ps1"
        Assert-ExitCode 'Demo'
    }
    'Iotests' { Invoke-Iotests }
    'Bench' {
        Invoke-Build
        Invoke-FreshShell "$root/bench/Compare.ps1" '-Output', "$root/output/bench", '-Growth'
        Assert-ExitCode 'Compare'
        dotnet run --configuration Release --project "$root/bench/DiskImage.Bench.csproj" -- --filter '*'
        Assert-ExitCode 'Micro benchmarks'
    }
    'Package' { Invoke-Package }
}
