"""The files in scripts/deploy: what systemd, Kubernetes and Compose say of them, and that they name what the service has."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from redis import Redis

from service import __version__
from service.http.api.routes import ROUTES
from service.process.embedded_redis import STOP_TIMEOUT
from service.process.worker_pool import DRAIN_GRACE
from service.setting_sources import CONFIG, SECRET_FILES
from service.settings import Settings, variable
from tests.support.redis_servers import BUNDLED
from tests.support.server import PATIENCE, until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "scripts" / "deploy"
FILES = sorted([*DEPLOY.glob("*.yaml"), *DEPLOY.glob("*.service")])
UNIT = (DEPLOY / "session-config-cache.service").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PORTS = {int(port) for port in re.findall(r"\d+", re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[0])}
(UID,) = map(int, re.findall(r"--uid (\d+)", DOCKERFILE))
VARIABLES = {variable(item.name) for item in fields(Settings)} | {variable(CONFIG), *SECRET_FILES.values()}
#: Seconds until a server has stopped: without the embedded Redis, and with it.
STOP = Settings().shutdown_timeout + DRAIN_GRACE
STOP_WITH_REDIS = STOP + STOP_TIMEOUT
IMAGE = f"session-config-cache:{__version__}"


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def test_the_files_are_those_that_are_tested() -> None:
    assert [path.name for path in FILES] == [
        "compose.embedded.yaml", "compose.redis.yaml", "kubernetes.yaml", "service-monitor.yaml",
        "session-config-cache.service",
    ]  # fmt: skip


@pytest.mark.parametrize("path", [*FILES, ROOT / "Dockerfile"], ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"\bSCC_[A-Z_]+", path.read_text(encoding="utf-8")))
    assert named - VARIABLES == set()
    assert named or path.name == "service-monitor.yaml"


# systemd

SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    SYSTEMD_ANALYZE is None and "CI" not in os.environ,
    reason="systemd-analyze is not on PATH; on Debian: apt-get install systemd",
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with the program where the tests have it."""
    path = tmp_path / "session-config-cache.service"
    program = Path(sys.executable).parent / "session-configs"
    path.write_text(UNIT.replace("/opt/session-config-cache/bin/session-configs", str(program)), encoding="utf-8")
    assert str(program) in path.read_text(encoding="utf-8")
    return path


def analyze(*words: str | Path) -> tuple[int, str]:
    assert SYSTEMD_ANALYZE is not None, "systemd-analyze is not on PATH"
    completed = subprocess.run([SYSTEMD_ANALYZE, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    return completed.returncode, completed.stdout + completed.stderr


@needs_systemd
def test_systemd_accepts_the_unit(unit: Path) -> None:
    # Of units of the machine, it may have other complaints.
    status, output = analyze("verify", "--man=no", unit)
    assert (status, [line for line in output.splitlines() if unit.stem in line]) == (0, [])


@needs_systemd
def test_systemd_would_notice_an_unknown_setting(unit: Path) -> None:
    unit.write_text(unit.read_text(encoding="utf-8").replace("KillMode=mixed", "KillMode=some"), encoding="utf-8")
    assert unit.stem in analyze("verify", "--man=no", unit)[1]


@needs_systemd
def test_the_sandbox_leaves_little_exposed(unit: Path) -> None:
    status, output = analyze("security", "--offline=true", "--threshold=20", unit)  # in tenths
    assert status == 0, output


def unit_values(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def test_the_unit_gives_the_server_time_to_stop_and_only_the_first_process_the_signal() -> None:
    assert int(unit_values("TimeoutStopSec")[0]) > STOP_WITH_REDIS
    assert unit_values("KillMode") == ["mixed"]
    assert unit_values("Type") == ["notify"]
    (state,) = unit_values("StateDirectory")
    assert f"SCC_DATA_DIR=/var/lib/{state}" in unit_values("Environment")


# Compose


@pytest.fixture(params=["compose.embedded.yaml", "compose.redis.yaml"])
def compose(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 - YAML is any value
    (document,) = documents(request.param)
    return document


def test_a_compose_file_builds_the_image_and_publishes_a_port_of_it_on_this_machine_only(compose: Any) -> None:  # noqa: ANN401
    server = compose["services"]["server"]
    assert (DEPLOY / server["build"] / "Dockerfile").exists()
    assert server["image"] == IMAGE
    for port in server["ports"]:
        address, _, inside = port.split(":")
        assert (address, int(inside) in PORTS) == ("127.0.0.1", True)
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]


def test_a_compose_file_gives_every_server_time_to_stop(compose: Any) -> None:  # noqa: ANN401
    server = compose["services"]["server"]
    has_redis = "SCC_REDIS_URL" in server["environment"]
    assert int(server["stop_grace_period"].removesuffix("s")) > (STOP if has_redis else STOP_WITH_REDIS)
    volumes = {volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])}
    assert volumes == set(compose["volumes"])
    if not has_redis:
        assert server["volumes"] == ["data:/data"]
        assert "SCC_DATA_DIR=/data\n" in DOCKERFILE


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """The bundled Valkey, started as the compose file starts its own."""
    (compose,) = documents("compose.redis.yaml")
    name, *words = compose["services"]["redis"]["command"]
    assert name == Path(BUNDLED.path).name
    socket = tmp_path / "redis.sock"
    command = [BUNDLED.path, *words, "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: socket.exists() or process.poll() is not None, "a Valkey")
        with Redis(unix_socket_path=str(socket), decode_responses=True) as client:
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_the_redis_of_the_compose_file_has_the_settings_that_operations_names(redis: Redis) -> None:
    wanted = {
        "appendonly": "yes", "maxmemory-policy": "noeviction", "set-max-intset-entries": "4096",
        "hash-max-listpack-value": "8192",
    }  # fmt: skip
    actual: Any = redis.config_get(*wanted)
    assert {name: actual[name] for name in wanted} == wanted
    operations = (ROOT / "service" / "OPERATIONS.md").read_text(encoding="utf-8")
    for name in ("maxmemory-policy noeviction", "set-max-intset-entries 4096", "hash-max-listpack-value 8192"):
        assert f"`{name}`" in operations


# Kubernetes

SERVICES = {each["metadata"]["name"]: each for each in documents("kubernetes.yaml") if each["kind"] == "Service"}
SERVICE, ADMIN_SERVICE = SERVICES["session-config-cache"], SERVICES["session-config-cache-admin"]
MANIFESTS = {document["kind"]: document for document in documents("kubernetes.yaml") if document["kind"] != "Service"}
POD = MANIFESTS["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
LABELS = POD["metadata"]["labels"]


@pytest.mark.parametrize(
    "manifest", documents("kubernetes.yaml"), ids=lambda each: f"{each['kind']} {each['metadata']['name']}"
)
def test_kubernetes_accepts_a_manifest(manifest: Any) -> None:  # noqa: ANN401
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_would_refuse_an_unknown_field() -> None:
    wrong = {**SERVICE, "spec": {**SERVICE["spec"], "port": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_everything_selects_the_pods_of_the_deployment() -> None:
    spec = MANIFESTS["Deployment"]["spec"]
    budget = MANIFESTS["PodDisruptionBudget"]["spec"]
    assert spec["selector"] == budget["selector"] == {"matchLabels": LABELS}
    assert [service["spec"]["selector"] for service in SERVICES.values()] == [LABELS, LABELS]
    assert budget["maxUnavailable"] < spec["replicas"]


def test_the_container_has_the_ports_user_and_routes_of_the_image() -> None:
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert set(ports.values()) == PORTS
    assert ports["http"] == Settings().port
    assert {port["targetPort"]: port["port"] for service in SERVICES.values() for port in service["spec"]["ports"]} == ports
    assert POD["spec"]["securityContext"]["runAsUser"] == UID
    assert CONTAINER["image"] == IMAGE
    probes = [CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert [probe["path"] for probe in probes] == ["/health", "/health", "/ready"]
    assert {(probe["path"], probe["port"]) for probe in probes} <= {(route.path, "http") for route in ROUTES}


def test_a_pod_has_time_to_stop() -> None:
    name, seconds = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert name == "sleep"
    assert POD["spec"]["terminationGracePeriodSeconds"] > int(seconds) + STOP


def test_the_secret_has_what_the_container_reads() -> None:
    (volume,) = POD["spec"]["volumes"]
    (mount,) = CONTAINER["volumeMounts"]
    mounted = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    assert {each["value"] for each in CONTAINER["env"] if each["name"] in SECRET_FILES.values()} == mounted
    from_secret = [each["valueFrom"]["secretKeyRef"] for each in CONTAINER["env"] if "valueFrom" in each]
    assert {each["name"] for each in from_secret} == {volume["secret"]["secretName"]}
    keys = {each["key"] for each in from_secret} | {item["key"] for item in volume["secret"]["items"]}
    operations = (ROOT / "service" / "OPERATIONS.md").read_text(encoding="utf-8")
    assert set(re.findall(r">scc-secrets/([\w-]+)", operations)) == keys
    # Other users of the machine see the arguments of a command.
    assert "--from-literal" not in operations


def test_only_a_service_inside_of_the_cluster_has_the_admin_port() -> None:
    assert [port["name"] for port in SERVICE["spec"]["ports"]] == ["http"]
    assert [port["name"] for port in ADMIN_SERVICE["spec"]["ports"]] == ["admin"]
    assert (ADMIN_SERVICE["spec"]["clusterIP"], ADMIN_SERVICE["spec"]["publishNotReadyAddresses"]) == ("None", True)


def test_the_service_monitor_reads_the_admin_port_once_as_the_job_of_the_alert_rules() -> None:
    (monitor,) = documents("service-monitor.yaml")
    (endpoint,) = monitor["spec"]["endpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert [each for each in SERVICES.values() if wanted <= each["metadata"]["labels"].items()] == [ADMIN_SERVICE]
    ports = {port["name"]: port["port"] for port in ADMIN_SERVICE["spec"]["ports"]}
    assert (ports[endpoint["port"]], endpoint["path"]) == (8030, "/metrics")
    job = ADMIN_SERVICE["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    rules = (DEPLOY / "prometheus-alerts.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'job="([^"]+)"', rules)) == {job}
