"""Checks what the Bedrock adapter sent, and what its tests answered, with botocore.

    python interop/bedrock.py RECORD

RECORD has what went over the line in the adapter's tests. Requests are signed and written again by botocore, and every body is held to AWS's
own description of the service: a member that it does not know is an error. Anthropic's messages, which are a body of InvokeModel, are held to the
types of Anthropic's own client.
"""

import base64
import hashlib
import json
import math
import re
import sys
import urllib.parse
from collections import Counter

import anthropic.types
import anthropic.types.message_create_params
import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

# The keys of the adapter's tests.
KEYS = {
    "AKIDTRIALTRIALTRIAL0": ("trial/secret+key0123456789abcdefghijklmn", "trial-session-token/+=="),
    "AKIDOTHER": ("other-secret", "other-token"),
    "AKID": ("sk-hunter2", "st-hunter2"),
}
REGION = "eu-central-1"
OPERATIONS = {
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "invoke": "InvokeModel",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
}
# Ids of the tests that are none of AWS, so that the pattern of ids does not fit them.
NO_IDS = {"trial-model", "../../admin?x=1#"}

SESSION = botocore.session.get_session()
MODEL = SESSION.get_component("data_loader").load_service_model("bedrock-runtime", "service-2")
SHAPES = MODEL["shapes"]


class Wrong(Exception):
    """Something is not as AWS has it."""


def fail(place, reason):
    raise Wrong(f"{place}: {reason}")


def check(value, name, place):
    """Holds a value to a shape of the service's description. Returns it as botocore takes it: with bytes instead of base64."""
    shape = SHAPES[name]
    if shape.get("document"):
        return value
    return CHECKS[shape["type"]](value, shape, place)


def structure(value, shape, place):
    if not isinstance(value, dict):
        fail(place, f"an object is expected, not {value!r:.80}")
    unknown = value.keys() - shape["members"].keys()
    if unknown:
        fail(place, f"unknown members {sorted(unknown)}")
    missing = set(shape.get("required", [])) - value.keys()
    if missing:
        fail(place, f"members are missing: {sorted(missing)}")
    if shape.get("union") and len(value) != 1:
        fail(place, f"exactly one member is expected, not {sorted(value)}")
    return {key: check(member, shape["members"][key]["shape"], f"{place}.{key}") for key, member in value.items()}


def in_range(size, shape, place):
    if not shape.get("min", 0) <= size <= shape.get("max", math.inf):
        fail(place, f"{size} is not from {shape.get('min', 0)} to {shape.get('max', 'any')}")


def array(value, shape, place):
    if not isinstance(value, list):
        fail(place, "a list is expected")
    in_range(len(value), shape, place)
    return [check(member, shape["member"]["shape"], f"{place}[{n}]") for n, member in enumerate(value)]


def mapping(value, shape, place):
    if not isinstance(value, dict):
        fail(place, "a map is expected")
    in_range(len(value), shape, place)
    for key in value:
        check(key, shape["key"]["shape"], f"{place}: key")
    return {key: check(member, shape["value"]["shape"], f"{place}.{key}") for key, member in value.items()}


def string(value, shape, place):
    if not isinstance(value, str):
        fail(place, f"a text is expected, not {value!r:.80}")
    if "enum" in shape and value not in shape["enum"]:
        fail(place, f"{value!r} is none of {shape['enum']}")
    in_range(len(value), shape, place)
    if "pattern" in shape and not re.search(shape["pattern"], value):
        fail(place, f"{value!r} does not fit {shape['pattern']}")
    return value


def blob(value, shape, place):
    try:
        data = base64.b64decode(string(value, {}, place), validate=True)
    except ValueError as error:
        fail(place, f"no base64: {error}")
    in_range(len(data), shape, place)
    return data


def number(value, shape, place):
    expected = int if shape["type"] in ("integer", "long") else (int, float)
    if isinstance(value, bool) or not isinstance(value, expected):
        fail(place, f"{shape['type']} is expected, not {value!r:.80}")
    if "min" in shape or "max" in shape:
        in_range(value, shape, place)
    return value


def boolean(value, shape, place):
    if not isinstance(value, bool):
        fail(place, "true or false is expected")
    return value


CHECKS = {
    "structure": structure,
    "list": array,
    "map": mapping,
    "string": string,
    "blob": blob,
    "boolean": boolean,
    **dict.fromkeys(["integer", "long", "float", "double"], number),
}


class Request:
    def __init__(self, line):
        first, *headers = line["head"].split("\r\n")
        self.method, self.path, _ = first.split(" ")
        self.headers = {name.lower(): value for name, value in (header.split(": ", 1) for header in headers if header)}
        self.body = base64.b64decode(line["body"])
        found = re.fullmatch(r"/model/([^/]+)/([a-z-]+)", self.path)
        if not found or found[2] not in OPERATIONS:
            fail(self.path, "no operation has this path")
        self.model = urllib.parse.unquote(found[1])
        self.operation = OPERATIONS[found[2]]

    def parameters(self):
        """What botocore has to be told to make the same request."""
        if self.model not in NO_IDS:
            name = "ConversationalModelId" if self.operation.startswith("Converse") else "InvokeModelIdentifier"
            check(self.model, name, "modelId")
        if self.operation.startswith("InvokeModel"):
            # What is in the body is the model's, and not in the description of the service.
            body = json.loads(self.body)
            if "anthropic_version" in body:
                check_messages(body)
            return {"modelId": self.model, "body": self.body, "contentType": "application/json", "accept": "application/json"}
        shape = f"{self.operation}Request"
        body = json.loads(self.body)
        if "modelId" in body:
            fail("body", "the model stands in the path")
        # The path has a member of the shape.
        checked = check({"modelId": "amazon.nova-pro-v1:0", **body}, shape, self.operation)
        return {**checked, "modelId": self.model}


def rewritten(client, request):
    """The request that botocore makes of the same parameters."""
    made = []

    def keep(request, **_):
        made.append(request)
        return AWSResponse(request.url, 500, {}, None)

    client.meta.events.register("before-send.bedrock-runtime", keep)
    try:
        getattr(client, re.sub(r"(?<!^)(?=[A-Z])", "_", request.operation).lower())(**request.parameters())
    except Exception:  # the answer is none
        if not made:
            raise
    finally:
        client.meta.events.unregister("before-send.bedrock-runtime", keep)
    return made[0]


def check_rewritten(client, request):
    theirs = rewritten(client, request)
    path = urllib.parse.urlsplit(theirs.url).path
    if path != request.path:
        fail(request.path, f"botocore's path is {path}")
    body = theirs.body if isinstance(theirs.body, bytes) else theirs.body.encode()
    if json.loads(body) != json.loads(request.body):
        fail(request.operation, f"botocore's body is {body!r:.500}, ours {request.body!r:.500}")
    if request.headers["content-type"] != "application/json" or theirs.headers["content-type"] not in (b"application/json", "application/json"):
        fail(request.operation, "the content type is another")


def signature(request, secret, token, body):
    """The signature that botocore makes with this secret, of the headers that were signed."""
    fields = dict(field.split("=", 1) for field in request.headers["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", "))
    key, date, region, service, _ = fields["Credential"].split("/")
    signed = fields["SignedHeaders"].split(";")
    for needed in ["host", "x-amz-date", *(["x-amz-security-token"] if token else [])]:
        if needed not in signed:
            fail(request.path, f"the header {needed} is not signed")
    if (region, service) != (REGION, "bedrock") or not request.headers["x-amz-date"].startswith(date):
        fail(request.path, f"it is signed for {region}, {service}, {date}")
    if "x-amz-content-sha256" in request.headers and request.headers["x-amz-content-sha256"] != hashlib.sha256(request.body).hexdigest():
        fail(request.path, "x-amz-content-sha256 is not that of the body")
    headers = {name: request.headers[name] for name in signed if name != "x-amz-content-sha256"}
    again = AWSRequest(method=request.method, url=f"http://{request.headers['host']}{request.path}", data=body, headers=headers)
    if "x-amz-content-sha256" in signed:
        again.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    again.context["timestamp"] = request.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(key, secret, token), service, region)
    return fields["Signature"], auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)


def check_signature(request, seen):
    authorization = request.headers["authorization"]
    if authorization.startswith("Bearer "):
        if "x-amz-security-token" in request.headers:
            fail(request.path, "a key of Bedrock goes with a token of AWS")
        seen["with a key of Bedrock"] += 1
        return
    key = re.search(r"Credential=([^/]+)/", authorization)[1]
    secret, token = KEYS[key]
    if request.headers.get("x-amz-security-token") != token:
        fail(request.path, "the session token is another")
    for what, with_secret, body, expected in [
        ("the right secret", secret, request.body, True),
        ("a wrong secret", secret + "x", request.body, False),
        ("another body", secret, request.body + b" ", False),
    ]:
        ours, theirs = signature(request, with_secret, token, body)
        if (ours == theirs) != expected:
            fail(request.path, f"with {what} the signatures are {'not ' if expected else ''}equal")
    seen["signed"] += 1


def check_answer(body):
    answer = json.loads(body)
    # Some tests leave out what AWS always says.
    if answer["usage"] == {}:
        answer["usage"] = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    check(answer, "ConverseResponse", "answer")


def check_frame(data):
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    messages = list(buffer)
    if len(messages) != 1:
        fail("frame", f"{len(messages)} messages")
    headers, payload = messages[0].headers, json.loads(messages[0].payload)
    kind = headers[":event-type"]
    if kind == "metadata":
        payload.setdefault("usage", {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2})
    check({kind: payload}, "ConverseStreamOutput", "frame")


def closed(shape):
    """A type of the client as it takes dictionaries, with members that it does not know refused, in whatever is in it too."""
    core = TypeAdapter(shape).core_schema

    def close(schema):
        if isinstance(schema, dict):
            if schema.get("type") in ("typed-dict", "model-fields"):
                schema = {**schema, "extra_behavior": "forbid"}
            if schema.get("type") == "model":
                schema = {**schema, "config": {**schema.get("config", {}), "extra_fields_behavior": "forbid"}}
            return {key: close(value) for key, value in schema.items()}
        if isinstance(schema, list):
            return [close(value) for value in schema]
        if isinstance(schema, tuple):
            return tuple(close(value) for value in schema)
        return schema

    return SchemaValidator(close(core))


MESSAGES = closed(list[anthropic.types.MessageParam])
TOOLS = closed(list[anthropic.types.ToolParam])
CHOICE = closed(anthropic.types.ToolChoiceParam)
SYSTEM = closed(list[anthropic.types.TextBlockParam])
OUTPUT = closed(anthropic.types.OutputConfigParam)
EVENT = TypeAdapter(anthropic.types.RawMessageStreamEvent)
# A member of Bedrock, and members that the client's newest types do not have, because its newest models do not take them.
OF_BEDROCK = {"anthropic_version", "temperature", "top_p"}


def check_messages(body):
    """Holds the body of InvokeModel to the types of Anthropic's client."""
    known = set(anthropic.types.message_create_params.MessageCreateParamsBase.__annotations__) | OF_BEDROCK
    if unknown := body.keys() - known:
        fail("messages", f"unknown members {sorted(unknown)}")
    if body["anthropic_version"] != "bedrock-2023-05-31" or not isinstance(body["max_tokens"], int):
        fail("messages", "the version, or max_tokens")
    for member, validator in [("messages", MESSAGES), ("tools", TOOLS), ("tool_choice", CHOICE), ("system", SYSTEM), ("output_config", OUTPUT)]:
        if member not in body:
            continue
        try:
            validate(validator, body[member])
        except ValidationError as error:
            fail(f"messages: {member}", str(error)[:2000])


def validate(validator, value):
    checked = validator.validate_python(value)
    # What is only read when it is asked for must hold too.
    def read(value):
        if isinstance(value, dict):
            return [read(member) for member in value.values()]
        if isinstance(value, (str, bytes, int, float, bool, type(None))):
            return value
        return [read(member) for member in value]

    read(checked)


def check_message(body):
    anthropic.types.Message.model_validate(with_usage(json.loads(body)))


def with_usage(message):
    # Some tests leave out what is always said.
    if message["usage"] == {}:
        message["usage"] = {"input_tokens": 1, "output_tokens": 1}
    return message


def check_chunk(data):
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    [message] = list(buffer)
    payload = json.loads(message.payload)
    check({message.headers[":event-type"]: payload}, "ResponseStream", "chunk")
    event = json.loads(base64.b64decode(payload["bytes"]))
    if event["type"] == "ping":
        return
    if event["type"] == "message_start":
        with_usage(event["message"])
    if event["type"] == "message_delta" and event["usage"] == {}:
        event["usage"] = {"output_tokens": 1}
    EVENT.validate_python(event)


def must_be_refused():
    """That the checks can fail."""
    message = {"role": "user", "content": [{"text": "hi"}]}
    for bad in [
        {"messages": [message], "temperature": 1},
        {"messages": [{**message, "name": "x"}]},
        {"messages": [{"role": "operator", "content": [{"text": "a"}]}]},
        {"messages": [{"role": "user", "content": [{"text": "a", "image": {}}]}]},
        {"messages": [message], "inferenceConfig": {"maxTokens": "9"}},
        {"messages": [message], "inferenceConfig": {"maxTokens": 0}},
        {"messages": [{"role": "user", "content": [{"reasoningContent": {"redactedContent": "%"}}]}]},
        {"messages": [{"role": "user", "content": [{"document": {"format": "zip", "name": "a", "source": {"bytes": ""}}}]}]},
    ]:
        try:
            check({"modelId": "amazon.nova-pro-v1:0", **bad}, "ConverseRequest", "request")
        except Wrong:
            continue
        fail("self-test", f"{bad} was not refused")
    good = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}
    check_messages(good)
    for bad in [
        {"anthropic_version": "2023-06-01"},
        {"max_tokens": "9"},
        {"labels": {}},
        {"messages": [{"role": "operator", "content": []}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "bold": True}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": []}]}]},
        {"tools": [{"name": "a"}]},
        {"tool_choice": {"type": "some"}},
    ]:
        try:
            check_messages({**good, **bad})
        except Wrong:
            continue
        fail("self-test", f"{bad} was not refused")


def main():
    must_be_refused()
    client = SESSION.create_client(
        "bedrock-runtime",
        region_name=REGION,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}),
    )
    seen, known = Counter(), {}
    with open(sys.argv[1], encoding="utf-8") as record:
        for line in map(json.loads, record):
            data = base64.b64decode(line["body"])
            seen[line["kind"]] += 1
            if line["kind"] == "answer":
                check_answer(data)
            elif line["kind"] == "frame":
                check_frame(data)
            elif line["kind"] == "message":
                check_message(data)
            elif line["kind"] == "chunk":
                check_chunk(data)
            else:
                request = Request(line)
                seen[request.operation] += 1
                check_signature(request, seen)
                # The same body is checked once.
                if (request.path, request.body) not in known:
                    known[request.path, request.body] = check_rewritten(client, request)
    least = {"Converse": 100, "ConverseStream": 100, "InvokeModel": 5, "signed": 100, "with a key of Bedrock": 100, "answer": 20, "frame": 100}
    least |= {"InvokeModelWithResponseStream": 50, "message": 10, "chunk": 100}
    for what, number in least.items():
        if seen[what] < number:
            fail("record", f"{seen[what]} of {what}, where {number} are expected: the tests recorded too little")
    print(f"botocore {botocore.__version__}: {dict(seen)}, {len(known)} different requests: all as AWS has them")


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"bedrock: {wrong}")
