using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace DiskImage.Tests.Protocols;

/// <summary>Certificates for tests, in files of the names that QEMU gives them.</summary>
internal static class Certificates
{
    /// <summary>An authority, and a server and a client that it vouches for.</summary>
    public static void Write(string folder)
    {
        using RSA key = RSA.Create(2048);
        var request = new CertificateRequest("CN=authority", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        using X509Certificate2 authority = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(30));
        File.WriteAllText(Path.Combine(folder, "ca-cert.pem"), authority.ExportCertificatePem());
        foreach ((string side, string use) in new[] { ("server", "1.3.6.1.5.5.7.3.1"), ("client", "1.3.6.1.5.5.7.3.2") })
        {
            using RSA own = RSA.Create(2048);
            var issued = new CertificateRequest($"CN={side}", own, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
            issued.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
            issued.CertificateExtensions.Add(
                new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature | X509KeyUsageFlags.KeyEncipherment, true));
            issued.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(use)], false));
            var names = new SubjectAlternativeNameBuilder();
            names.AddDnsName("localhost");
            names.AddIpAddress(IPAddress.Loopback);
            issued.CertificateExtensions.Add(names.Build());
            using X509Certificate2 made = issued.Create(
                authority, DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(20), RandomNumberGenerator.GetBytes(8));
            File.WriteAllText(Path.Combine(folder, $"{side}-cert.pem"), made.ExportCertificatePem());
            File.WriteAllText(Path.Combine(folder, $"{side}-key.pem"), own.ExportPkcs8PrivateKeyPem());
        }
    }
}
