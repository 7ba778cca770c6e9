"""The model of what a client owns besides sessions: users, and members of its own in objects that other clients change too."""

import time
from collections.abc import Iterable, Mapping

from tests.soak.values import Values
from tests.support.http_client import Violation
from tests.support.model import merged


class UserModel:
    """One user of one client, who exists, does not exist, or may exist."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._possible = {False}
        #: When a request that may have changed it got no response (monotonic seconds).
        self.indeterminate_since: float | None = None

    def set_exists(self, exists: bool) -> None:
        """A response says whether the user exists."""
        self._possible, self.indeterminate_since = {exists}, None

    def may_exist(self, exists: bool) -> None:
        """A request that makes the user exist, or not, got no response."""
        self._possible.add(exists)
        self.indeterminate_since = time.monotonic()

    def check(self, exists: bool, where: str) -> None:
        """Compare a response with the model.

        Raises:
            Violation: the user must exist and does not, or the other way round.
        """
        if exists not in self._possible:
            raise Violation(f"user {self.name!r} is {'' if exists else 'not '}{where}, and should be otherwise")


class OwnMembers:
    """The members of an object that one client alone sets and removes; the other clients leave them alone."""

    def __init__(self, name: str, keys: Iterable[str]) -> None:
        self.name = name
        self.keys = tuple(keys)
        self.indeterminate_since: float | None = None
        #: The values that they may have.
        self.possible: list[Values] = [{}]

    def change(self, changes: Values, actual: Mapping[str, str]) -> None:
        """The response to a change has `actual` as all members of the object.

        Raises:
            Violation: they are not as they must be.
        """
        self.possible = [merged(each, changes) for each in self.possible]
        self.check(actual)

    def check(self, actual: Mapping[str, str]) -> None:
        """A response has `actual` as all members of the object.

        Raises:
            Violation: they are not as they may be.
        """
        members = {key: actual[key] for key in self.keys if key in actual}
        if members not in self.possible:
            raise Violation(f"{self.name} has {members}, and should have {' or '.join(map(str, self.possible))}")
        if self.indeterminate_since is None:
            self.possible = [members]

    def may_change(self, changes: Values) -> None:
        """A change got no response."""
        self.possible += [merged(each, changes) for each in self.possible]
        self.indeterminate_since = time.monotonic()

    def settle(self) -> None:
        """Every write without a response has happened or never will: the next response determines which."""
        self.indeterminate_since = None
