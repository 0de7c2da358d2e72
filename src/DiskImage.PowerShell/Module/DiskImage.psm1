# Loads the ReadyToRun images made for this operating system and architecture, else the portable assemblies.
#
# They go into a load context of their own, so that another version of one of them in the session neither disturbs this module nor is
# disturbed by it. LoadFile makes that context: unlike other contexts, PowerShell looks into it when a script names a type. A context
# asks the session's before it looks for a file, but what it holds already it takes first; so all are loaded at once.
$os = $IsWindows ? 'win' : $IsMacOS ? 'osx' : 'linux'
$architecture = [System.Runtime.InteropServices.RuntimeInformation]::ProcessArchitecture.ToString().ToLowerInvariant()
$folder = "$PSScriptRoot/lib/$os-$architecture"
if (-not [System.IO.Directory]::Exists($folder)) {
    $folder = "$PSScriptRoot/lib"
}

$assembly = [System.Reflection.Assembly]::LoadFile([System.IO.Path]::GetFullPath("$folder/DiskImage.PowerShell.dll"))
$context = [System.Runtime.Loader.AssemblyLoadContext]::GetLoadContext($assembly)
foreach ($file in [System.IO.Directory]::GetFiles($folder, '*.dll')) {
    $null = $context.LoadFromAssemblyPath([System.IO.Path]::GetFullPath($file))
}

$inner = Import-Module -Assembly $assembly -PassThru -ErrorAction Stop
# PowerShell would keep the inner module, and import it no second time.
$ExecutionContext.SessionState.Module.OnRemove = { Remove-Module -ModuleInfo $inner }
Export-ModuleMember -Cmdlet *
