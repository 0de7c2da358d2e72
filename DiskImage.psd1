@{
    RootModule           = 'DiskImage.psm1'
    # The build stamps the version from VersionPrefix in Directory.Build.props.
    ModuleVersion        = '0.0.0'
    GUID                 = '19f295b3-fd43-499c-983b-77cec8e7d703'
    Author               = 'The DiskImage authors'
    CompanyName          = 'The DiskImage authors'
    Copyright            = 'The DiskImage authors. MIT license.'
    Description          = 'Creates, converts, compares, checks, describes and patches disk images: the work of qemu-img, in managed code, on Windows, Linux and macOS, with objects instead of text.'

    CompatiblePSEditions = @('Core')
    PowerShellVersion    = '7.6'

    FormatsToProcess     = @('DiskImage.Format.ps1xml')
    TypesToProcess       = @('DiskImage.Types.ps1xml')

    CmdletsToExport      = @(
        'Add-DiskImageKeySlot'
        'Clear-DiskImageBitmap'
        'Compare-DiskImage'
        'Convert-DiskImage'
        'Copy-DiskImage'
        'Disable-DiskImageBitmap'
        'Enable-DiskImageBitmap'
        'Get-DiskImageBitmap'
        'Get-DiskImageDevice'
        'Get-DiskImageExport'
        'Get-DiskImageFormat'
        'Get-DiskImageHash'
        'Get-DiskImageInfo'
        'Get-DiskImageIscsiTarget'
        'Get-DiskImageKeySlot'
        'Get-DiskImageLock'
        'Get-DiskImageMap'
        'Get-DiskImageSnapshot'
        'Invoke-QemuImg'
        'Measure-DiskImage'
        'Measure-DiskImagePerformance'
        'Merge-DiskImage'
        'Merge-DiskImageBitmap'
        'New-DiskImage'
        'New-DiskImageBitmap'
        'New-DiskImageSnapshot'
        'Optimize-DiskImage'
        'Read-DiskImage'
        'Remove-DiskImageBitmap'
        'Remove-DiskImageKeySlot'
        'Remove-DiskImageSnapshot'
        'Repair-DiskImage'
        'Resize-DiskImage'
        'Restore-DiskImageSnapshot'
        'Set-DiskImageBacking'
        'Set-DiskImageOption'
        'Show-DiskImageMap'
        'Start-DiskImageExport'
        'Stop-DiskImageExport'
        'Test-DiskImage'
        'Test-DiskImageSecret'
        'Write-DiskImage'
    )
    FunctionsToExport    = @()
    AliasesToExport      = @()
    VariablesToExport    = @()

    PrivateData          = @{
        PSData = @{
            Tags         = @('disk', 'image', 'virtual-disk', 'qcow2', 'vhd', 'vhdx', 'raw', 'qemu', 'qemu-img', 'kvm', 'hyper-v', 'azure', 'convert', 'virtualization', 'Windows', 'Linux', 'MacOS', 'PSEdition_Core')
            # The build stamps these from ProjectUrl in Directory.Build.props, or leaves them out where it is empty.
            LicenseUri   = '{ProjectUrl}/blob/main/LICENSE'
            ProjectUri   = '{ProjectUrl}'
            ReleaseNotes = 'CHANGELOG.md in the folder of the module says what is new.'
        }
    }
}
