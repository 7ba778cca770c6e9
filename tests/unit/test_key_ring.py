"""API keys that a worker remembers: for how long, how many, and when Redis is asked again. The clock is the test's."""

from types import SimpleNamespace
from typing import cast

import pytest

from service.errors import Unauthorized
from service.redis_client.client import RedisClient
from service.store import api_keys, manifest
from service.store.api_keys import KEY_MAX, KEY_TTL, ApiKeys, KeyRing
from service.store.record import Project

ACME, BOLT = Project("acme", "id-of-acme"), Project("bolt", "id-of-bolt")


class FakeRegistry:
    """Knows the project of each key. Each look-up takes `delay` seconds of the fake clock."""

    def __init__(self) -> None:
        self.redis = cast("RedisClient", None)
        self.projects = {"sk-ac-1": ACME, "sk-ac-2": BOLT}
        self.lookups = 0
        self.now = 100.0
        self.delay = 0.0

    async def load(self, key: str) -> Project | None:
        self.lookups += 1
        project = self.projects.get(key)
        self.now += self.delay
        return project


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    registry = FakeRegistry()

    async def confirm(*_: object) -> None:
        """The store is as it was."""

    monkeypatch.setattr(api_keys, "time", SimpleNamespace(monotonic=lambda: registry.now))
    monkeypatch.setattr(manifest, "confirm", confirm)
    return registry


@pytest.fixture
def ring(registry: FakeRegistry) -> KeyRing[Project]:
    return KeyRing(cast("ApiKeys", registry), lambda project, _: project)


async def test_a_key_is_remembered_for_its_time_and_looked_up_again_afterwards(
    registry: FakeRegistry, ring: KeyRing[Project]
) -> None:
    for at, lookups in ((100.0, 1), (100.0 + KEY_TTL - 0.01, 1), (100.0 + KEY_TTL, 2), (100.0 + 1.5 * KEY_TTL, 2)):
        registry.now = at
        assert await ring.authenticate("Bearer sk-ac-1") == ACME
        assert registry.lookups == lookups


async def test_a_key_is_trusted_from_the_moment_of_the_question_and_not_of_the_answer(
    registry: FakeRegistry, ring: KeyRing[Project]
) -> None:
    registry.delay = KEY_TTL / 2
    await ring.authenticate("Bearer sk-ac-1")
    registry.now = 100.0 + KEY_TTL
    del registry.projects["sk-ac-1"]
    with pytest.raises(Unauthorized):
        await ring.authenticate("Bearer sk-ac-1")


async def test_a_new_look_up_can_be_asked_for(registry: FakeRegistry, ring: KeyRing[Project]) -> None:
    await ring.authenticate("Bearer sk-ac-1")
    registry.projects["sk-ac-1"] = BOLT
    assert await ring.authenticate("Bearer sk-ac-1") == ACME
    assert await ring.authenticate("Bearer sk-ac-1", anew=True) == BOLT
    assert await ring.authenticate("Bearer sk-ac-1") == BOLT
    assert registry.lookups == 2


async def test_a_revoked_key_is_forgotten_and_a_refusal_is_not_remembered(
    registry: FakeRegistry, ring: KeyRing[Project]
) -> None:
    await ring.authenticate("Bearer sk-ac-1")
    assert ring.project_of("Bearer sk-ac-1") == "acme"
    project = registry.projects.pop("sk-ac-1")
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await ring.authenticate("Bearer sk-ac-1", anew=True)
        assert ring.project_of("Bearer sk-ac-1") == ""
    registry.projects["sk-ac-1"] = project
    assert await ring.authenticate("Bearer sk-ac-1") == ACME
    assert registry.lookups == 4


async def test_no_more_keys_are_remembered_than_allowed(
    registry: FakeRegistry, ring: KeyRing[Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "KEYS_REMEMBERED", 3)
    headers = [f"Bearer sk-ac-{number}" for number in range(10, 20)]
    registry.projects |= {header.removeprefix("Bearer "): ACME for header in headers}
    for header in headers:
        await ring.authenticate(header)
        assert ring.project_of(header) == "acme"
        assert sum(bool(ring.project_of(each)) for each in headers) <= 3


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "sk-ac-1",
        "Basic sk-ac-1",
        "Bearer sk-1",
        "Bearer sk-ac-é",
        f"Bearer sk-ac-{'x' * (KEY_MAX - 5)}",
    ],
)
async def test_what_cannot_be_a_key_is_refused_without_a_look_up(
    registry: FakeRegistry, ring: KeyRing[Project], header: str
) -> None:
    with pytest.raises(Unauthorized):
        await ring.authenticate(header)
    assert registry.lookups == 0


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case_and_the_longest_key_is_looked_up(
    registry: FakeRegistry, ring: KeyRing[Project], scheme: str
) -> None:
    key = "sk-ac-".ljust(KEY_MAX, "x")
    registry.projects[key] = ACME
    assert await ring.authenticate(f"{scheme} {key}") == ACME
