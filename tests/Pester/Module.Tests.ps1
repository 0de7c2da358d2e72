BeforeDiscovery {
    $manifest = Import-PowerShellDataFile "$PSScriptRoot/../../DiskImage.psd1"
    $cmdlets = $manifest.CmdletsToExport
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $exported = (Import-PowerShellDataFile "$RepositoryRoot/DiskImage.psd1").CmdletsToExport
    $module = Get-Module DiskImage
    $common = [System.Management.Automation.Cmdlet]::CommonParameters
    $images = Get-ChildItem "$ModuleFolder/lib" -Directory
}

Describe 'The manifest' {
    It 'is valid' {
        Test-ModuleManifest $ModuleManifest -WarningVariable warnings -ErrorAction Stop | Should -Not -BeNullOrEmpty
        $warnings | Should -BeNullOrEmpty
    }

    It 'has the version of Directory.Build.props' {
        $expected = ([xml](Get-Content "$RepositoryRoot/Directory.Build.props" -Raw)).Project.PropertyGroup.VersionPrefix
        $module.Version | Should -Be ([version]"$expected")
    }

    It 'exports the cmdlets it lists, and nothing else' {
        $module.ExportedCommands.Keys | Sort-Object | Should -Be ($exported | Sort-Object)
        $module.ExportedCommands.Values.CommandType | Select-Object -Unique | Should -Be 'Cmdlet'
        $module.ExportedVariables.Count | Should -Be 0
    }

    It 'leaves the names of the Storage module alone' {
        $module.ExportedCommands.Keys | Should -Not -BeIn 'Get-DiskImage', 'Mount-DiskImage', 'Dismount-DiskImage'
    }
}

Describe 'Import in a fresh shell' {
    It 'says nothing and leaves no error' {
        $fresh = Invoke-FreshPwsh @"
            Import-Module '$ModuleManifest' -WarningVariable warnings
            "warnings=`$(`$warnings.Count) errors=`$(`$Error.Count)"
            exit `$Error.Count
"@
        $fresh.Output | Should -Be 'warnings=0 errors=0'
        $fresh.Error | Should -BeNullOrEmpty
        $fresh.ExitCode | Should -Be 0
    }

    It 'happens by itself when the module is on the module path' {
        $fresh = Invoke-FreshPwsh @"
            `$env:PSModulePath = '$(Split-Path $ModuleFolder)' + [IO.Path]::PathSeparator + `$env:PSModulePath
            Get-DiskImageFormat | Out-Null
            (Get-Module DiskImage).Version.ToString()
"@
        $fresh.Error | Should -BeNullOrEmpty
        $fresh.Output | Should -Be $module.Version.ToString()
    }
}

Describe 'The assemblies' {
    It 'come from the ReadyToRun image of this platform where there is one' {
        $os = $IsWindows ? 'win' : $IsMacOS ? 'osx' : 'linux'
        $rid = "$os-$([Runtime.InteropServices.RuntimeInformation]::ProcessArchitecture)".ToLowerInvariant()
        $expected = [Environment]::Version.Major -ge 10 -and $images.Name -contains $rid ? "$ModuleFolder/lib/$rid" : "$ModuleFolder/lib"
        $location = (Get-Command New-DiskImage).ImplementingType.Assembly.Location
        Split-Path $location | Should -Be ([IO.Path]::GetFullPath($expected))
    }

    It 'are compiled ahead of time in every platform''s folder and portable above' {
        foreach ($portable in Get-ChildItem "$ModuleFolder/lib" -File) {
            foreach ($folder in @($portable.Directory) + $images) {
                $stream = [IO.File]::OpenRead((Join-Path $folder $portable.Name))
                $reader = [Reflection.PortableExecutable.PEReader]::new($stream)
                $native = $reader.PEHeaders.CorHeader.ManagedNativeHeaderDirectory.Size -gt 0
                $reader.Dispose()
                $native | Should -Be ($folder.Name -ne 'lib') -Because "$folder/$($portable.Name)"
            }
        }
    }
}

Describe 'Help of <_>' -ForEach $cmdlets {
    BeforeAll {
        $command = Get-Command $_ -Module DiskImage
        $help = Get-Help $_ -Full
    }

    It 'has a synopsis and a description' {
        $help.Synopsis | Should -Not -Match "^\s*$($command.Name) "
        $help.description.Text -join '' | Should -Not -BeNullOrEmpty
    }

    It 'has an example whose code parses and says the cmdlet''s name' {
        $examples = @($help.examples.example)
        $examples.Count | Should -BeGreaterThan 0
        $examples.code -join "`n" | Should -Match ([regex]::Escape($command.Name))
        foreach ($example in $examples) {
            $problems = $null
            $null = [System.Management.Automation.Language.Parser]::ParseInput($example.code, [ref]$null, [ref]$problems)
            $problems | Should -BeNullOrEmpty -Because $example.title
        }
    }

    It 'shows the parameter sets that the cmdlet has' {
        # "[-Path] <string[]> -Quiet" becomes "Path!,Quiet!": the order of optional parameters says nothing.
        $actual = $command.ParameterSets | ForEach-Object {
            ($_.Parameters | Where-Object Name -NotIn $common | ForEach-Object { $_.Name + ($_.IsMandatory ? '!' : '') } | Sort-Object) -join ','
        }
        $documented = $help.syntax.syntaxItem | ForEach-Object {
            ($_.parameter | ForEach-Object { $_.name + ($_.required -eq 'true' ? '!' : '') } | Sort-Object) -join ','
        }
        $documented | Sort-Object | Should -Be ($actual | Sort-Object)
    }

    It 'describes each parameter as it is' {
        foreach ($parameter in $command.Parameters.Values | Where-Object Name -NotIn $common) {
            $page = $help.parameters.parameter | Where-Object name -EQ $parameter.Name
            $page | Should -Not -BeNullOrEmpty -Because "-$($parameter.Name) has no page"
            if ($parameter.Name -in 'WhatIf', 'Confirm') {
                continue
            }

            $declared = $parameter.Attributes.Where{ $_ -is [Parameter] }
            $aliases = $page.aliases -eq 'none' ? @() : $page.aliases -split ',\s*'
            $aliases | Sort-Object | Should -Be ($parameter.Aliases | Sort-Object) -Because "aliases of -$($parameter.Name)"
            $page.pipelineInput -like 'True*' | Should -Be ($declared.ValueFromPipeline -contains $true -or $declared.ValueFromPipelineByPropertyName -contains $true) -Because "pipeline input of -$($parameter.Name)"
            $page.globbing -eq 'true' | Should -Be ($parameter.Attributes.Where{ $_ -is [SupportsWildcards] }.Count -gt 0) -Because "wildcards of -$($parameter.Name)"
            $position = $declared[0].Position -ge 0 ? "$($declared[0].Position)" : 'Named'
            $page.position | Should -Be $position -Because "position of -$($parameter.Name)"
        }
    }
}

Describe 'Output of <_>' -ForEach $cmdlets {
    It 'has a default view' {
        $types = (Get-Command $_ -Module DiskImage).OutputType.Type | Where-Object Namespace -Like 'DiskImage*'
        foreach ($type in $types) {
            Get-FormatData -TypeName $type.FullName -PowerShellVersion $PSVersionTable.PSVersion | Should -Not -BeNullOrEmpty -Because $type.FullName
        }
    }
}
