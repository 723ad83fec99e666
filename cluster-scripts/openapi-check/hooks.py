"""What a schema cannot say, so that Schemathesis makes requests that mean something."""

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
    min_value=__import__("datetime").datetime(1970, 1, 1),
    max_value=__import__("datetime").datetime(9999, 1, 1),
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
def before_call(context, case, kwargs):
    """A time that is too short for an answer says nothing of the interface, and a node that was
    removed answers nothing any more."""
    headers = case.headers or {}
    given = str(headers.get("Request-Timeout-Ms", ""))
    if given.isascii() and given.isdigit() and 1 <= int(given) < 5000:
        headers["Request-Timeout-Ms"] = "5000"
    if case.operation.definition.raw.get("operationId") == "removeNode":
        if str(case.path_parameters.get("id")) in ("1", "2", "3"):
            case.path_parameters["id"] = 1000
