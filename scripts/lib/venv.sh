# Sourced by the scripts: creates a virtual environment and keeps it up to date with pyproject.toml.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/.venv
pyenv=${PYENV_ROOT:-~/.pyenv}

fail() {
    echo "$1" >&2
    exit 1
}

# probe PYTHON [CONDITION]: prints its version, padded for sorting, and the path of the real interpreter, as PYTHON may be a shim
# or in a virtual environment. Prints nothing if it does not start, is too old, or cannot install packages: Debian packages
# ensurepip separately, and a Python built without OpenSSL or libffi has no ssl or ctypes.
probe() {
    "$1" -I -c "
import sys
if sys.version_info >= (3, 11) and (${2:-True}):
    import ctypes, ensurepip, ssl, venv
    print('%02d%02d%03d' % sys.version_info[:3], sys._base_executable)" </dev/null 2>/dev/null || true
}

# The Pythons for which the dependencies have wheels. PYTHON= may name others: a pre-release, a free-threaded build, a 3.15.
supported="sys.version_info < (3, 15) and sys.version_info.releaselevel == 'final' \
and sys.implementation.name == 'cpython' and 't' not in sys.abiflags"

# Prints version and path of each supported Python on PATH or installed by pyenv, the newest last; may print one twice.
all_pythons() {
    local candidate
    { type -aP python3 python python3.{11..14} || true; printf '%s\n' "$pyenv"/versions/*/bin/python3; } |
        while read -r candidate; do probe "$candidate" "$supported"; done | sort
}

# Prints the Python to use: PYTHON if set, else the newest supported one.
find_python() {
    local newest
    if [ -n "${PYTHON:-}" ]; then
        newest=$(probe "$PYTHON")
        [ -n "$newest" ] || fail "PYTHON=$PYTHON is not a Python 3.11 or newer that can create a virtual environment; \
on Debian and Ubuntu: apt-get install python3-venv"
    else
        newest=$(all_pythons | tail -n 1)
        [ -n "$newest" ] || fail "no Python 3.11 to 3.14 on PATH or in $pyenv/versions can create a virtual environment; \
on Debian and Ubuntu: apt-get install python3-venv; or use another one: PYTHON=/path/to/python3 $0"
    fi
    echo "${newest#* }"
}

# Prints version and prefix of a Python, equal for a virtual environment and the Python that created it; nothing if it does not start.
identity() {
    "$1" -I -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.base_prefix)' </dev/null 2>/dev/null || true
}

# install [test|bench]: installs the package and its dependencies. With LOCKED=1, the versions and hashes of the lock file (there is
# none for bench); else the newest versions that pyproject.toml allows, so that it works on any machine.
install() {
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    if [ -n "${LOCKED:-}" ]; then
        # A relative path, because pip expands `${…}` in paths.
        (cd "$root" && "${pip[@]}" --require-hashes --requirement "scripts/lib/requirements${1:+-$1}.txt")
        pip+=(--no-deps)
    fi
    # Without egg_base, setuptools writes its metadata to the checkout. The paths are relative because setuptools interpolates `%`,
    # and pip reads `[…]` at the end of a path as extras.
    printf '[egg_info]\negg_base = %s\n' "${venv#"$root"/}" >"$venv/build.cfg"
    (cd "$root" && DIST_EXTRA_CONFIG=$venv/build.cfg "${pip[@]}" --editable ".${1:+[$1]}")
}

# ensure_venv [test|bench]: makes sure that the package is installed, with the dependencies of the tests or the benchmark if given.
# A working environment is kept, even if a newer Python has been installed since, unless PYTHON names another one.
ensure_venv() {
    local extra=${1:-} stamp=$venv/.installed sum made_by installed python
    sum=$(cksum <"$root/pyproject.toml")
    [ -z "${LOCKED:-}" ] || sum="$sum locked $(cat "$root"/scripts/lib/requirements*.txt | cksum)"
    # The installation points to the checkout. After an upgrade of the system's Python, the environment starts without its packages.
    made_by="$(identity "$venv/bin/python") $root"
    installed=$(cat "$stamp" 2>/dev/null) || installed=
    if [ -n "${PYTHON:-}" ] && [ "$(identity "$PYTHON") $root" != "$made_by" ]; then installed=; fi
    case "$installed" in
        "$made_by $sum:"*" ${extra:-base} "*) return ;;
    esac
    echo "Installing into $venv (once; a minute or so) ..." >&2
    case "$installed" in
        "$made_by $sum:"*) ;; # adding an extra keeps the others
        "$made_by "*) installed="$made_by $sum: base " ;;
        *)
            python=$(find_python)
            "$python" -I -m venv --clear "$venv"
            installed="$(identity "$venv/bin/python") $root $sum: base "
            ;;
    esac
    install "$extra"
    echo "$installed${extra:+$extra }" >"$stamp"
}

# Two test processes for each core: the tests mostly wait, for servers to start or for time to pass.
test_processes() {
    "$venv/bin/python" -c 'import os; print(2 * (os.cpu_count() or 1))'
}
