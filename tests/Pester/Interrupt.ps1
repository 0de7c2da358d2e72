# Ctrl+C for tests. Dot-source it in BeforeAll, after Common.ps1.

# Runs a cmdlet of the module in a runspace of its own, waits until -When (which gets the shell) is true or the cmdlet has
# ended, and stops it the way Ctrl+C does. Returns State, Errors and ProgressCount. No time is asserted: a cmdlet that had ended by
# then is in state Completed.
function Invoke-Interrupted {
    param(
        [Parameter(Mandatory)] [string] $Command,
        [Parameter(Mandatory)] [hashtable] $Parameters,
        [scriptblock] $When = { $true }
    )

    $shell = [powershell]::Create()
    try {
        $null = $shell.AddCommand('Import-Module').AddArgument($ModuleManifest).Invoke()
        $shell.Commands.Clear()
        $null = $shell.AddCommand($Command).AddParameters($Parameters)
        $run = $shell.BeginInvoke()
        while (-not $run.IsCompleted -and -not (& $When $shell)) {
            Start-Sleep -Milliseconds 2
        }

        $shell.Stop()
        [pscustomobject]@{
            State         = $shell.InvocationStateInfo.State
            Errors        = @($shell.Streams.Error)
            ProgressCount = $shell.Streams.Progress.Count
        }
    } finally {
        $shell.Dispose()
    }
}

# A file of so many MiB of noise, to be worked on for a while. The same for the same seed.
function New-NoiseFile([string] $Path, [int] $MiB, [int] $Seed) {
    $bytes = [byte[]]::new(1MB)
    $random = [Random]::new($Seed)
    $file = [IO.File]::Create($Path)
    try {
        for ($i = 0; $i -lt $MiB; $i++) {
            $random.NextBytes($bytes)
            $file.Write($bytes)
        }
    } finally {
        $file.Dispose()
    }
}

# For Invoke-Interrupted -When: true once the cmdlet has told of progress, so it is in the middle of its work.
$UnderWay = { param($shell) $shell.Streams.Progress.Count -gt 0 }

# The temporary files in a folder of images that are being made or were left.
function Get-Unfinished([string] $Folder) {
    [IO.Directory]::GetFiles($Folder, 'diskimage-*.incomplete')
}

# True once an image that is being made in a folder is longer than a number of bytes.
function Test-Begun([string] $Folder, [long] $Length = 0) {
    $file = Get-Unfinished $Folder | Select-Object -First 1
    $file -and (Test-Grown $file $Length)
}

# True once a file is there and longer than a number of bytes.
function Test-Grown([string] $Path, [long] $Length = 0) {
    $file = [IO.FileInfo]::new($Path)
    $file.Exists -and $file.Length -gt $Length
}

# True if nobody has the file open: it can be opened for itself alone.
function Test-Released([string] $Path) {
    try {
        [IO.File]::Open($Path, 'Open', 'ReadWrite', 'None').Dispose()
        $true
    } catch [IO.IOException] {
        $false
    }
}

# The ids and categories of errors, one text each: 'DiskImageNotFound ObjectNotFound'.
function Format-Error([object[]] $Errors) {
    foreach ($record in $Errors) {
        "$(($record.FullyQualifiedErrorId -split ',')[0]) $($record.CategoryInfo.Category)"
    }
}

# What Tab proposes at the end of a line.
function Get-Completion([string] $Line) {
    (TabExpansion2 $Line $Line.Length).CompletionMatches.CompletionText
}
