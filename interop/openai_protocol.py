"""Checks what the OpenAI adapter sent, and what its tests answered, with the published client of OpenAI.

    python interop/openai_protocol.py RECORD

RECORD has what went over the line in the adapter's tests. Each body is held to the types of the client, where a member that they do not know is an
error; then the client itself is told to make the same request to a recorder on this machine, and both requests are compared.
"""

import base64
import collections.abc
import http.server
import json
import sys
import threading
import types
import typing
from collections import Counter

import openai
from openai import OpenAI
from openai._models import BaseModel
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from typing_extensions import NotRequired, Required, get_type_hints, is_typeddict


class Wrong(Exception):
    """Something is not as the client has it."""


def fail(place, reason):
    raise Wrong(f"{place}: {reason}")


def check(value, kind, place):
    """Holds a value to a type of the client."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Required, NotRequired, typing.Annotated):
        return check(value, arguments[0], place)
    if isinstance(kind, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return check(value, kind.__value__, place)
    if kind in (object, typing.Any):
        return None
    if origin in (typing.Union, types.UnionType):
        reasons = []
        for one in arguments:
            try:
                return check(value, one, place)
            except Wrong as wrong:
                reasons.append(str(wrong))
        return fail(place, f"it is none of {len(arguments)} forms: {'; '.join(reasons)[:600]}")
    if origin is typing.Literal:
        return None if value in arguments else fail(place, f"{value!r} is none of {arguments}")
    if is_typeddict(kind):
        return typed_dict(value, kind, place)
    if origin in (list, collections.abc.Iterable, collections.abc.Sequence):
        if not isinstance(value, list):
            fail(place, "a list is expected")
        for n, member in enumerate(value):
            check(member, arguments[0], f"{place}[{n}]")
        return None
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, dict):
            fail(place, "a map is expected")
        for key, member in value.items():
            check(key, arguments[0], place)
            check(member, arguments[1], f"{place}.{key}")
        return None
    if kind is type(None):
        return None if value is None else fail(place, "null is expected")
    expected = (int, float) if kind is float else kind
    if not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool):
        fail(place, f"{kind.__name__} is expected, not {value!r:.80}")
    return None


def required_members(kind):
    """`__required_keys__` is wrong where annotations are texts."""
    bases = [base for base in getattr(kind, "__orig_bases__", ()) if is_typeddict(base)]
    required = set().union(*map(required_members, bases))
    inherited = set().union(*(base.__annotations__ for base in bases))
    for name, member in get_type_hints(kind, include_extras=True).items():
        origin = typing.get_origin(member)
        if origin is Required or (kind.__total__ and name not in inherited and origin is not NotRequired):
            required.add(name)
    return required


def typed_dict(value, kind, place):
    if not isinstance(value, dict):
        fail(place, f"an object is expected, not {value!r:.80}")
    members = get_type_hints(kind, include_extras=True)
    if unknown := value.keys() - members.keys():
        fail(place, f"unknown members {sorted(unknown)} of {kind.__name__}")
    if missing := required_members(kind) - value.keys():
        fail(place, f"members of {kind.__name__} are missing: {sorted(missing)}")
    for name, member in value.items():
        check(member, members[name], f"{place}.{name}")


def check_model(kind, text, place):
    """Reads an answer with a model of the client, strictly, and without members that it does not know."""
    unknown(kind.model_validate(text, strict=True), place)


def unknown(value, place):
    if isinstance(value, BaseModel):
        if value.model_extra:
            fail(place, f"unknown members {sorted(value.model_extra)} of {type(value).__name__}")
        for name in type(value).model_fields:
            unknown(getattr(value, name), f"{place}.{name}")
    elif isinstance(value, list):
        for n, member in enumerate(value):
            unknown(member, f"{place}[{n}]")


class Recorder(http.server.BaseHTTPRequestHandler):
    """Keeps what the client sends, and refuses it."""

    seen: typing.ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Recorder.seen.append((self.path, dict(self.headers.items()), json.loads(body)))
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"error": {"message": "recorded"}}')

    def log_message(self, *_):
        pass


def their_request(client, path, body, key):
    Recorder.seen.clear()
    call = client.embeddings.create if path.endswith("/embeddings") else client.chat.completions.create
    try:
        call(**body, extra_headers={"Idempotency-Key": key})
        fail(path, "the recorder must refuse")
    except openai.BadRequestError:
        return Recorder.seen[0]


def head_of(text):
    first, *headers = text.split("\r\n")
    return first.split(" ")[1], {name.lower(): value for name, value in (header.split(": ", 1) for header in headers if header)}


def check_request(client, line):
    path, headers = head_of(line["head"])
    body = json.loads(line["body"])
    if path.endswith("/embeddings"):
        check(body, EmbeddingCreateParams, "embeddings")
    else:
        check(body, CompletionCreateParamsStreaming if body.get("stream") else CompletionCreateParamsNonStreaming, "chat")
    key = headers["idempotency-key"]
    their_path, their_headers, their_body = their_request(client, path, body, key)
    their_headers = {name.lower(): value for name, value in their_headers.items()}
    if (path, body) != (their_path, their_body):
        fail(path, f"the client sends {their_body} to {their_path}, we send {body}")
    for name in ["content-type", "idempotency-key"]:
        if headers[name] != their_headers[name]:
            fail(path, f"{name}: the client sends {their_headers[name]}, we send {headers[name]}")
    if "authorization" in headers and headers["authorization"].split(" ")[0] != their_headers["authorization"].split(" ")[0]:
        fail(path, "the secret goes in another form")


def must_be_refused():
    """That the checks can fail."""
    message = {"role": "user", "content": "hi"}
    for bad in [
        {"model": "m", "messages": [message], "tempertaure": 1},
        {"model": "m", "messages": [{**message, "surprise": 1}]},
        {"model": "m", "messages": [{"role": "robot", "content": "hi"}]},
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"uri": "x"}}]}]},
        {"model": "m", "messages": [message], "temperature": "1"},
        {"model": "m"},
    ]:
        try:
            check(bad, CompletionCreateParamsNonStreaming, "chat")
        except Wrong:
            continue
        fail("self-test", f"{bad} was not refused")


def main():
    must_be_refused()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = OpenAI(api_key="key", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0)
    seen, known = Counter(), set()
    with open(sys.argv[1], encoding="utf-8") as record:
        for line in map(json.loads, record):
            body, kind = base64.b64decode(line["body"]).decode(), line["kind"]
            line["body"] = body
            seen[kind] += 1
            # The same is checked once.
            if (kind, body) in known or body == "[DONE]":
                continue
            known.add((kind, body))
            if kind == "request":
                seen[head_of(line["head"])[0]] += 1
                check_request(client, line)
                continue
            answer = json.loads(body)
            # Some tests leave out what OpenAI always says.
            if answer.get("usage") == {}:
                del answer["usage"]
            check_model({"answer": ChatCompletion, "event": ChatCompletionChunk}[kind], answer, kind)
    least = {"request": 150, "/v1/chat/completions": 7, "/v1/embeddings": 1, "answer": 19, "event": 50}
    for what, number in least.items():
        if seen[what] < number:
            fail("record", f"{seen[what]} of {what}, where {number} are expected: the tests recorded too little")
    print(f"openai {openai.__version__}: {dict(seen)}, {len(known)} different ones: all as its client has them")


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"openai: {wrong}")
