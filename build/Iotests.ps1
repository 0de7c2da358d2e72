#requires -Version 7.6
<#
.SYNOPSIS
    Runs those of QEMU's iotests that need only qemu-img and qemu-io, and compares with the list of those that hold.
.DESCRIPTION
    QEMU's own harness wants QEMU built. This one gives each test the environment that its common.rc reads, a folder of its own, the two
    programs and a time limit, and compares what it says with what it is to say (line ends trimmed, as QEMU's harness does). In place of
    qemu stands a script that only names the formats there are; tests that start qemu, qemu-nbd or qemu-storage-daemon are left out.

    tests/Iotests/list.tsv says of a test and a format whether it holds, and of one that does not, why. A test that is listed to hold and
    does not fails the run; those that hold although they are not listed to, and those that are not listed, are named. What each said
    beside what it should say is left in output/iotests.

    Wants bash, GNU sed, diff, timeout and python3, as the tests do.
.PARAMETER Source
    The root of QEMU's source, which is the user's to bring.
.PARAMETER Format
    The formats to test.
.PARAMETER Test
    Only these tests.
.PARAMETER Programs
    The folder of qemu-img and qemu-io. Those of QEMU show which tests can hold on a machine at all.
.PARAMETER TimeLimit
    Seconds that a test may take.
.PARAMETER Update
    Writes the list anew from what was found; reasons that were given stay.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)]
    [string] $Source,

    [string[]] $Format = @('qcow2', 'raw', 'vmdk', 'vdi', 'vpc', 'vhdx', 'qed', 'parallels', 'luks'),

    [string[]] $Test = @(),

    [string] $Programs = "$PSScriptRoot/../output/CommandLine",

    [string] $List = "$PSScriptRoot/../tests/Iotests/list.tsv",

    [string] $Output = "$PSScriptRoot/../output/iotests",

    [int] $TimeLimit = 300,

    [switch] $Update
)

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false
# An array that comes by way of a command line is one text.
$Format = @($Format.Split(','))
$Test = @($Test.ForEach{ $_.Split(',') })
$folder = (Resolve-Path "$Source/tests/qemu-iotests").Path
$version = (Get-Content "$Source/VERSION" -Raw).Trim()
$programFolder = (Resolve-Path $Programs).Path

# What a test that needs more than the two programs says in its text.
$needsMore = @{
    bash   = 'common\.qemu|common\.nbd|\$\{?QEMU\b|\$\{?QEMU_NBD\b|\$\{?QSD\b|_require_(one_)?device'
    python = 'QMPTestCase|\bVM\(|qemu_nbd|StorageDaemon|qmp'
}

function Find-Test {
    foreach ($file in Get-ChildItem $folder, "$folder/tests" -File | Where-Object { Test-Path "$($_.FullName).out*" }) {
        $text = Get-Content $file.FullName -Raw
        $kind = $text.StartsWith('#!/usr/bin/env bash') ? 'bash' : $text.StartsWith('#!/usr/bin/env python3') ? 'python' : $null
        if ($kind -and $text -cnotmatch $needsMore[$kind]) {
            [IO.Path]::GetRelativePath($folder, $file.FullName)
        }
    }
}

# The environment that common.rc and iotests.py read.
function Get-TestEnvironment([string] $ImageFormat, [string] $Stub) {
    @{
        PYTHONPATH = "${folder}:$Source/python"
        PYTHON = 'python3'
        SAMPLE_IMG_DIR = "$folder/sample_images"
        QEMU_PROG = $Stub
        QEMU_IMG_PROG = "$programFolder/qemu-img"
        QEMU_IO_PROG = "$programFolder/qemu-io"
        QEMU_NBD_PROG = '/nonexistent/qemu-nbd'
        QSD_PROG = '/nonexistent/qemu-storage-daemon'
        QEMU_OPTIONS = ''
        QEMU_IMG_OPTIONS = ''
        QEMU_NBD_OPTIONS = ''
        QEMU_IO_OPTIONS = '--cache writeback --aio threads' + ($ImageFormat -eq 'luks' ? '' : " -f $ImageFormat")
        QEMU_IO_OPTIONS_NO_FMT = '--cache writeback --aio threads'
        QEMU_DEFAULT_MACHINE = 'pc'
        IMGFMT = $ImageFormat
        IMGPROTO = 'file'
        IMGFMT_GENERIC = "$($ImageFormat -notin 'bochs', 'cloop', 'dmg')".ToLowerInvariant()
        IMGOPTSSYNTAX = "$($ImageFormat -eq 'luks')".ToLowerInvariant()
        IMGKEYSECRET = $ImageFormat -eq 'luks' ? '123456' : ''
        IMGOPTS = switch ($ImageFormat) {
            'luks' { 'iter-time=10' }
            'vmdk' { 'zeroed_grain=on' }
            default { '' }
        }
        AIOMODE = 'threads'
        CACHEMODE = 'writeback'
        CACHEMODE_IS_DEFAULT = 'true'
    }
}

function Read-List {
    $rows = [ordered]@{}
    foreach ($line in (Test-Path $List) ? (Get-Content $List | Where-Object { $_ -and $_ -notmatch '^#' }) : @()) {
        $name, $imageFormat, $result, $reason = $line.Split("`t")
        if ($result -notin 'holds', 'differs' -or ($result -eq 'differs') -ne [bool]$reason) {
            throw "$List`: a row is test, format, 'holds' or 'differs', and of the latter the reason: $line"
        }

        $rows["$name $imageFormat"] = @{ Result = $result; Reason = $reason }
    }

    $rows
}

function Write-List([System.Collections.IDictionary] $Rows) {
    $lines = foreach ($key in $Rows.Keys | Sort-Object { $_ -replace '^\D', '~$0' }) {
        $name, $imageFormat = $key.Split(' ')
        @($name, $imageFormat, $Rows[$key].Result) + @($Rows[$key].Reason).Where{ $_ } -join "`t"
    }

    Set-Content $List (@("# QEMU $version`: test, format, whether it holds, and why not") + $lines)
}

$known = Read-List
$work = (New-Item -ItemType Directory "$([IO.Path]::GetTempPath())/iotests-$([Guid]::NewGuid().ToString('n').Substring(0, 8))").FullName
try {
    $stub = "$work/qemu"
    Set-Content $stub "#!/bin/sh`necho 'Supported formats: blkdebug blklogwrites blkverify compress copy-on-read file luks null-aio null-co parallels preallocate qcow qcow2 qed quorum raw throttle vdi vhdx vmdk vpc'"
    chmod +x $stub
    $null = New-Item -ItemType Directory $Output -Force
    $found = @(Find-Test | Where-Object { -not $Test -or $_ -in $Test })
    $runs = foreach ($imageFormat in $Format) {
        $environment = Get-TestEnvironment $imageFormat $stub
        foreach ($name in $found) {
            $reference = @("$name.out.$imageFormat", "$name.pc.out", "$name.out").Where({ Test-Path "$folder/$_" }, 'First')[0]
            @{ Name = $name; Format = $imageFormat; Environment = $environment; Reference = "$folder/$reference" }
        }
    }

    $outcomes = $runs | ForEach-Object -ThrottleLimit ([Environment]::ProcessorCount) -Parallel {
        $ErrorActionPreference = 'Stop'
        $run = $_
        $short = Split-Path $run.Name -Leaf
        $scratch = "$using:work/$($run.Format)-$short"
        $said = "$using:Output/$($run.Format)-$short.out"
        $difference = "$using:Output/$($run.Format)-$short.diff"
        $null = New-Item -ItemType Directory $scratch, "$scratch/s"
        $set = $run.Environment.GetEnumerator().ForEach{ "$($_.Key)=$($_.Value)" }
        $clock = [Diagnostics.Stopwatch]::StartNew()
        env "TEST_DIR=$scratch" "SOCK_DIR=$scratch/s" @set timeout --kill-after=5 $using:TimeLimit bash -c 'cd "$1" && exec "./$2" >"$3" 2>&1 </dev/null' `
            sh (Split-Path "$using:folder/$($run.Name)") $short $said
        $code = $LASTEXITCODE
        diff -u --ignore-trailing-space --label wanted --label said $run.Reference $said > $difference
        $isSame = $LASTEXITCODE -eq 0
        $result = (Test-Path "$scratch/$short.notrun") ? 'not run' : $code -eq 0 -and $isSame ? 'holds' : $code -in 124, 137 ? 'too slow' : 'differs'
        if ($result -in 'holds', 'not run') {
            Remove-Item $said, $difference
        }

        # some tests leave folders that may not be entered
        Remove-Item $scratch -Recurse -Force -ErrorAction Ignore
        $found = [pscustomobject]@{ Test = $run.Name; Format = $run.Format; Result = $result; Seconds = [Math]::Round($clock.Elapsed.TotalSeconds, 1) }
        Write-Verbose "$found" -Verbose:$using:VerbosePreference
        $found
    }
} finally {
    Remove-Item $work -Recurse -Force
}

$ran = @($outcomes | Where-Object Result -NE 'not run')
$ran | Group-Object Format | Select-Object @{ n = 'Format'; e = 'Name' }, @{ n = 'Run'; e = 'Count' },
    @{ n = 'Hold'; e = { @($_.Group | Where-Object Result -EQ 'holds').Count } },
    @{ n = 'Seconds'; e = { [int]($_.Group | Measure-Object Seconds -Sum).Sum } } | Format-Table | Out-Host

$lost = 0
foreach ($outcome in $ran | Sort-Object Format, Test) {
    $key = "$($outcome.Test) $($outcome.Format)"
    $listed = $known[$key]
    $holds = $outcome.Result -eq 'holds'
    if ($Update) {
        $known[$key] = @{ Result = $holds ? 'holds' : 'differs'; Reason = $holds ? $null : $listed.Reason ?? '?' }
    } elseif (-not $listed -or ($listed.Result -eq 'holds') -ne $holds) {
        $lost += $listed -and -not $holds ? 1 : 0
        $was = $listed ? "is listed: $($listed.Result) $($listed.Reason)".TrimEnd() : 'is not listed'
        Write-Host "$key $($outcome.Result), $was"
    }
}

if ($Update) {
    Write-List $known
}

Write-Host "$($ran.Count) run, $(@($ran | Where-Object Result -EQ 'holds').Count) hold, $lost lost (QEMU $version)"
exit [Math]::Min($lost, 1)
