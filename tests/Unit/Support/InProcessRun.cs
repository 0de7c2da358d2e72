using System.Collections.Concurrent;
using System.Diagnostics;
using System.Reflection;
using Xunit.Abstractions;
using Xunit.Sdk;

namespace DiskImage.Tests.Support;

/// <summary>Runs this assembly's tests in the process that loaded it: for a shell on a machine that has no test host.</summary>
public static class InProcessRun
{
    private static readonly TimeSpan s_long = TimeSpan.FromMinutes(1);

    /// <summary>
    /// Runs the tests whose full name, behind DiskImage.Tests, begins with a prefix; writes a line for each that does not pass, and every
    /// minute one for each that has been running for longer, so that a run that is ended from outside says which test it waited for.
    /// </summary>
    public static InProcessCounts Run(string prefix, TextWriter output)
    {
        using var framework = new XunitTestFramework(new Sink(_ => { }));
        Assembly assembly = typeof(InProcessRun).Assembly;
        // the host's property: where tests find their data
        AppContext.SetData("APP_CONTEXT_BASE_DIRECTORY", Path.GetDirectoryName(assembly.Location));
        var options = new Options();
        options.SetValue("xunit.execution.MaxParallelThreads", Environment.ProcessorCount);
        options.SetValue("xunit.execution.SynchronousMessageReporting", true);

        var found = new List<ITestCase>();
        using var discovered = new ManualResetEventSlim();
        using ITestFrameworkDiscoverer discoverer = framework.GetDiscoverer(Reflector.Wrap(assembly));
        discoverer.Find(includeSourceInformation: false, new Sink(message => Discover(message, found, discovered)), options);
        discovered.Wait();

        var counts = new InProcessCounts();
        var running = new ConcurrentDictionary<string, long>(StringComparer.Ordinal);
        using var watch = new Timer(_ => TellLong(running, output), state: null, s_long, s_long);
        using var finished = new ManualResetEventSlim();
        using ITestFrameworkExecutor executor = framework.GetExecutor(assembly.GetName());
        executor.RunTests(
            found.Where(test => test.TestMethod.TestClass.Class.Name.StartsWith(
                $"{nameof(DiskImage)}.{nameof(Tests)}.{prefix}", StringComparison.Ordinal)),
            new Sink(message =>
            {
                Watch(message, running);
                Count(message, counts, output, finished);
            }),
            options);
        finished.Wait();
        return counts;
    }

    private static void Discover(IMessageSinkMessage message, List<ITestCase> found, ManualResetEventSlim done)
    {
        switch (message)
        {
            case ITestCaseDiscoveryMessage test:
                found.Add(test.TestCase);
                break;
            case IDiscoveryCompleteMessage:
                done.Set();
                break;
        }
    }

    private static void Watch(IMessageSinkMessage message, ConcurrentDictionary<string, long> running)
    {
        switch (message)
        {
            case ITestStarting test:
                running[test.Test.DisplayName] = Stopwatch.GetTimestamp();
                break;
            case ITestFinished test:
                _ = running.TryRemove(test.Test.DisplayName, out _);
                break;
        }
    }

    private static void TellLong(ConcurrentDictionary<string, long> running, TextWriter output)
    {
        foreach ((string name, long started) in running)
        {
            if (Stopwatch.GetElapsedTime(started) is var elapsed && elapsed > s_long)
            {
                output.WriteLine($"RUNNING for {elapsed.TotalSeconds:F0} s: {name}");
            }
        }
    }

    private static void Count(IMessageSinkMessage message, InProcessCounts counts, TextWriter output, ManualResetEventSlim done)
    {
        lock (counts)
        {
            switch (message)
            {
                case ITestPassed:
                    counts.Passed++;
                    break;
                case ITestSkipped test:
                    counts.Skipped++;
                    output.WriteLine($"SKIPPED {test.Test.DisplayName}: {test.Reason}");
                    break;
                case ITestFailed test:
                    counts.Failed++;
                    output.WriteLine($"FAILED {test.Test.DisplayName}: {string.Join('\n', test.ExceptionTypes)}: "
                        + $"{string.Join('\n', test.Messages)}\n{string.Join('\n', test.StackTraces)}");
                    break;
                case IErrorMessage or ITestAssemblyCleanupFailure or ITestCollectionCleanupFailure or ITestClassCleanupFailure:
                    counts.Failed++;
                    output.WriteLine($"FAILED outside a test: {string.Join('\n', ((IFailureInformation)message).Messages)}");
                    break;
                case ITestAssemblyFinished:
                    done.Set();
                    break;
            }
        }
    }

    private sealed class Sink(Action<IMessageSinkMessage> act) : LongLivedMarshalByRefObject, IMessageSink
    {
        public bool OnMessage(IMessageSinkMessage message)
        {
            act(message);
            return true;
        }
    }

    private sealed class Options : ITestFrameworkDiscoveryOptions, ITestFrameworkExecutionOptions
    {
        private readonly Dictionary<string, object?> _values = new(StringComparer.Ordinal);

        public TValue GetValue<TValue>(string name) => _values.TryGetValue(name, out object? value) ? (TValue)value! : default!;

        public void SetValue<TValue>(string name, TValue value) => _values[name] = value;
    }
}

/// <summary>How many tests ended how.</summary>
public sealed class InProcessCounts
{
    public int Passed { get; set; }

    public int Failed { get; set; }

    public int Skipped { get; set; }
}
