"""Terms as a person types them: `agent="bot1" env="prod"`, `temperature=0.70`, `tags[]="t1"`, `runtime{}`."""

import re
from typing import Any

import orjson

from service.configs.budget import Budget
from service.configs.document import parse
from service.configs.terms import OVERFLOW_LIMIT, RequiredTerm, member_terms
from service.errors import BadRequest

_STRING = r'"(?:[^"\\]|\\.)*"'
_WORD = re.compile(rf'(?:[^\s"]|{_STRING})+')
_PATH = re.compile(rf'(?P<top>@user(?=[=]|$)|[A-Za-z0-9_-]+|#[0-9a-f]{{16}}|{_STRING})(?:[^="]|{_STRING})*')


class TermQuery:
    """Matches the sessions that have all of the given terms; a `ConfigsPredicate`, as `Filter` is."""

    def __init__(self, text: str) -> None:
        """Parse terms separated by white space.

        Raises:
            BadRequest: a word is not a term; the message shows how to type one.
        """
        self.user: str | None = None
        required_terms: list[RequiredTerm] = []
        if _WORD.sub("", text).strip():
            raise BadRequest('a double quote is not closed; type a term like agent="bot1"')
        for word in _WORD.findall(text):
            match = _PATH.match(word)
            if match is None:
                raise BadRequest(f'{word} is not a term; type a term like agent="bot1", runtime.version="2.1" or tags[]="t1"')
            if match["top"] == "@user":
                if self.user is not None:
                    raise BadRequest("@user is given twice, but a session has one user")
                self.user = _user(word)
            else:
                required_terms.append(_required_term(word, match))
        self.required_terms = tuple(required_terms)

    def matches(self, configs: bytes, budget: Budget | None = None) -> bool:  # noqa: ARG002 - as `Filter.matches`
        """Whether stored configs have all of the terms, including those below a key that overflows."""
        try:
            values = orjson.loads(configs)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(values, dict):
            return False
        # As they are indexed, and as they would be if nothing overflowed.
        terms = {
            term
            for key, value in values.items()
            for limit in (OVERFLOW_LIMIT, len(configs))
            for term in member_terms(key, value, overflow_limit=limit)
        }
        return all(required.term in terms for required in self.required_terms)


def _user(word: str) -> str:
    name = _value(word.partition("=")[2], word)
    if not isinstance(name, str):
        raise BadRequest('type a user like @user="alice@example.com"')
    return name


def _required_term(word: str, match: re.Match[str]) -> RequiredTerm:
    path, rest = match[0], word[match.end() :]
    if not rest:
        # runtime{}, tags[] and key~ have no value; for any other word the value was probably forgotten.
        if not path.endswith(("{}", "[]", "~")):
            raise BadRequest(f'{word} has no value; type a term like {word}="text" or {word}=1')
        return RequiredTerm(path)
    # Spelled as the index spells it: 0.70 as 0.7, a long string as its hash.
    value = member_terms("v", _value(rest[1:], word))[0].removeprefix("v")
    top = match["top"]
    return RequiredTerm(path + value, None if path == top else f"{top}~")


def _value(text: str, word: str) -> Any:  # noqa: ANN401 - JSON is any value
    try:
        value = parse(text.encode(), max_nesting=1)
    except BadRequest:
        raise BadRequest(f"{word}: the value must be JSON; put text in double quotes") from None
    if isinstance(value, dict | list):
        raise BadRequest(f"{word}: the value must be text, a number, true, false or null")
    return value
