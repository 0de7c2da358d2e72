#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    Converts images in thread jobs, several at once, and shows how far all of them are.
.DESCRIPTION
    Each image is converted by a job of its own, at most -ThrottleLimit at once, and compared with its source before it gets its name. One
    conversion keeps all processors busy only if it compresses or decompresses, so several at once are worth it where the storage is far
    away. Returns what Convert-DiskImage returns, as the jobs end; an image that cannot be converted is an error, and the others go on.
.EXAMPLE
    Get-ChildItem *.vhdx | ./Convert-ImageParallel.ps1 -Destination out -DestinationFormat qcow2
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory, ValueFromPipelineByPropertyName)] [Alias('FullName')] [string[]] $Path,
    [Parameter(Mandatory)] [string] $Destination,
    [string] $DestinationFormat = 'qcow2',
    [int] $ThrottleLimit = 4
)

begin {
    $module = (Get-Module DiskImage).Path
    $folder = (New-Item $Destination -ItemType Directory -Force).FullName
    $jobs = [Collections.Generic.List[object]]::new()
}

process {
    foreach ($image in $Path) {
        $jobs.Add((Start-ThreadJob -Name (Split-Path $image -Leaf) -ThrottleLimit $ThrottleLimit -ScriptBlock {
                    Import-Module $using:module
                    Convert-DiskImage -LiteralPath $using:image -Destination $using:folder -DestinationFormat $using:DestinationFormat -Verify
                }))
    }
}

end {
    try {
        $waiting = @($jobs)
        while ($waiting) {
            $ended, $waiting = $waiting.Where({ $_.State -in 'Completed', 'Failed', 'Stopped' }, 'Split')
            foreach ($job in $ended) {
                Receive-Job $job
            }

            foreach ($job in $waiting) {
                $last = $job.Progress | Where-Object RecordType -EQ Processing | Select-Object -Last 1
                Write-Progress -Id (1000 + $job.Id) -ParentId 1 -Activity $job.Name -Status ($last.StatusDescription ?? $job.State) -PercentComplete ($last.PercentComplete ?? -1)
            }

            Write-Progress -Id 1 -Activity 'Converting' -Status "$($jobs.Count - $waiting.Count) of $($jobs.Count)" -PercentComplete (100 * ($jobs.Count - $waiting.Count) / $jobs.Count)
            $null = $waiting ? (Wait-Job $waiting -Any -Timeout 1) : $null
        }
    } finally {
        Write-Progress -Id 1 -Activity 'Converting' -Completed
        $jobs | Remove-Job -Force
    }
}
