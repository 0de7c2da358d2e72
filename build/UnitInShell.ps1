<#
.SYNOPSIS
    Runs the unit tests in this PowerShell, for where there is a runtime but no SDK with a test host.
.DESCRIPTION
    Prints a line for each test that does not pass, with its reason, and writes the counts as JSON.
.PARAMETER Class
    Only the tests whose full name begins with this, behind DiskImage.Tests.
#>
param(
    [Parameter(Mandatory)] [string] $Assembly,
    [Parameter(Mandatory)] [string] $Counts,
    [string] $Class = ''
)

$ErrorActionPreference = 'Stop'
$tests = [Reflection.Assembly]::LoadFrom($Assembly)
$run = $tests.GetType('DiskImage.Tests.Support.InProcessRun').GetMethod('Run').Invoke($null, @($Class, [Console]::Out))
@{ Passed = $run.Passed; Failed = $run.Failed; Skipped = $run.Skipped } | ConvertTo-Json | Set-Content $Counts
exit [Math]::Min($run.Failed, 1)
