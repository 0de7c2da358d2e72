# Loads the ReadyToRun image made for this operating system and architecture, else the portable one.
$os = $IsWindows ? 'win' : $IsMacOS ? 'osx' : 'linux'
$architecture = [System.Runtime.InteropServices.RuntimeInformation]::ProcessArchitecture.ToString().ToLowerInvariant()
$assembly = "$PSScriptRoot/lib/$os-$architecture/DiskImage.PowerShell.dll"
if (-not [System.IO.File]::Exists($assembly)) {
    $assembly = "$PSScriptRoot/lib/DiskImage.PowerShell.dll"
}

Import-Module -Name $assembly -ErrorAction Stop
Export-ModuleMember -Cmdlet *
