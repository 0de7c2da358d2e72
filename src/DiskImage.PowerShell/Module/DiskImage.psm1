# Loads the ReadyToRun image made for this operating system and architecture, else the portable assembly. The images are
# made for .NET 10 (build/ReadyToRun.proj).
$assembly = "$PSScriptRoot/lib/DiskImage.PowerShell.dll"
if ([Environment]::Version.Major -ge 10) {
    $os = $IsWindows ? 'win' : $IsMacOS ? 'osx' : 'linux'
    $architecture = [System.Runtime.InteropServices.RuntimeInformation]::ProcessArchitecture.ToString().ToLowerInvariant()
    $image = "$PSScriptRoot/lib/$os-$architecture/DiskImage.PowerShell.dll"
    if ([System.IO.File]::Exists($image)) {
        $assembly = $image
    }
}

Import-Module -Name $assembly -ErrorAction Stop
Export-ModuleMember -Cmdlet *
