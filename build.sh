#!/usr/bin/env bash
# build.ps1 for a machine that may lack PowerShell: ./build.sh -Task Build | Test | TestWindows | Demo | Bench | Package
# Nothing but the .NET SDK is needed: PowerShell is a pwsh on PATH that is new enough, else the .NET tool that
# .config/dotnet-tools.json pins, restored here. Where neither is to be had, all that needs no PowerShell runs, and one line says
# what was not run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1

wanted=7.6 # as #requires in build.ps1

# Exits with 0 if the PowerShell that the arguments start can run build.ps1.
is_new_enough() {
    "$@" -NoProfile -NonInteractive -Command "exit [int](\$PSVersionTable.PSVersion -lt [version]'$wanted')" >/dev/null 2>&1 </dev/null
}

if command -v pwsh >/dev/null 2>&1 && is_new_enough pwsh; then
    exec pwsh -NoProfile -NonInteractive -File ./build.ps1 "$@"
fi

if tool_log=$(dotnet tool restore 2>&1 </dev/null) && is_new_enough dotnet tool run pwsh --; then
    exec dotnet tool run pwsh -- -NoProfile -NonInteractive -File ./build.ps1 "$@"
fi

echo "build.sh: PowerShell could not be restored as a .NET tool: ${tool_log##*$'\n'}" >&2

task=Build
configuration=Release
quick=false
while [ $# -gt 0 ]; do
    case "${1,,}" in
        -task) task="${2:?-Task needs a name}"; shift ;;
        -configuration) configuration="${2:?-Configuration needs a name}"; shift ;;
        -quick) quick=true ;;
        -*) echo "build.sh: unknown option $1" >&2; exit 2 ;;
        *) task="$1" ;;
    esac
    shift
done

build() {
    dotnet msbuild build/Build.proj -nologo -verbosity:minimal "-p:Configuration=$configuration" "-p:Quick=$quick"
}

not_run() {
    echo "NOT RUN: $1, because there is no PowerShell $wanted (neither pwsh on PATH nor the .NET tool)."
}

# The sum of one counter over the unit tests' result files.
counter() {
    cat TestResults/unit*.trx 2>/dev/null | grep -o '<Counters [^>]*>' | grep -o " $1=\"[0-9]*\"" | grep -o '[0-9]*' | awk '{ n += $1 } END { print n + 0 }'
}

run_tests() {
    local failed passed skipped pester broken=0
    rm -rf TestResults
    dotnet test DiskImage.sln --configuration "$configuration" --nologo --results-directory TestResults \
        --logger 'trx;LogFilePrefix=unit' --blame-hang-timeout 8m --blame-hang-dump-type none || broken=1
    passed=$(counter passed)
    failed=$(($(counter executed) - passed))
    skipped=$(($(counter total) - $(counter executed)))
    # A run that broke before it could count is a failure too, and so is a module that does not build.
    [ "$failed" -gt 0 ] || failed=$broken
    build || failed=$((failed + 1))

    pester=$(cat tests/Pester/*.Tests.ps1 | grep -cE '^[[:space:]]*It[[:space:]]')
    # Named here once more: a log's end is what one reads, and all that some keep.
    cat TestResults/unit*.trx 2>/dev/null | grep -o '<UnitTestResult [^>]*outcome="Failed"[^>]*>' | sed 's/.* testName="\([^"]*\)".*/FAILED \1/'
    not_run "the Pester tests ($pester It blocks, counted as skipped)"
    echo "$passed passed, $failed failed, $((skipped + pester)) skipped"
    [ "$failed" -eq 0 ]
}

case "${task,,}" in
    build) build ;;
    test) run_tests ;;
    testwindows) not_run 'the tests in a Windows PowerShell'; exit 1 ;;
    demo) build && not_run 'the demo'; exit 1 ;;
    bench) not_run 'the comparison with qemu-img'; dotnet run --configuration Release --project bench/DiskImage.Bench.csproj -- --filter '*' ;;
    package) build && not_run 'the packaging'; exit 1 ;;
    *) echo "build.sh: unknown task $task; Build, Test, TestWindows, Demo, Bench or Package" >&2; exit 2 ;;
esac
