#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    Makes an image stand alone: what it has from the images below it is put into one file, compared, and only then put in its place.
.DESCRIPTION
    The images below stay as they are, since others may stand on them. Nobody may use the image meanwhile. -WhatIf tells what would be done.
    Returns the image as it is then; one that stands alone already is left as it is.
.EXAMPLE
    Get-ChildItem vms/*.qcow2 | ./Merge-ImageChain.ps1 -MinimumDepth 4
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [Parameter(Mandatory, ValueFromPipelineByPropertyName)] [Alias('FullName')] [string[]] $Path,
    # Images with fewer than so many in their chain are left alone.
    [int] $MinimumDepth = 2,
    [switch] $Compress
)

process {
    foreach ($image in $Path) {
        $chain = @(Get-DiskImageInfo -LiteralPath $image -BackingChain)
        if ($chain.Count -lt $MinimumDepth -or -not $PSCmdlet.ShouldProcess($image, "Flatten $($chain.Count) images into one")) {
            continue
        }

        $image = (Get-Item -LiteralPath $image).FullName
        $flat = "$image.flat"
        $null = New-Item $flat -ItemType File -ErrorAction Stop
        try {
            if (-not $IsWindows) {
                [IO.File]::SetUnixFileMode($flat, [IO.File]::GetUnixFileMode($image)) # what replaces this file is protected as it is
            }

            $null = Convert-DiskImage -LiteralPath $image -Destination $flat -DestinationFormat $chain[0].Format -Compress:$Compress -Verify -Durable -Force -ErrorAction Stop
            [IO.File]::Move($flat, $image, $true) # in one step: at any moment one of the two has the name
            Get-DiskImageInfo -LiteralPath $image
        } catch {
            Remove-Item -LiteralPath $flat -ErrorAction Ignore
            Write-Error $_
        }
    }
}
