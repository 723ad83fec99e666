"""What a schema cannot say, so that Schemathesis makes requests that mean something."""

import re
from datetime import datetime

import schemathesis
from hypothesis import strategies as st

# Few of them, so that one request meets what another has made.
NAMES = ["ann", "bob", "hall", "[Nick]|away", "room-7", "张三", "é", "%41"]


def text(bytes_max, least=0):
    """Up to so many bytes of UTF-8; short ones, because the bounds are tried by other tests."""
    any_character = st.characters(exclude_categories=("Cs",))
    return st.text(any_character, min_size=least, max_size=bytes_max // 4 if bytes_max < 200 else 40)


def label(bytes_max, least=0):
    visible = st.characters(exclude_categories=("Cs", "Cc"))
    return st.text(visible, min_size=least, max_size=min(bytes_max // 4, 40))


def encoded(name):
    return "".join(f"%{byte:02X}" for byte in name.encode())


times = st.datetimes(
    min_value=datetime(1970, 1, 1),
    max_value=datetime(9999, 1, 1),
).map(lambda time: time.isoformat(timespec="milliseconds") + "Z")

ports = st.integers(1, 65535)

for name, strategy in {
    "quorate-name": st.sampled_from(NAMES),
    "quorate-kind": st.sampled_from(["text", "action", "system", "notice", "张"]),
    "quorate-text": text(1024),
    "quorate-client-id": text(128, least=1),
    "quorate-display-name": label(256, least=1),
    "quorate-title": label(1024),
    "quorate-password": text(128, least=1),
    "quorate-owner": label(128, least=1),
    "quorate-device": label(128, least=1),
    "quorate-email": st.sampled_from(["ann@example.org", "a@b", "a+b@c.d"]),
    "quorate-time": times,
    "quorate-client-url": ports.map(lambda port: f"http://127.0.0.1:{port}"),
    "quorate-peer-addr": ports.map(lambda port: f"127.0.0.2:{port}"),
    "quorate-encoded-name": st.sampled_from(NAMES).map(encoded),
    "quorate-position": st.integers(0, 20).map(lambda rev: f"1.0.{rev}"),
    "quorate-if-lock": st.tuples(st.sampled_from(NAMES).map(encoded), st.integers(0, 100)).map(
        lambda lock: f"{lock[0]};token={lock[1]}"
    ),
    # A cursor is of a list and a name in it; these are of no list that has it, so they are refused.
    "quorate-cursor": st.sampled_from(["u616e6e", "r68616c6c", "m616e6e"]),
}.items():
    schemathesis.openapi.format(name, strategy)


@schemathesis.hook
def filter_case(context, case):
    """Any HTTP request may carry headers that mean nothing to whom it is sent: they are no violation."""
    return not any(name.lower().startswith("x-schemathesis") for name in case.headers or {})


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes of requests that a schema cannot tell from good ones good ones."""
    headers = case.headers or {}
    # What comes of a time that is too short for an answer says nothing of the interface.
    given = str(headers.get("Request-Timeout-Ms", ""))
    if given.isascii() and given.isdigit() and 1 <= int(given) < 5000:
        headers["Request-Timeout-Ms"] = "5000"
    # The quotes of the tag are lost on the way from some generators.
    if headers.get("If-Match") == "":
        headers["If-Match"] = '"1"'
    fix_query(case.query or {})
    if isinstance(case.body, dict):
        case.body = whole_numbers(case.body)
        # A node does not take its own place.
        if "replaces" in case.body and case.body["replaces"] == case.body.get("id"):
            del case.body["replaces"]
    # A node that was removed answers nothing any more.
    if case.operation.definition.raw.get("operationId") == "removeNode":
        if str(case.path_parameters.get("id")) in ("1", "2", "3"):
            case.path_parameters["id"] = 1000


def fix_query(query):
    # A cursor is what a list gave, not what looks like one.
    if re.fullmatch(r"[a-z]([0-9A-Fa-f]{2})+", str(query.get("cursor", ""))):
        del query["cursor"]
    # A page begins in one place.
    places = [name for name in ("after", "before", "around", "at") if name in query]
    if all(str(query[name]).isdigit() or name == "at" for name in places):
        for name in places[1:]:
            del query[name]


def whole_numbers(value):
    """JSON Schema takes 7.0 for an integer, the store does not: docs/API.md says how they are written."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: whole_numbers(one) for key, one in value.items()}
    return value
