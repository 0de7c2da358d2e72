# What the Pester files share. Dot-source it in BeforeAll: the module comes from output/, as a user would get it.

$RepositoryRoot = [IO.Path]::GetFullPath("$PSScriptRoot/../..")
$ModuleFolder = Join-Path $RepositoryRoot 'output' 'DiskImage'
$ModuleManifest = Join-Path $ModuleFolder 'DiskImage.psd1'
Import-Module $ModuleManifest -ErrorAction Stop

# A raw disk of data, text, written zeroes and holes that depends on its seed alone. Returns its path.
function New-TestDisk {
    param(
        [Parameter(Mandatory)] [string] $Path,
        [long] $Size = 4MB,
        [int] $Seed = 1
    )

    $random = [Random]::new($Seed)
    $file = [IO.File]::Create($Path)
    try {
        $file.SetLength($Size)
        while ($file.Position -lt $Size) {
            $length = [Math]::Min($random.Next(1, 300000), $Size - $file.Position)
            $bytes = [byte[]]::new($length)
            switch ($random.Next(4)) {
                0 { $random.NextBytes($bytes); $file.Write($bytes) }
                1 { for ($i = 0; $i -lt $length; $i += 64) { $bytes[$i] = 65 + $i / 64 % 26 }; $file.Write($bytes) }
                2 { $file.Write($bytes) }
                3 { $null = $file.Seek($length, 'Current') }
            }
        }
    } finally {
        $file.Dispose()
    }

    $Path
}

# Wine says that it is Windows; its ntdll has a function that Windows' has not.
$IsWine = $IsWindows -and [Runtime.InteropServices.NativeLibrary]::TryGetExport([Runtime.InteropServices.NativeLibrary]::Load('ntdll'), 'wine_get_version', [ref][IntPtr]::Zero)

# Skips the running test where there is no such program.
function Skip-Without([string] $Tool) {
    if (-not (Get-Command $Tool -CommandType Application -ErrorAction Ignore)) {
        Set-ItResult -Skipped -Because ($IsWine ? "Wine lacks $Tool" : "$Tool is not on PATH")
    }
}

# Skips the running test on Windows, which lacks something that the other systems have.
function Skip-OnWindows([string] $Lacks) {
    if ($IsWindows) {
        Set-ItResult -Skipped -Because "$($IsWine ? 'Wine' : 'Windows') lacks $Lacks"
    }
}

# Skips the running test under Wine, which lacks something that Windows has.
function Skip-OnWine([string] $Lacks) {
    if ($IsWine) {
        Set-ItResult -Skipped -Because "Wine lacks $Lacks"
    }
}

# Runs one of QEMU's tools: Invoke-Qemu qemu-img check a.qcow2. Returns its output lines and throws where it fails.
# Where the tool is missing, the running test is skipped.
function Invoke-Qemu {
    $tool, $rest = $args
    Skip-Without $tool
    $attempt = 0
    do {
        # On a machine with a coarse clock qemu-img sometimes sees no time pass while it measures how fast keys are derived: it is asked again.
        $output = & $tool @rest 2>&1 | ForEach-Object ToString
    } while ($LASTEXITCODE -ne 0 -and ++$attempt -le 5 -and "$output" -like '*Unable to get accurate CPU usage*')
    if ($LASTEXITCODE -ne 0) {
        throw "$tool $rest failed with exit code ${LASTEXITCODE}: $($output -join "`n")"
    }

    $output
}

# Runs a script in a new PowerShell without profile or loaded modules, with further environment variables. Returns ExitCode, Output and Error.
function Invoke-FreshPwsh {
    param(
        [Parameter(Mandatory)] [string] $Script,
        [hashtable] $Environment = @{}
    )

    $start = [Diagnostics.ProcessStartInfo]::new([Environment]::ProcessPath)
    if ([IO.Path]::GetFileNameWithoutExtension($start.FileName) -eq 'dotnet') {
        $start.ArgumentList.Add("$PSHOME/pwsh.dll")
    }

    $encoded = [Convert]::ToBase64String([Text.Encoding]::Unicode.GetBytes($Script))
    foreach ($argument in '-NoProfile', '-NonInteractive', '-OutputFormat', 'Text', '-EncodedCommand', $encoded) {
        $start.ArgumentList.Add($argument)
    }

    $start.RedirectStandardInput = $start.RedirectStandardOutput = $start.RedirectStandardError = $true
    $start.Environment['NO_COLOR'] = '1'
    foreach ($name in $Environment.Keys) {
        $start.Environment[$name] = $Environment[$name]
    }

    $process = [Diagnostics.Process]::Start($start)
    $process.StandardInput.Close()
    $errors = $process.StandardError.ReadToEndAsync()
    $output = $process.StandardOutput.ReadToEnd()
    $process.WaitForExit()
    [pscustomobject]@{ ExitCode = $process.ExitCode; Output = $output.Trim(); Error = $errors.Result.Trim() }
}

# A qcow2 image in a folder, disk.qcow2, with the bitmaps 'day' (which has recorded a write at 200000) and 'week' (disabled).
function New-TestBitmapDisk([string] $Folder) {
    $null = New-TestDisk "$Folder/disk.raw" -Size 1MB -Seed 181
    $null = Convert-DiskImage "$Folder/disk.raw" "$Folder/disk.qcow2" -Force
    $null = New-DiskImageBitmap "$Folder/disk.qcow2" day
    $null = New-DiskImageBitmap "$Folder/disk.qcow2" -Name week -Granularity 128k -Disabled
    Write-DiskImage "$Folder/disk.qcow2" 200000 (, 171 * 1000)
}

# An image's bitmaps as qemu-img tells them: 'name granularity flags'.
function Get-ExpectedBitmap([string] $Path) {
    $info = Invoke-Qemu qemu-img info --output=json $Path | Out-String | ConvertFrom-Json
    $info.'format-specific'.data.bitmaps | ForEach-Object { "$($_.name) $($_.granularity) $($_.flags -join ',')" }
}

# The same as the module tells them.
function Get-ActualBitmap([string] $Path) {
    Get-DiskImageBitmap $Path | ForEach-Object { "$($_.Name) $($_.Granularity) $($_.Flags -join ',')" }
}
