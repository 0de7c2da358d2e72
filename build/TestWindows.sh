#!/usr/bin/env bash
# Both suites in a Windows PowerShell under Wine: build/TestWindows.sh [unit] [NAME.Tests...]; without arguments all of it.
#
# Wants Debian's wine (installed here where that is possible), the built module in output/DiskImage and the built unit tests. The
# Wine prefix, with the Windows .NET runtime and PowerShell from NuGet packages, is made once, in output/windows; nothing outside that
# folder is changed. Names of Pester files narrow the run; `unit` stands for the unit tests. The last line sums up.
#
#   JOBS   Pester files at once (1)
#   LIMIT  seconds for one Pester file (900); the unit tests have ten times as long
#   CLASS  unit tests whose name begins with this alone
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD/output/windows
results=$PWD/TestResults/windows
drive=$root/prefix/drive_c
jobs=${JOBS:-1}
limit=${LIMIT:-900}
configuration=${CONFIGURATION:-Release}

export WINEPREFIX=$root/prefix WINEARCH=win64 WINEDEBUG=-all
export WINEDLLOVERRIDES='mshtml=' # or Wine asks to install a browser

die() {
    echo "TestWindows: $1" >&2
    exit 1
}

install_wine() {
    command -v wine >/dev/null && return
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
    { "${sudo[@]}" apt-get update -q && DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -q -y --no-install-recommends wine64 wine; } >/dev/null 2>&1 </dev/null
    command -v wine >/dev/null || die 'wine is missing; Debian has it as wine64 and wine'
}

# The folder of a restored package: name, version.
package() {
    echo "$packages/$1/$2"
}

make_prefix() {
    local packages framework powershell stamp core desktop name
    framework=$(sed -n 's#.*<FrameworkVersion>\(.*\)</FrameworkVersion>.*#\1#p' build/Windows.proj)
    powershell=$(tr -d ' \n' <.config/dotnet-tools.json | sed -n 's#.*"powershell":{"version":"\([^"]*\)".*#\1#p')
    stamp="$framework $powershell"
    [ "$(cat "$root/stamp" 2>/dev/null)" = "$stamp" ] && return

    echo "Making a Windows of PowerShell $powershell and .NET $framework in output/windows"
    rm -rf "$root"
    mkdir -p "$root"
    { dotnet restore build/Windows.proj -nologo -verbosity:quiet && dotnet tool restore >/dev/null; } || die 'its packages could not be restored'
    packages=$(dotnet msbuild build/Windows.proj -nologo -getProperty:NuGetPackageRoot)
    core=$(package microsoft.netcore.app.runtime.win-x64 "$framework")/runtimes/win-x64
    desktop=$(package microsoft.windowsdesktop.app.runtime.win-x64 "$framework")/runtimes/win-x64

    { wine wineboot -i && wine winecfg -v win10; } >/dev/null 2>&1 </dev/null
    wineserver -w
    [ -d "$drive" ] || die 'wine made no prefix'
    name=Microsoft.NETCore.App
    mkdir -p "$drive/dotnet/host/fxr/$framework" "$drive/dotnet/shared/$name/$framework" "$drive/dotnet/shared/Microsoft.WindowsDesktop.App/$framework"
    { cp "$core/native/hostfxr.dll" "$drive/dotnet/host/fxr/$framework/" \
        && cp "$core"/lib/net10.0/*.* "$core"/native/* "$drive/dotnet/shared/$name/$framework/" \
        && cp "$desktop"/lib/net10.0/*.* "$desktop"/native/* "$drive/dotnet/shared/Microsoft.WindowsDesktop.App/$framework/" \
        && cp -r "$(package powershell "$powershell")/tools/net10.0/any/win" "$drive/pwsh"; } || die 'its files could not be copied'
    echo "$stamp" >"$root/stamp"
}

# The Windows name of a file of this machine.
windows_path() {
    local path
    path=$(realpath "$1")
    echo "Z:${path//\//\\}"
}

# A script in the Windows PowerShell: seconds, log, script, arguments. Without a console PowerShell ends at once and says nothing, so
# script(1) gives it one; .NET under Wine fails unless pages may be written and run at once.
shell() {
    local seconds=$1 log=$2 command
    printf -v command ' %q' timeout -k 5 "$seconds" wine 'C:\pwsh\pwsh.exe' -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "$(windows_path "$3")" "${@:4}"
    TERM=xterm DOTNET_ROOT='C:\dotnet' DOTNET_EnableWriteXorExecute=0 POWERSHELL_TELEMETRY_OPTOUT=1 POWERSHELL_UPDATECHECK=Off PATHEXT='.COM;.EXE;.BAT;.CMD' \
        script -qec "$command >$(printf %q "$log") 2>&1" /dev/null >/dev/null 2>&1 </dev/null
}

# One number of a part's counts; a part that left none has failed: part, Passed | Failed | Skipped.
count() {
    if [ -f "$results/$1.json" ]; then
        grep -o "\"$2\": *[0-9]*" "$results/$1.json" | grep -o '[0-9]*$'
    elif [ "$2" = Failed ]; then
        echo 1
    else
        echo 0
    fi
}

if [ "${1:-}" = --one ]; then
    shell "$limit" "$results/$2.log" build/Pester.ps1 -Path "$(windows_path "tests/Pester/$2.Tests.ps1")" -Counts "$(windows_path "$results")\\$2.json" -Bare
    exit 0
fi

install_wine
make_prefix
rm -rf "$results"
mkdir -p "$results"
[ -f output/DiskImage/DiskImage.psd1 ] || die 'there is no module in output/DiskImage; build it first'

names=("$@")
if [ $# -eq 0 ]; then
    mapfile -t names < <(cd tests/Pester && ls -- *.Tests.ps1 | sed 's#\.Tests\.ps1$##')
    names=(unit "${names[@]}")
fi

pester=()
for name in "${names[@]}"; do
    if [ "$name" = unit ]; then
        shell $((limit * 10)) "$results/unit.log" build/UnitInShell.ps1 -Assembly "$(windows_path "tests/Unit/bin/$configuration/net10.0/DiskImage.Tests.dll")" \
            -Counts "$(windows_path "$results")\\unit.json" -Class "${CLASS:-}"
    else
        pester+=("$name")
    fi
done
[ ${#pester[@]} -eq 0 ] || printf '%s\n' "${pester[@]}" | xargs -P "$jobs" -I{} "$0" --one {}

passed=0 failed=0 skipped=0
for name in "${names[@]}"; do
    passed=$((passed + $(count "$name" Passed)))
    failed=$((failed + $(count "$name" Failed)))
    skipped=$((skipped + $(count "$name" Skipped)))
    [ "$(count "$name" Failed)" -eq 0 ] || echo "$name failed: see TestResults/windows/$name.log"
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
