"""The model of what a client owns beside sessions: users, and its members of objects that others change as well."""

import time
from collections.abc import Iterable, Mapping

from tests.soak.differences import Difference
from tests.soak.values import Values, merged


class OwnUser:
    """One user of one client: whether the server knows them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known = {False}
        #: When a request that may have changed it got no answer (monotonic seconds).
        self.doubted: float | None = None

    def is_now(self, known: bool) -> None:
        """An answer says so."""
        self.known, self.doubted = {known}, None

    def may_be(self, known: bool) -> None:
        """No answer came."""
        if known not in self.known:
            self.known.add(known)
        self.doubted = time.monotonic()

    def hold(self, known: bool, where: str) -> None:
        """Raise Difference unless the server may know, or not know, the user.

        Raises:
            Difference: as it says.
        """
        if known not in self.known:
            raise Difference(f"user {self.name!r} is {'' if known else 'not '}{where}, and should be otherwise")


class Share:
    """The members of an object that one client alone sets and removes; the others leave them as they are."""

    def __init__(self, name: str, keys: Iterable[str]) -> None:
        self.name = name
        self.keys = tuple(keys)
        self.doubted: float | None = None
        #: What may be there.
        self.possible: list[Values] = [{}]

    def changed(self, changes: Values, shown: Mapping[str, str]) -> None:
        """An answer to a change shows all members.

        Raises:
            Difference: not as they must be.
        """
        self.possible = [merged(each, changes) for each in self.possible]
        self.shown(shown)

    def shown(self, shown: Mapping[str, str]) -> None:
        """An answer shows all members.

        Raises:
            Difference: not as they may be.
        """
        own = {key: shown[key] for key in self.keys if key in shown}
        if own not in self.possible:
            raise Difference(f"{self.name} has {own}, and should have {' or '.join(map(str, self.possible))}")
        if self.doubted is None:
            self.possible = [own]

    def may_change(self, changes: Values) -> None:
        """No answer came to a change."""
        self.possible += [merged(each, changes) for each in self.possible]
        self.doubted = time.monotonic()

    def settle(self) -> None:
        """What was in doubt has happened or never will: the next answer tells which."""
        self.doubted = None
