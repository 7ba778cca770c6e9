"""The registration of users while Redis fails: which error a request gets, and what a failed withdrawal raises."""

from typing import cast

import pytest

from service.configs.limits import Limits
from service.errors import NotReplicated, StoreDamaged, StoreUnavailable, Unauthorized, WriteUncertain
from service.redis_client.client import RedisClient
from service.store.record import Project
from service.store.registration import UserRegistration


class FailingRedis:
    """Every call fails with `error`."""

    def __init__(self, error: Exception) -> None:
        self.calls = 0
        self._error = error

    async def call(self, *command: object, writes: bool) -> object:  # noqa: ARG002 - whatever the command
        self.calls += 1
        raise self._error


def registration_on(redis: FailingRedis) -> UserRegistration:
    return UserRegistration(cast("RedisClient", redis), Project("acme", "id"), Limits())


@pytest.mark.parametrize(
    ("error", "expected"),
    [(StoreUnavailable, WriteUncertain), (WriteUncertain, WriteUncertain), (NotReplicated, NotReplicated)],
)
async def test_a_user_that_cannot_be_confirmed_makes_the_create_uncertain_unless_it_was_only_not_replicated(
    error: type[StoreUnavailable], expected: type[StoreUnavailable]
) -> None:
    registration = registration_on(FailingRedis(error()))
    with pytest.raises(StoreUnavailable) as raised:
        await registration.confirm("alice")
    assert raised.type is expected
    assert not registration.is_registered("alice")


@pytest.mark.parametrize("error", [StoreUnavailable, WriteUncertain, NotReplicated, StoreDamaged, Unauthorized])
async def test_a_withdrawal_that_fails_raises_nothing(error: type[Exception]) -> None:
    redis = FailingRedis(error())
    await registration_on(redis).withdraw("alice", 1)
    assert redis.calls == 1
