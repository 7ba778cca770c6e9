"""What error replies mean, in the words of Redis 6.2, Redis 7 and Valkey 9; no argument of a command stays in them."""

import hiredis
import pytest
from redis.exceptions import NoScriptError, ResponseError

from service.errors import StoreUnavailable, WriteUncertain
from service.redis_client import replies
from service.redis_client.errors import WrongType

SECRET = "hunter2"

WRAPPED = "ERR Error running script (call to f_58fc): @user_script:12: @user_script: 12: "

DENIED = "the user in redis_url lacks permissions in Redis"
KEYS = "the user in redis_url may not access the keys scc:* in Redis"
UNKNOWN = "Redis does not know or does not allow a required command"

#: Text of the reply, the sentence for the operator, whether waiting may help, whether a write may have been executed.
REFUSALS = [
    ("LOADING Redis is loading the dataset in memory", "Redis is still loading its data", True, False),
    ("MASTERDOWN Link with MASTER is down", "redis_url points to a replica that has lost its master", True, False),
    ("READONLY You can't write against a read only replica.", "redis_url points to a read-only replica", True, False),
    (f"{WRAPPED}-READONLY You can't write …", "redis_url points to a read-only replica", True, False),
    ("READONLY You can't … script: on @user_script:1.", "redis_url points to a read-only replica", True, False),
    ("ERR max number of clients reached", "Redis accepts no more connections; see its maxclients", True, False),
    ("NOAUTH Authentication required.", "Redis requires a password, but redis_url has none", False, False),
    ("WRONGPASS invalid username-password pair", "Redis rejects the user name or password in redis_url", False, False),
    ("ERR DB index is out of range", "Redis has no database with the number in redis_url", False, False),
    ("MOVED 5 127.0.0.1:7001",
     "redis_url points to a node of a Redis Cluster; write redis+cluster:// instead of redis://", False, False),
    ("NOPERM this user has no permissions to run the 'evalsha' command or its subcommand", f"{DENIED}: EVALSHA", False, False),
    ("NOPERM User u has no permissions to run the 'client|setname' command", f"{DENIED}: CLIENT|SETNAME", False, False),
    ("NOPERM this user has no permissions to access one of the keys used as arguments", KEYS, False, False),
    ("NOPERM No permissions to access a key", KEYS, False, False),
    (f"{WRAPPED}The user executing the script can't run this command or subcommand", DENIED, False, True),
    ("ERR The user executing the script can't run this command or subcommand script: 78, on @user_script:1.",
     DENIED, False, True),
    ("ERR ACL failure in script: User v has no permissions to run the 'hset' command script: on @user_script:1.",
     f"{DENIED}: HSET", False, True),
    ("ERR ACL failure in script: No permissions to access a key script: on @user_script:1.", KEYS, False, True),
    (f"{WRAPPED}The user executing the script can't access at least one of the keys mentioned", KEYS, False, True),
    (f"ERR unknown command `EVALSHA`, with args beginning with: `aa`, `0`, `{SECRET}`, ", f"{UNKNOWN}: EVALSHA", False, False),
    (f"ERR unknown command 'EVALSHA', with args beginning with: 'aa' '0' '{SECRET}' ", f"{UNKNOWN}: EVALSHA", False, False),
    (f"{WRAPPED}Unknown Redis command called from Lua script", UNKNOWN, False, True),
    ("ERR Unknown Redis command called from script script: b0, on @user_script:1.", UNKNOWN, False, True),
    ("ERR Unknown command called from script script: on @user_script:1.", UNKNOWN, False, True),
    ("ERR Error running script (call to f_0): @user_script:1: script tried accessing undeclared key",
     "Redis refuses scripts that access undeclared keys", False, True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence", "may_pass", "uncertain"), REFUSALS)
def test_a_refusal_is_503_and_only_the_operator_sees_its_sentence(
    text: str, sentence: str, may_pass: bool, uncertain: bool
) -> None:
    for writes in (True, False):
        error = replies.to_exception(hiredis.ReplyError(text), writes=writes)
        assert isinstance(error, StoreUnavailable)
        assert isinstance(error, WriteUncertain) == (uncertain and writes)
        assert (error.diagnosis, error.may_pass) == (sentence, may_pass)
        assert str(error) == sentence
        assert "redis" not in f"{error.message} {error.detail}".lower()


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
        (f"ERR unknown subcommand '{SECRET}'. Try CLIENT HELP.", "ERR unknown subcommand"),
        (f"ERR Unknown subcommand or wrong number of arguments for '{SECRET}'. Try HELP.",
         "ERR Unknown subcommand or wrong number of arguments for"),
        (f"ERR invalid value: {SECRET}", "ERR invalid value"),
        (f'ERR syntax error near "{SECRET}"', "ERR syntax error near"),
        (f"ERR {{{SECRET}}}", "ERR"),
        (f"ERR user_script:7: attempt to index local '{SECRET}' (a nil value) script: db, on @user_script:7.",
         "attempt to index local (line 7 of a script)"),
        (f"ERR Error running script (call to f_d): @user_script:7: user_script:7: attempt to compare '{SECRET}' with 1",
         "attempt to compare (line 7 of a script)"),
        ("WRONGTYPE Operation against a key script: 78fe, on @user_script:1.",
         "WRONGTYPE Operation against a key (line 1 of a script)"),
    ],
)  # fmt: skip
def test_an_error_that_is_no_refusal_keeps_its_words_and_no_argument(text: str, safe: str | None) -> None:
    error = replies.to_exception(hiredis.ReplyError(text), writes=True)
    assert isinstance(error, ResponseError)
    assert isinstance(error, WrongType) == text.startswith("WRONGTYPE ")
    assert str(error) == (safe or text)


def test_noscript_is_an_error_of_its_own() -> None:
    error = replies.to_exception(hiredis.ReplyError("NOSCRIPT No matching script. Please use EVAL."), writes=True)
    assert isinstance(error, NoScriptError)


def test_a_refusal_code_inside_a_text_is_no_refusal() -> None:
    assert replies.refusal("ERR value: -OOMPH, OOM ") is None
    assert not replies.is_demoted("ERR value: -READONLY")
    assert not replies.is_demoted(b"READONLY")
