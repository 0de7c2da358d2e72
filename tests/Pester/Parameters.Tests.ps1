# Each parameter of each cmdlet is named by a test. One that cmdlets share is declared once, and a test with any of them is enough.
BeforeDiscovery {
    . "$PSScriptRoot/Common.ps1"
    $common = [System.Management.Automation.Cmdlet]::CommonParameters + [System.Management.Automation.Cmdlet]::OptionalCommonParameters
    # What Pester cannot try, and where it is tried.
    $elsewhere = @{ 'NewDiskImageCommand.Credential' = 'an SSH server that takes passwords: tests/Unit/Protocols/Ssh' }

    # For each cmdlet what a word after a dash, or a place in the order, stands for.
    $words, $places = @{}, @{}
    $declared = [Collections.Generic.SortedSet[string]]::new()
    foreach ($command in Get-Command -Module DiskImage) {
        $words[$command.Name] = @{}
        $places[$command.Name] = @{}
        foreach ($parameter in $command.Parameters.Values.Where{ $_.Name -notin $common }) {
            $property = $command.ImplementingType.GetProperty($parameter.Name)
            if (-not $property) {
                continue # one of a format's options: tested with the options
            }

            $key = "$($property.DeclaringType.Name).$($parameter.Name)"
            $null = $declared.Add($key)
            @($parameter.Name) + $parameter.Aliases | ForEach-Object { $words[$command.Name][$_] = $key }
            $parameter.Attributes.Where{ $_ -is [Parameter] -and $_.Position -ge 0 } | ForEach-Object { $places[$command.Name][$_.Position] = $key }
        }
    }

    # What tests name: -Parameter or a place in a call, and keys of tables in a file whose calls splat.
    $named = [Collections.Generic.HashSet[string]]::new([string[]]$elsewhere.Keys)
    foreach ($file in Get-ChildItem $PSScriptRoot -Filter *.Tests.ps1) {
        $ast = [System.Management.Automation.Language.Parser]::ParseFile($file.FullName, [ref]$null, [ref]$null)
        $found = $ast.FindAll({ $args[0] -is [System.Management.Automation.Language.CommandAst] -or $args[0] -is [System.Management.Automation.Language.HashtableAst] }, $true)
        $calls, $tables = $found.Where({ $_ -is [System.Management.Automation.Language.CommandAst] }, 'Split')
        $keys = @($tables.KeyValuePairs.Item1.Extent.Text)
        foreach ($call in $calls) {
            $name = "$($call.GetCommandName())"
            $isInterrupted = $name -eq 'Invoke-Interrupted' # which gets the cmdlet and a table
            $name = $isInterrupted ? $call.CommandElements[1].Extent.Text : $name
            if (-not $words.ContainsKey($name)) {
                continue
            }

            $parameters, $others = $call.CommandElements.Where({ $_ -is [System.Management.Automation.Language.CommandParameterAst] }, 'Split')
            $splats = $isInterrupted -or $others.Where{ $_ -is [System.Management.Automation.Language.VariableExpressionAst] -and $_.Splatted }
            foreach ($word in @($parameters.ParameterName) + ($splats ? $keys : @())) {
                if ($word -and $words[$name].ContainsKey($word)) {
                    $null = $named.Add($words[$name][$word])
                }
            }

            for ($place = 0; $place -lt $others.Count - 1; $place++) {
                if ($places[$name].ContainsKey($place)) {
                    $null = $named.Add($places[$name][$place])
                }
            }
        }
    }

    $missing = @($declared | Where-Object { -not $named.Contains($_) })
    $count = $declared.Count
    $stale = @($elsewhere.Keys | Where-Object { -not $declared.Contains($_) })
}

Describe 'Parameters' {
    It 'are named by a test, all of them' -ForEach @{ Missing = $missing; Count = $count; Stale = $stale } {
        $Stale | Should -BeNullOrEmpty
        $Count | Should -BeGreaterThan 150
        $Missing -join "`n" | Should -BeNullOrEmpty
    }
}
