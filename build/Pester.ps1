<#
.SYNOPSIS
    Runs the Pester tests against output/DiskImage in this shell, which should be a fresh one.
.DESCRIPTION
    Writes TestResults/pester.xml (NUnit) and TestResults/pester-counts.json. Pester is the one that build/Pester.proj restores
    into output/packages; where that failed, the tests are counted as skipped.
.PARAMETER Path
    Test files or folders; all of tests/Pester by default.
.PARAMETER Counts
    The file for the counts.
.PARAMETER Bare
    Neither the NUnit report, which asks WMI for the machine, nor Pester's drive in the registry: Wine has no WMI, and shells that
    run at once there disturb each other in the registry.
#>
param(
    [string[]] $Path = "$PSScriptRoot/../tests/Pester",
    [string] $Counts = "$PSScriptRoot/../TestResults/pester-counts.json",
    [switch] $Bare
)

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$results = "$PSScriptRoot/../TestResults"
$null = New-Item $results -ItemType Directory -Force

[xml] $packages = Get-Content "$PSScriptRoot/../Directory.Packages.props" -Raw
$version = $packages.SelectSingleNode('//PackageVersion[@Include="Pester"]').Version
$pester = "$PSScriptRoot/../output/packages/pester/$version/tools/Pester.psd1"
if (Test-Path $pester) {
    Import-Module $pester
    $run = Invoke-Pester -Configuration @{
        Run          = @{ Path = $Path; PassThru = $true }
        Output       = @{ RenderMode = [Console]::IsOutputRedirected ? 'Plaintext' : 'Auto' }
        TestRegistry = @{ Enabled = -not $Bare }
        TestResult   = @{ Enabled = -not $Bare; OutputFormat = 'NUnitXml'; OutputPath = "$results/pester.xml" }
    }
    $sum = @{
        Passed   = $run.PassedCount
        # A BeforeAll or a whole file that failed is more than the tests it took along.
        Failed   = $run.FailedCount + $run.FailedBlocksCount + $run.FailedContainersCount
        Skipped  = $run.SkippedCount + $run.InconclusiveCount + $run.NotRunCount
        Failures = @(@($run.Failed) + $run.FailedBlocks + $run.FailedContainers | Where-Object { $_ } |
            ForEach-Object { "$($_.ExpandedPath ?? $_.Item ?? $_): $($_.ErrorRecord | Select-Object -First 1)" })
    }
} else {
    $tests = @(Get-ChildItem $Path -Recurse -Filter '*.Tests.ps1' | Select-String '^\s*It\s').Count
    Write-Host "NOT RUN: the Pester tests ($tests It blocks, counted as skipped), because Pester $version could not be restored (dotnet restore build/Pester.proj says why)."
    $sum = @{ Passed = 0; Failed = 0; Skipped = $tests; Failures = @() }
}

$sum | ConvertTo-Json | Set-Content $Counts
exit [Math]::Min($sum.Failed, 1)
