"""How a workload reaches sessions: over HTTP, or directly in the store."""

import asyncio
from typing import NamedTuple, Protocol
from urllib.parse import quote

from service.configs.containment import Filter
from service.errors import NotFound, NotReplicated, StoreUnavailable, WriteUncertain
from service.store.listing import Query, iter_matches, page
from service.store.sessions import Sessions
from tests.support.filling import document_of
from tests.support.http_client import Client, Request, Response, Violation
from tests.support.responses import Configs, Page, Row, data


class Refused(Exception):
    """The store did nothing."""


class Uncertain(Exception):
    """A write may have happened, or may still happen."""


class Missing(Exception):
    """There is no such session."""


class Snapshot(NamedTuple):
    """A session as a response has it; `configs` and `etag` are empty if the response lacks them."""

    revision: int
    configs: bytes
    etag: str


class Access(Protocol):
    """One client's access to sessions. Texts are JSON objects.

    Each method raises Refused, Uncertain or Missing as they apply.
    """

    async def create(self, session_id: str, user: str, text: bytes) -> Snapshot: ...
    async def replace(self, session_id: str, text: bytes) -> Snapshot: ...
    async def patch(self, session_id: str, text: bytes) -> Snapshot: ...
    async def delete(self, session_id: str) -> None: ...
    async def get(self, session_id: str) -> Snapshot: ...
    async def find(self, text: bytes) -> dict[str, Snapshot]: ...
    async def list_ids(self) -> list[str]: ...
    def close(self) -> None: ...


class HttpAccess:
    """The API on one connection; with `fresh` every request has a connection of its own.

    Each method raises NotSent or ConnectionLost too.
    """

    def __init__(self, origin: str, api_key: str, *, fresh: bool = False) -> None:
        self._client = Client(origin, api_key)
        self._fresh = fresh
        #: Seconds that the slowest response took.
        self.longest = 0.0

    def close(self) -> None:
        self._client.close()

    async def create(self, session_id: str, user: str, text: bytes) -> Snapshot:
        body = b'{"use_uuid":"%b","user":"%b","configs":%b}' % (session_id.encode(), user.encode(), text)
        response = await self._send(Request("POST", "/session", body), 201, writes=True)
        return _snapshot_of(data(response, Row), response.etag)

    async def replace(self, session_id: str, text: bytes) -> Snapshot:
        response = await self._write_configs("PUT", session_id, text)
        data(response, type(None))
        return Snapshot(_revision_of(response), b"", response.etag)

    async def patch(self, session_id: str, text: bytes) -> Snapshot:
        response = await self._write_configs("PATCH", session_id, text)
        return Snapshot(_revision_of(response), bytes(data(response, Configs).configs), response.etag)

    async def delete(self, session_id: str) -> None:
        await self._send(Request("DELETE", f"/session/{session_id}"), 200, writes=True)

    async def get(self, session_id: str) -> Snapshot:
        response = await self._send(Request("GET", f"/session/{session_id}"), 200)
        return _snapshot_of(data(response, Row), response.etag)

    async def find(self, text: bytes) -> dict[str, Snapshot]:
        response = await self._send(Request("GET", f"/session?limit=200&filter_by_configs={quote(text)}"), 200)
        return {row.id: _snapshot_of(row) for row in data(response, Page).items}

    async def list_ids(self) -> list[str]:
        ids: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = data(await self._send(Request("GET", f"/session?limit=200&cursor={cursor}"), 200), Page)
            ids += [row.id for row in page.items]
            cursor = page.next_cursor if page.has_more else None
        return ids

    async def _write_configs(self, method: str, session_id: str, text: bytes) -> Response:
        request = Request(method, f"/session/{session_id}/configs", b'{"configs":%b}' % text)
        return await self._send(request, 200, writes=True)

    async def _send(self, request: Request, status: int, *, writes: bool = False) -> Response:
        response = await self._client.send(request)
        if self._fresh:
            self._client.close()
        self.longest = max(self.longest, response.seconds)
        if response.is_unavailable:
            if response.is_uncertain and not writes:
                raise Violation(f"{request} writes nothing, but its response says that a write may have happened")
            raise Uncertain if response.is_uncertain else Refused
        if response.status == 404:
            raise Missing
        if response.status != status:
            raise Violation(f"{request} was answered {response.status} {response.raw!r}")
        return response


def _snapshot_of(row: Row, etag: str = "") -> Snapshot:
    return Snapshot(row.revision, bytes(row.configs), etag)


def _revision_of(response: Response) -> int:
    return int(response.etag.rpartition("-")[2])


class StoreAccess:
    """The store itself. `failures` gets the name of each error of the store."""

    def __init__(self, sessions: Sessions, failures: list[str]) -> None:
        self._sessions = sessions
        self._failures = failures

    def close(self) -> None:
        """Leave the store open: other clients use it too."""

    async def create(self, session_id: str, user: str, text: bytes) -> Snapshot:  # noqa: ARG002 - as `Access.create`
        async with _Errors(self._failures):
            created, _ = await self._sessions.create_session(session_id, document_of(text))
            return Snapshot(created.revision, created.configs, created.etag)

    async def replace(self, session_id: str, text: bytes) -> Snapshot:
        async with _Errors(self._failures):
            written = await self._sessions.replace(session_id, document_of(text))
            return Snapshot(written.revision, b"", written.etag)

    async def patch(self, session_id: str, text: bytes) -> Snapshot:
        async with _Errors(self._failures):
            written = await self._sessions.patch(session_id, document_of(text))
            return Snapshot(written.revision, written.configs, written.etag)

    async def delete(self, session_id: str) -> None:
        async with _Errors(self._failures):
            await self._sessions.delete(session_id)

    async def get(self, session_id: str) -> Snapshot:
        async with _Errors(self._failures):
            session = await self._sessions.get(session_id)
            return Snapshot(session.revision, session.configs, session.etag)

    async def find(self, text: bytes) -> dict[str, Snapshot]:
        async with _Errors(self._failures):
            query = Query(filter=Filter.parse(text, self._sessions.limits))
            listed = [each.parsed() for each in (await page(self._sessions, query, 200)).sessions]
            return {session.id: Snapshot(session.revision, session.configs, session.etag) for session in listed}

    async def list_ids(self) -> list[str]:
        return [session.id async for batch in iter_matches(self._sessions, Query()) for session in batch]


class _Errors:
    """Raises the errors of the store as those of `Access`, after a short pause."""

    def __init__(self, failures: list[str]) -> None:
        self._failures = failures

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, NotFound):
            raise Missing from error
        if isinstance(error, StoreUnavailable):
            self._failures.append(type(error).__name__)
            await asyncio.sleep(0.01)
            raise (Uncertain if isinstance(error, WriteUncertain | NotReplicated) else Refused) from error
