"""Acontext's calls that this service does not implement."""

from collections.abc import Awaitable, Callable

from service.errors import NotServed
from service.http.answer import Answer
from service.http.context import Call


def not_served(noun: str, *, plural: bool = True) -> Callable[[Call], Awaitable[Answer]]:
    """The handler of calls about `noun`: 501, before the body is read.

    Never a success: both SDKs would take that for the call done.
    """

    async def refuse(_: Call) -> Answer:
        raise NotServed(noun, plural=plural)

    return refuse
