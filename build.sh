#!/usr/bin/env bash
# build.ps1 for a machine that may lack PowerShell: ./build.sh -Task Build | Test | Demo | Bench | Package
# Uses pwsh from PATH, else the .NET tool named in .config/dotnet-tools.json, else runs all that needs no PowerShell
# and says in one line what was not run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

if command -v pwsh >/dev/null 2>&1; then
    exec pwsh -NoProfile -NonInteractive -File ./build.ps1 "$@"
fi

if dotnet tool restore >/dev/null 2>&1 </dev/null && dotnet tool run pwsh -- -NoProfile -Command exit >/dev/null 2>&1 </dev/null; then
    exec dotnet tool run pwsh -- -NoProfile -NonInteractive -File ./build.ps1 "$@"
fi

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
    echo "NOT RUN: $1, because there is no PowerShell 7.4 (neither pwsh on PATH nor the .NET tool)."
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
    not_run "the Pester tests ($pester It blocks, counted as skipped)"
    echo "$passed passed, $failed failed, $((skipped + pester)) skipped"
    [ "$failed" -eq 0 ]
}

case "${task,,}" in
    build) build ;;
    test) run_tests ;;
    demo) build && not_run 'the demo'; exit 1 ;;
    bench) not_run 'the comparison with qemu-img'; dotnet run --configuration Release --project bench/DiskImage.Bench.csproj -- --filter '*' ;;
    package) build && not_run 'the packaging'; exit 1 ;;
    *) echo "build.sh: unknown task $task; Build, Test, Demo, Bench or Package" >&2; exit 2 ;;
esac
