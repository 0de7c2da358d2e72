using System.Management.Automation;
using System.Management.Automation.Host;
using System.Security;

namespace DiskImage.PowerShell;

/// <summary>Asks for a secret where somebody is there to answer.</summary>
internal static class SecretQuestion
{
    /// <summary>The answer; null if nobody can be asked. To be called on the pipeline thread.</summary>
    public static SecureString? Ask(PSHost host, string question)
    {
        bool isNobodyThere = !Environment.UserInteractive || Console.IsInputRedirected || host.UI is null
            || Environment.GetCommandLineArgs().Any(a => a.StartsWith("-noni", StringComparison.OrdinalIgnoreCase));
        if (isNobodyThere)
        {
            return null;
        }
        try
        {
            host.UI!.Write(question);
            return host.UI.ReadLineAsSecureString();
        }
        catch (SystemException e) when (e is not PipelineStoppedException) // each host has its own way to say that it cannot ask
        {
            return null;
        }
    }
}
