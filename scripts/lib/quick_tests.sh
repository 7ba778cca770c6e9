# Sourced by .ci/run after venv.sh: runs a selection of the tests on the Pythons that do not run all of them.
quick=(
    tests/unit tests/http tests/acceptance/test_sdk_python.py tests/acceptance/test_sdk_node.py
    tests/acceptance/test_processes.py::test_what_the_first_start_prints_can_be_pasted
)
# What runs on Redis 6.2 as well.
oldest=(tests/store tests/redis_client tests/acceptance/test_embedded_redis.py tests/acceptance/test_store_of_an_earlier_release.py)

# quick_tests_on_others PYTHON: runs the selection on the newest 3.11, 3.12, 3.13 and 3.14, except PYTHON's version, each in a
# separate virtual environment; prints which Pythons ran which tests.
quick_tests_on_others() {
    local full minor version python ran=
    full=$("$1" -c 'import platform; print(platform.python_version())')
    for minor in 14 13 12 11; do
        read -r version python < <(all_pythons | grep "^03$minor" | tail -n 1) || continue
        [ "${full%.*}" != "3.$minor" ] || continue
        venv=$root/.venv-3.$minor
        PYTHON=$python ensure_venv test
        echo "Quick tests on Python 3.$minor"
        "$venv/bin/python" -m pytest --numprocesses "$(test_processes)" --dist loadgroup "${quick[@]}"
        # The package with Redis 6.2, the oldest version that the store supports, has wheels only for Pythons before 3.13.
        if [ "$minor" -lt 13 ]; then "$venv/bin/python" -m pytest --numprocesses "$(test_processes)" "${oldest[@]}" -k redis-6.2; fi
        ran="$ran 3.$minor.$((10#${version:4}))"
    done
    echo "All tests ran on Python $full, the quick ones on:${ran:- no other}"
}

# quick_tests_at_lower_bounds: runs the selection with every dependency at its lower bound in pyproject.toml instead of the lock
# file's version, on the oldest supported Python, the only one for which all those versions have wheels.
quick_tests_at_lower_bounds() {
    local version python constraints
    read -r version python < <(all_pythons | head -n 1)
    venv=$root/.venv-lowest
    constraints=$(mktemp)
    "$python" -I "$root/scripts/lib/lower_bounds.py" >"$constraints"
    LOCKED='' PIP_CONSTRAINT=$constraints PYTHON=$python ensure_venv test
    rm "$constraints"
    echo "Quick tests on Python 3.$((10#${version:2:2})) with every dependency at its lower bound"
    "$venv/bin/python" -m pytest --numprocesses "$(test_processes)" --dist loadgroup "${quick[@]}"
}
