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

    It 'has what a gallery shows, and addresses only where the project has one' {
        $data = (Import-PowerShellDataFile $ModuleManifest).PrivateData.PSData
        $data.Tags.Count | Should -BeGreaterThan 5
        $data.Tags | Should -Not -Match '\s'
        $data.ReleaseNotes | Should -Match 'CHANGELOG\.md'
        "$ModuleFolder/CHANGELOG.md" | Should -Exist
        $url = "$(([xml](Get-Content "$RepositoryRoot/Directory.Build.props" -Raw)).Project.PropertyGroup.ProjectUrl)"
        $data.ProjectUri | Should -Be ($url ? $url : $null)
        $data.LicenseUri | Should -Be ($url ? "$url/blob/main/LICENSE" : $null)
        Get-Content $ModuleManifest -Raw | Should -Not -Match '\{ProjectUrl\}'
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
        $expected = $images.Name -contains $rid ? "$ModuleFolder/lib/$rid" : "$ModuleFolder/lib"
        $location = (Get-Command New-DiskImage).ImplementingType.Assembly.Location
        Split-Path $location | Should -Be ([IO.Path]::GetFullPath($expected))
    }

    It 'are compiled for each platform that users have' {
        if (-not $images) {
            Set-ItResult -Skipped -Because 'a quick build has no ReadyToRun images'
        }

        $images.Name | Sort-Object | Should -Be 'linux-arm64', 'linux-x64', 'osx-arm64', 'win-arm64', 'win-x64'
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

Describe 'The load context' {
    BeforeAll {
        # In a fresh shell: assemblies of the same names and keys as the module's but another version are loaded first, each with one
        # type that says which it is. Then the module is used.
        $script = @'
            $ErrorActionPreference = 'Stop'
            $names = (Get-ChildItem 'MODULE/lib' -File -Filter *.dll).ForEach{ [Reflection.AssemblyName]::GetAssemblyName($_.FullName) }
            foreach ($name in $names) {
                $name.Version = 'VERSION'
                $builder = [Reflection.Emit.PersistedAssemblyBuilder]::new($name, [object].Assembly)
                $null = $builder.DefineDynamicModule($name.Name).DefineType("Session.$($name.Name.Replace('.', ''))", 'Public').CreateType()
                $builder.Save("FOLDER/$($name.Name).dll")
                $null = [Reflection.Assembly]::LoadFrom("FOLDER/$($name.Name).dll")
            }
            Import-Module 'MODULE/DiskImage.psd1'
            $null = Convert-DiskImage 'FOLDER/disk.raw' 'FOLDER/disk.qcow2' -Compress -Option @{ compression_type = 'zstd' } -Verify
            (Compare-DiskImage 'FOLDER/disk.raw' 'FOLDER/disk.qcow2').Identical
            -join [char[]] (Read-DiskImage 'FOLDER/disk.dmg' 500 12)
            $secret = ConvertTo-SecureString 'secret' -AsPlainText -Force
            # a hash and a cipher that only BouncyCastle has
            $null = New-DiskImage 'FOLDER/keys.luks' 1MB -Option @{ 'cipher-alg' = 'twofish-256'; 'hash-alg' = 'ripemd160'; 'iter-time' = 1 } -NewSecret $secret
            $null = Read-DiskImage 'FOLDER/keys.luks' 0 512 -Secret $secret
            $made = New-DiskImage 'FOLDER/keys.qcow2' 1MB -Option @{ 'encrypt.format' = 'luks'; 'encrypt.iter-time' = 1 } -NewSecret $secret
            $made.FormatSpecific.Encryption
            foreach ($name in $names) {
                ("Session.$($name.Name.Replace('.', ''))" -as [type]).Assembly.GetName().Version.ToString()
                [Runtime.Loader.AssemblyLoadContext]::Default.Assemblies.Where{ $_.GetName().Name -eq $name.Name }.ForEach{ $_.GetName().Version.ToString() }
            }
'@

        # An Apple disk image of one sector of the letter A, packed with bzip2: one table of two chunks, in a property list.
        function New-TestBzip2Dmg ($Path) {
            $packed = [Convert]::FromBase64String('QlpoMTFBWSZTWYRl1QMAAAGEAKAAAAggADCASeoGri7kinChIQjLqgY=')
            $put = { param ($target, $at, $value, $size) $b = [BitConverter]::GetBytes([long] $value); [array]::Reverse($b); $b[(8 - $size)..7].CopyTo($target, $at) }
            $table = [byte[]]::new(204 + 2 * 40)
            [Text.Encoding]::ASCII.GetBytes('mish').CopyTo($table, 0)
            & $put $table 16 1 8
            & $put $table 200 2 4
            & $put $table 204 0x80000006L 4
            & $put $table (204 + 16) 1 8
            & $put $table (204 + 32) $packed.Length 8
            & $put $table (204 + 40) 0xFFFFFFFFL 4
            $list = [Text.Encoding]::UTF8.GetBytes('<plist><dict><key>resource-fork</key><dict><key>blkx</key><array><dict><key>Name</key><string>disk</string><key>Data</key><data>' +
                [Convert]::ToBase64String($table) + '</data></dict></array></dict></dict></plist>')
            $trailer = [byte[]]::new(512)
            [Text.Encoding]::ASCII.GetBytes('koly').CopyTo($trailer, 0)
            & $put $trailer 4 4 4
            & $put $trailer 8 512 4
            & $put $trailer 32 $packed.Length 8
            & $put $trailer 216 $packed.Length 8
            & $put $trailer 224 $list.Length 8
            & $put $trailer 492 1 8
            [IO.File]::WriteAllBytes($Path, $packed + $list + $trailer)
        }
    }

    It 'keeps apart from <_> of each of its assemblies, loaded before' -ForEach '99.0.0.0', '0.0.0.1' {
        $folder = New-Item -ItemType Directory "$TestDrive/$_"
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 5
        New-TestBzip2Dmg "$folder/disk.dmg"
        $fresh = Invoke-FreshPwsh $script.Replace('MODULE', $ModuleFolder).Replace('FOLDER', $folder).Replace('VERSION', $_)
        $fresh.Error | Should -BeNullOrEmpty
        $assemblies = (Get-ChildItem "$ModuleFolder/lib" -File -Filter *.dll).Count
        $assemblies | Should -Be 6 # the cmdlets, the command line, the core, BouncyCastle, SharpZipLib and ZstdSharp
        $fresh.Output -split '\r?\n' | Should -Be (@('True', ('A' * 12), 'luks aes-xts-plain64') + @($_) * 2 * $assemblies)
    }

    It 'lets scripts name the module''s types' {
        [DiskImage.PowerShell.DiskImageInfo].Assembly | Should -Be (Get-Command New-DiskImage).ImplementingType.Assembly
        [DiskImage.Block.DiskImageException].Assembly.Location | Split-Path | Should -Be (Split-Path (Get-Command New-DiskImage).ImplementingType.Assembly.Location)
    }

    It 'takes the module in again after it was removed or forced' {
        $fresh = Invoke-FreshPwsh @"
            Import-Module '$ModuleManifest'
            Remove-Module DiskImage
            Import-Module '$ModuleManifest'
            Import-Module '$ModuleManifest' -Force
            "`$((Get-Command -Module DiskImage).Count) `$(@(Get-Module -All DiskImage, dynamic_code_module_DiskImage*).Count)"
"@
        $fresh.Error | Should -BeNullOrEmpty
        $fresh.Output | Should -Be "$($exported.Count) 2"
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

    It 'has three examples whose code parses and says the cmdlet''s name' {
        $examples = @($help.examples.example)
        $examples.Count | Should -BeGreaterOrEqual 3
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

Describe 'The about topics' {
    It 'are found by the names of qemu-img and of Hyper-V''s cmdlets, in a fresh shell' {
        $fresh = Invoke-FreshPwsh @"
            Import-Module '$ModuleManifest'
            foreach (`$name in 'about_DiskImage_Commands', 'qemu-img', 'Convert-VHD') {
                (Get-Help `$name | Out-String) -match 'about_DiskImage_Commands' -and (Get-Help `$name | Out-String) -match 'qemu-img convert[^\n]*Convert-DiskImage[\s\S]*Convert-VHD[^\n]*Convert-DiskImage'
            }
"@
        $fresh.Error | Should -BeNullOrEmpty
        $fresh.Output -split '\r?\n' | Should -Be 'True', 'True', 'True'
    }

    It 'name no cmdlet that there is not, and between them every one' {
        $text = Get-Content "$RepositoryRoot/docs/en-US/about_*.help.txt" -Raw
        $named = [regex]::Matches($text, '\b[A-Z][a-z]+-(DiskImage[A-Za-z]*|QemuImg)\b').Value | Sort-Object -Unique
        $windows = 'Mount-DiskImage', 'Dismount-DiskImage'
        $named | Where-Object { $_ -notin $exported -and $_ -notin $windows } | Should -BeNullOrEmpty
        $exported | Where-Object { $_ -notin $named } | Should -BeNullOrEmpty
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
