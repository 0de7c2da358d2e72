using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Operations;

/// <summary>
/// Who asks for an operation and hears of it: a cmdlet, a command line. It words what can be done (<see cref="Remedy"/>) in its own way.
/// </summary>
public interface IFrontEnd
{
    /// <summary>Opens an image within the user's bounds, and tells what there is to tell of it.</summary>
    Task<OpenedImage> OpenAsync(OpenRequest request, CancellationToken cancellationToken);

    /// <summary>Tells what the user should know.</summary>
    ValueTask WarnAsync(Wording text);

    /// <summary>Tells what was decided and why, for whoever wants to hear it.</summary>
    ValueTask ExplainAsync(Wording text);

    /// <summary>Runs a job with its progress shown.</summary>
    /// <typeparam name="T">What the job returns.</typeparam>
    /// <param name="activity">What is done to which image.</param>
    /// <param name="job">The work.</param>
    Task<T> ShowAsync<T>(string activity, Func<IProgress<JobProgress>, Task<T>> job);
}
