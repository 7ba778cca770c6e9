"""Acontext's TypeScript SDK against the server; the steps are in sdk.mjs. Without Node these tests fail."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.http import Api
from tests.support.server import PATIENCE

HERE = Path(__file__).parent
NAME = "@acontext/acontext"


@pytest.fixture(scope="session")
def node() -> str:
    """The `node` program, with the SDK of package.json installed next to sdk.mjs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node, "node is not on PATH; this test runs the TypeScript SDK: install Node 18 or newer"
    assert npm, "npm is not on PATH; it comes with Node 18 or newer"
    with (HERE / "package.json").open(encoding="utf-8") as package:
        # Several test processes would install it concurrently.
        fcntl.flock(package, fcntl.LOCK_EX)
        required_version = json.load(package)["dependencies"][NAME]
        installed = HERE / "node_modules" / NAME / "package.json"
        if not installed.exists() or json.loads(installed.read_text(encoding="utf-8"))["version"] != required_version:
            install = [npm, "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
            run = subprocess.run(install, cwd=HERE, capture_output=True, text=True, timeout=5 * PATIENCE, check=False)
            assert run.returncode == 0, f"npm could not install {NAME}@{required_version}:\n{run.stderr}"
    return node


def test_the_typescript_sdk_works_unchanged(node: str, api: Api) -> None:
    run = subprocess.run(
        [node, "sdk.mjs"],
        cwd=HERE,
        env=os.environ | {"BASE_URL": api.server.base_url, "API_KEY": api.key},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "all 10 steps hold"
