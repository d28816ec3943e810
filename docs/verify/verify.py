#!/usr/bin/env python3
"""Checks an exported LogLine ledger without LogLine (docs/canonical-form.md, docs/export.md).

It checks integrity: every row's hash, signature and place in its chain, and with a sidecar that the export is the one
that was signed and lacks no chain's last version. With a `.tlog-proof` it checks that the one row of the export is in
a transparency log, and with a consistency proof that the log continues an older checkpoint (docs/log.md). It does
not check authority, that is whether a key was allowed to sign a row: `logline fsck --trust` does.
"""
import argparse
import base64
import binascii
import datetime
import hashlib
import json
import re
import sys
import unicodedata

try:
    from blake3 import blake3
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError as e:
    print(f"verify.py: {e}; run: pip install -r requirements.txt", file=sys.stderr)
    sys.exit(2)

SPAN, SIDECAR = "application/vnd.logline.span.v1", "application/vnd.logline.sidecar.v1"
MAX_LINE, MAX_DEPTH, MAX_CONTAINERS, MAX_INT32 = 64 << 20, 64, 32_768, 2**31 - 1
NAMES = {"entity_type", "tenant_id", "owner_id", "status", "trace_id"}
TEXTS = NAMES | {"who", "did", "this", "name", "description", "code", "language", "runtime"}
JSONS = {"input", "output", "error", "content", "metadata"}
HEX = {"curr_hash": 64, "public_key": 64, "signature": 128, "prev_hash": 64}
REQUIRED = ["id", "entity_type", "tenant_id", "owner_id", "who", "this", "at", "seq", "is_deleted", "visibility", "v"]
HEAD = {"curr_hash", "id", "seq", "tenant_id"}
FOOTER = {"at", "chains", "export_blake3", "heads_blake3", "public_key", "signature", "spans", "tenant", "type", "v"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z", re.ASCII)
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
P = 2**255 - 19
Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER_Y = {0, 1, P - 1, Y8, P - Y8}  # y of the eight points of small order


class Bad(Exception):
    """Something that breaks a rule; `kind` is the error's name in docs/vectors/invalid.json."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def require(holds, kind, text):
    if not holds:
        raise Bad(kind, text)


# Strict JSON

def read_number(text):
    mantissa, _, exponent = text.lstrip("-").lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    power = exponent.lstrip("+-").lstrip("0") or "0"
    power = (int(power) if len(power) < 18 else 10**18) * (-1 if exponent.startswith("-") else 1)
    # The value is 0.digits * 10**magnitude; compared digit by digit, so that no rounding can hide an excess.
    magnitude = power + len(digits) - len(fraction)
    excess = magnitude > 16 or magnitude == 16 and digits.rstrip("0") > "9007199254740991"
    require(not excess, "number_out_of_range", f"number {text[:40]} is beyond 9007199254740991")
    value = float(text)
    return int(value) if value.is_integer() else value


def read_object(pairs):
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = sorted(key for key, _ in pairs)
        raise Bad("duplicate_key", f"duplicate key {ascii(next(a for a, b in zip(keys, keys[1:]) if a == b))}")
    return value


def not_finite(text):
    raise Bad("non_finite", f"{text} is not finite")


def check_size(text):
    """Depth and number of arrays and objects, before anything recurses. Empty ones do not count."""
    depth, containers, opened = 0, 0, None
    for token in TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        require(depth <= MAX_DEPTH, "too_deep", f"nested deeper than {MAX_DEPTH} levels")
        if opened is not None and (token[0] not in "]}" or text[opened:token.start()].strip()):
            containers += 1
            require(containers <= MAX_CONTAINERS, "too_many", f"more than {MAX_CONTAINERS} arrays and objects")
        opened = token.end() if token[0] in "[{" else None


def check_strings(value):
    if isinstance(value, str):
        require("\0" not in value, "nul", "character U+0000 in a string")
        require(not re.search("[\ud800-\udfff]", value), "lone_surrogate", "lone surrogate in a string")
    elif isinstance(value, (dict, list)):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            check_strings(item)


def read_json(raw):
    hooks = {"parse_int": read_number, "parse_float": read_number, "parse_constant": not_finite}
    try:
        text = raw.decode("utf-8")
        check_size(text)
        value = json.JSONDecoder(object_pairs_hook=read_object, **hooks).decode(text)
    except UnicodeDecodeError as e:
        raise Bad("utf8", f"malformed utf-8 at byte {e.start}")
    except json.JSONDecodeError as e:
        nul = e.msg.startswith("Invalid control character") and text[e.pos] == "\0"
        raise Bad("nul" if nul else "syntax", f"malformed json: {e.msg} at character {e.pos}")
    check_strings(value)
    return value


# RFC 8785

def jcs_number(value):
    """ECMAScript's Number.prototype.toString; repr() finds the same shortest digits and lays them out differently."""
    value = float(value)
    if value - value != 0:
        raise ValueError("json has no nan or infinity")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    n = int(exponent or 0) + len(digits) - len(fraction)  # the value is 0.digits * 10**n
    digits = digits.rstrip("0")
    k = len(digits)
    if k <= n <= 21:
        text = digits + "0" * (n - k)
    elif 0 < n <= 21:
        text = digits[:n] + "." + digits[n:]
    elif -6 < n <= 0:
        text = "0." + "0" * -n + digits
    else:
        text = digits[0] + ("." + digits[1:] if k > 1 else "") + f"e{n - 1:+d}"
    return "-" + text if value < 0 else text


SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def jcs_string(text):
    return '"' + re.sub(r'[\x00-\x1f"\\]', lambda m: SHORT.get(m[0]) or f"\\u{ord(m[0]):04x}", text) + '"'


def jcs(value):
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return jcs_number(value)
    if isinstance(value, str):
        return jcs_string(value)
    if isinstance(value, list):
        return "[" + ",".join(map(jcs, value)) + "]"
    keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
    return "{" + ",".join(jcs_string(key) + ":" + jcs(value[key]) for key in keys) + "}"


# One row

def check_column(name, value):
    def must(holds, kind, text):
        require(holds, kind, f"column {name} {text}")

    if name in TEXTS or name in HEX or name in ("id", "at", "parent_id", "visibility"):
        must(isinstance(value, str), "type", "must be a string")
    if name in HEX:
        must(re.fullmatch(f"[0-9a-f]{{{HEX[name]}}}", value), "hex", f"is not {HEX[name]} lower-case hex digits")
    elif name in NAMES:
        must(len(value.encode()) <= 256, "name_too_long", "is longer than 256 bytes")
        must(all(unicodedata.category(c) != "Cc" for c in value), "control_character", "holds a control character")
    elif name in ("id", "parent_id"):
        must(UUID.fullmatch(value), "uuid", "is not a lower-case uuid")
    elif name == "related_to":
        must(isinstance(value, list) and all(isinstance(v, str) for v in value), "type", "must be an array of uuids")
        must(value and all(map(UUID.fullmatch, value)), "uuid", "must hold lower-case uuids, at least one")
    elif name == "at":
        try:
            datetime.datetime(*map(int, TIME.fullmatch(value).groups()))
        except (AttributeError, ValueError):
            raise Bad("timestamp", "column at is not a canonical time such as 2026-03-02T09:14:05.000000Z")
    elif name == "visibility":
        must(value in ("private", "tenant", "public"), "visibility", "is not private, tenant or public")
    elif name == "is_deleted":
        must(isinstance(value, bool), "type", "must be true or false")
    elif name == "v":
        must(type(value) is int and value == 1, "version", "is not 1: another canonical form")
    elif name in ("seq", "duration_ms"):
        must(name != "seq" or type(value) is not int or value >= 0, "negative_seq", "is negative")
        must(type(value) is int and 0 <= value <= MAX_INT32, "integer_out_of_range", f"is not in 0..{MAX_INT32}")
    else:
        require(name in TEXTS | JSONS, "unknown_column", f"unknown column {ascii(name)}")


def check_row(row):
    """The input rules, and that every column is spelled as the canonical form spells it."""
    for name, value in row.items():
        check_column(name, value)
    missing = [name for name in ("curr_hash", "signature", "public_key") if name not in row]
    require(len(missing) in (0, 3), "incomplete_seal", f"column {'/'.join(missing)} is missing: incomplete seal")
    require(not missing or "prev_hash" not in row, "unsigned_with_predecessor", "an unsigned row has no prev_hash")
    require(not missing, "unsigned", "the row is not signed")
    for name in REQUIRED:
        empty = row.get(name, "") == "" or name == "id" and not row[name].strip("0-")
        require(not empty, "missing", f"column {name} is missing or empty")
    require(row["seq"] or "prev_hash" not in row, "predecessor_of_zero", "seq 0 cannot have a prev_hash")


def check_signature(key, payload_type, body, signature):
    """Ed25519 over DSSE's pre-authentication encoding."""
    message = f"DSSEv1 {len(payload_type)} {payload_type} {len(body)} ".encode() + body
    check_ed25519(bytes.fromhex(key), message, bytes.fromhex(signature))


def check_ed25519(raw_key, message, raw):
    """Ed25519 with small-order points refused in the key and in the signature."""
    key, y = raw_key.hex(), int.from_bytes(raw_key, "little") % 2**255
    require(y < P, "signature", f"public key {key} is not canonically encoded")
    require(y not in SMALL_ORDER_Y, "signature", f"public key {key} is weak (small order)")
    try:
        Ed25519PublicKey.from_public_bytes(raw_key).verify(raw, message)
    except (InvalidSignature, ValueError):
        raise Bad("signature", f"signature of key {key} does not match the key and the content")
    weak = int.from_bytes(raw[:32], "little") % 2**255 in SMALL_ORDER_Y
    require(not weak, "signature", f"signature of key {key} holds a point of small order")


def check_seal(row):
    payload = jcs({name: value for name, value in row.items() if name not in ("curr_hash", "signature")})
    computed, stored = blake3(payload.encode()), row["curr_hash"]
    found = computed.hexdigest()
    require(found == stored, "hash", f"content was changed: curr_hash is {stored}, the content hashes to {found}")
    check_signature(row["public_key"], SPAN, computed.digest(), row["signature"])


def link_problems(row, heads, chain):
    """What is wrong with the row's place after the last version found: (seq, curr_hash, owner_id, entity_type)."""
    seq, claimed = row["seq"], row.get("prev_hash")
    if chain not in heads:
        return [f"it follows a version that is missing: prev_hash is {claimed}"] if claimed else []
    if heads[chain] is None:  # that version could not be read
        return []
    last, curr_hash, owner, entity_type = heads[chain]
    if seq == last:
        return ["a second row with this version: the chain was forked"]
    if seq < last:
        return [f"it comes after version {last}: out of order"]
    problems = [f"{name} differs from the version before it"
                for name, kept in (("owner_id", owner), ("entity_type", entity_type)) if row[name] != kept]
    if seq > last + 1:
        problems.append(f"versions {last + 1} to {seq - 1} before it are missing")
    elif claimed != curr_hash:
        problems.append(f"prev_hash is {claimed or 'absent'}, the version before it hashes to {curr_hash}")
    return problems


# Transparency logs (RFC 6962, C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof), bounds of docs/log.md

LOG, WITNESS, MAX_PROOF_FILE, MAX_NOTE, MAX_SIGNATURES, MAX_EXTENSIONS = 1, 4, 512 << 10, 256 << 10, 100, 16


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def base64_bytes(text, length=None):
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Bad("proof", f"{ascii(text[:80])} is not base64")
    canonical = base64.b64encode(raw).decode() == text and length in (None, len(raw))
    require(canonical, "proof", f"{ascii(text[:80])} is not the canonical base64 of {length or 'some'} bytes")
    return raw


def decimal(text):
    is_number = re.fullmatch("0|[1-9][0-9]{0,19}", text, re.ASCII) and int(text) < 2**64
    require(is_number, "proof", f"{ascii(text[:80])} is not a number")
    return int(text)


def is_name(text):
    return re.fullmatch(r"[^\s+\x00-\x1f\x7f-\x9f]+", text) and len(text.encode()) <= 255


def text_of(path):
    with open(path, "rb") as file:
        raw = file.read(MAX_PROOF_FILE + 1)
    require(len(raw) <= MAX_PROOF_FILE, "proof", "the file is too long")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("proof", "it is not utf-8")


def note_key(text):
    """A key of C2SP, NAME+ID+BASE64: its name, its type, its 32 bytes and its id."""
    name, key_id, raw = (text.split("+", 2) + ["", ""])[:3]
    raw = base64_bytes(raw, 33)
    require(is_name(name) and raw[0] in (LOG, WITNESS), "proof", "a key is NAME+ID+BASE64, of a log or a witness")
    found = sha256(name.encode(), b"\n", raw)[:4]
    require(found.hex() == key_id, "proof", f"the id in the key of {ascii(name)} is not that of its name and bytes")
    return name, raw[0], raw[1:], found


def open_note(note, keys):
    """The text of a note, and those of the keys that signed it. A bad signature by one of them is an error."""
    is_note = "\n\n" in note and note.endswith("\n") and len(note.encode()) <= MAX_NOTE
    require(is_note, "proof", "the checkpoint is not a signed note")
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    require(not re.search("[\x00-\x09\x0b-\x1f]", note), "proof", "the checkpoint has control characters")
    lines, signed = lines[:-1].split("\n"), set()
    require(len(lines) <= MAX_SIGNATURES, "proof", f"the checkpoint has more than {MAX_SIGNATURES} signatures")
    for line in lines:
        parts = line.split(" ")
        is_line = len(parts) == 3 and parts[0] == "\u2014" and is_name(parts[1])
        require(is_line, "proof", "a line below the checkpoint is not a signature")
        raw = base64_bytes(parts[2])
        require(len(raw) > 4, "proof", "a line below the checkpoint has no signature")
        for key in keys:
            name, kind, public, key_id = key
            if (parts[1], raw[:4]) != (name, key_id):
                continue
            message, signature = text.encode(), raw[4:]
            if kind == WITNESS:
                time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
                require(0 < time < 2**63, "proof", f"the time of {ascii(name)}'s cosignature is not one of 1 to 2^63-1")
                message = f"cosignature/v1\ntime {time}\n".encode() + message
            require(len(signature) == 64, "proof", f"the signature of {ascii(name)} has the wrong length")
            check_ed25519(public, message, signature)
            signed.add(key)
    return text, signed


def inclusion_root(leaf, index, size, proof):
    """The root to which a proof leads (RFC 9162, section 2.1.3.2). Every hash is used, and none is missing."""
    require(index < size, "proof", f"leaf {index} is not in a tree of {size} leaves")
    node, last = index, size - 1
    for sibling in proof:
        require(last, "proof", "the proof has more hashes than the tree has levels")
        if node & 1 or node == last:
            leaf = sha256(b"\x01", sibling, leaf)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            leaf = sha256(b"\x01", leaf, sibling)
        node, last = node >> 1, last >> 1
    require(not last, "proof", "the proof has fewer hashes than it needs")
    return leaf


def check_consistency(old, new, proof):
    """That a tree continues an older one; both are (size, root). RFC 9162, section 2.1.4.2."""
    (old_size, old_root), (size, root) = old, new
    require(old_size <= size, "proof", f"the tree of {size} leaves is smaller than the one of {old_size}")
    if old_size in (0, size):
        require(not proof, "proof", "a proof that must be empty is not")
        same = (old_size or old_root == sha256()) and (old_size != size or root == old_root)
        return require(same, "proof", "both checkpoints have the same size and different roots")
    node, last, hashes = old_size - 1, size - 1, list(proof)
    while node & 1:
        node, last = node >> 1, last >> 1
    if not node:  # the old tree is a full one, and its root is the first hash
        hashes.insert(0, old_root)
    require(hashes, "proof", "the proof has fewer hashes than it needs")
    before = after = hashes.pop(0)
    for sibling in hashes:
        require(last, "proof", "the proof has more hashes than it needs")
        if node & 1 or node == last:
            before, after = sha256(b"\x01", sibling, before), sha256(b"\x01", sibling, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = sha256(b"\x01", after, sibling)
        node, last = node >> 1, last >> 1
    require(not last, "proof", "the proof has fewer hashes than it needs")
    require(before == old_root, "proof", "the proof does not begin at the older checkpoint")
    require(after == root, "proof", "the newer checkpoint does not continue the older one: the log has two histories")


def leaf_record(row):
    """The 181 bytes under which a row is entered."""
    return b"".join((b"\x01", bytes.fromhex(row["id"].replace("-", "")), row["seq"].to_bytes(4, "big"),
                     bytes.fromhex(row["curr_hash"]), bytes.fromhex(row.get("prev_hash", "00" * 32)),
                     bytes.fromhex(row["public_key"]), bytes.fromhex(row["signature"])))


def check_proof(path, row, log, witnesses, quorum):
    """That a row is in the log, under a checkpoint that so many of the witnesses have cosigned."""
    require(row, "proof", "a proof is about one row: the export must have exactly one")
    head, _, note = text_of(path).partition("\n\n")
    lines = head.split("\n")
    require(lines.pop(0) == "c2sp.org/tlog-proof@v1", "proof", "it is not a c2sp.org/tlog-proof@v1")
    if lines and lines[0].startswith("extra "):
        base64_bytes(lines.pop(0)[6:])  # nothing authenticates it
    require(lines and lines[0].startswith("index "), "proof", "the line `index` is missing")
    index = decimal(lines.pop(0)[6:])
    require(len(lines) <= 64, "proof", "it has more than 64 hashes")
    proof = [base64_bytes(line, 32) for line in lines]
    origin, size, root, cosigned = open_checkpoint(note, log, witnesses, quorum)
    found = inclusion_root(sha256(b"\x00", leaf_record(row)), index, size, proof)
    require(found == root, "proof", "the row is not in the log: the proof leads to another root")
    return f"leaf {index} of {size} of log {origin}, cosigned by {cosigned} witnesses"


def open_checkpoint(note, log, witnesses, quorum):
    """Origin, size, root and number of cosignatures of a checkpoint that the log and enough witnesses have signed."""
    text, signed = open_note(note, [log, *witnesses])
    require(log[1] == LOG and log in signed, "proof", f"the key of log {ascii(log[0])} has not signed the checkpoint")
    origin, size, root, *extensions = text[:-1].split("\n") + [""] * (3 - text.count("\n"))
    require(origin == log[0], "proof", f"the checkpoint is of log {ascii(origin[:80])}, not of {ascii(log[0])}")
    cosigned = {key[2] for key in signed if key[1] == WITNESS}
    require(len(cosigned) >= quorum, "proof", f"{len(cosigned)} witnesses have cosigned, {quorum} are needed")
    size, root = decimal(size), base64_bytes(root, 32)
    require(size or root == sha256(), "proof", "the checkpoint has no leaves and the root of another tree")
    require(all(extensions) and len(extensions) <= MAX_EXTENSIONS, "proof", "lines after the root are empty or too many")
    return origin, size, root, len(cosigned)


def check_continues(path, known, log, witnesses, quorum):
    """That the checkpoint in a file of `logline log consistency` continues a known one, which the log has signed."""
    head, _, note = text_of(path).partition("\n\n")
    lines = head.split("\n")
    require(lines[0].startswith("old "), "proof", "the line `old` is missing")
    old_size = decimal(lines.pop(0)[4:])
    require(len(lines) <= 63, "proof", "it has more than 63 hashes")
    proof = [base64_bytes(line, 32) for line in lines]
    origin, size, root, cosigned = open_checkpoint(note, log, witnesses, quorum)
    _, known_size, known_root, _ = open_checkpoint(text_of(known), log, [], 0)
    require(known_size == old_size, "proof", f"the proof begins at {old_size} leaves, the known checkpoint has {known_size}")
    check_consistency((known_size, known_root), (size, root), proof)
    return f"log {origin} has grown from {known_size} to {size} leaves, cosigned by {cosigned} witnesses"


# Files

class Verifier:
    def __init__(self, say=print):
        self.say, self.rows, self.bad, self.heads, self.keys, self.hash = say, 0, 0, {}, set(), blake3()
        self.row = None  # the last one whose columns are valid

    def problem(self, text):
        self.bad += 1
        self.say(text)

    def export(self, file):
        for raw in iter(lambda: file.readline(MAX_LINE), b""):
            self.rows += 1
            self.hash.update(raw)
            if len(raw) == MAX_LINE:
                return self.problem(f"line {self.rows}: ?/?/?: longer than {MAX_LINE} bytes; the rest was not checked")
            label, problems = self.line(raw)
            if problems:
                self.problem(f"line {self.rows}: {label}: " + "; ".join(problems))

    def line(self, raw):
        label, chain, problems = "?/?/?", None, []
        try:
            row = read_json(raw)
            require(isinstance(row, dict), "not_an_object", "a row is a json object")
            row = {name: value for name, value in row.items() if value is not None}
            label = "/".join(ascii(row.get(name, "?")).strip("'") for name in ("tenant_id", "id", "seq"))
            chain = jcs(row.get("tenant_id")), jcs(row.get("id"))
            check_row(row)
        except Bad as e:
            if chain:
                self.heads[chain] = None
            return label, [str(e)]
        self.keys.add(row["public_key"])
        self.row = row
        try:
            check_seal(row)
        except Bad as e:
            problems.append(str(e))
        problems += link_problems(row, self.heads, chain)
        if not self.heads.get(chain) or row["seq"] > self.heads[chain][0]:
            self.heads[chain] = row["seq"], row["curr_hash"], row["owner_id"], row["entity_type"]
        return label, problems

    def sidecar(self, file, expected):
        number, footer, heads_hash, previous, left = 0, None, blake3(), None, dict(self.heads)
        try:
            for raw in iter(lambda: file.readline(1 << 14), b""):
                number += 1
                require(footer is None, "sidecar", "nothing may follow the signed line")
                value = read_json(raw)
                canonical = isinstance(value, dict) and jcs(value).encode() + b"\n" == raw
                require(canonical, "sidecar", "it is not one canonical json object")
                if "type" in value:
                    footer = value
                    continue
                require(set(value) == HEAD, "sidecar", "it is neither a head nor the signed line")
                for name in HEAD:
                    check_column(name, value[name])
                tenant, span_id, seq, curr_hash = (value[name] for name in ("tenant_id", "id", "seq", "curr_hash"))
                order = tenant.encode(), span_id
                require(previous is None or previous < order, "sidecar", "heads are not in the order of tenant and id")
                previous = order
                heads_hash.update(raw)
                found = left.pop((jcs(tenant), jcs(span_id)), None)
                if found is None or found[:2] != (seq, curr_hash):
                    there = f"the last version found is {found[0]}, {found[1]}" if found else "it was not found"
                    name = ascii(tenant).strip("'")
                    self.problem(f"sidecar line {number}: {name}/{span_id}/{seq}: named with {curr_hash}; {there}")
            require(footer is not None, "sidecar", "the signed line is missing: the sidecar was cut off")
            require(set(footer) == FOOTER and footer["type"] == "logline.sidecar" and footer["v"] == 1,
                    "sidecar", "it is not a sidecar's signed line, version 1")
            key, signature = footer["public_key"], footer.pop("signature")
            check_column("public_key", key)
            check_column("signature", signature)
            check_signature(key, SIDECAR, blake3(jcs(footer).encode()).digest(), signature)
            require(expected in (None, key), "sidecar", f"signed by {key}, not by {expected}")
        except Bad as e:
            return self.problem(f"sidecar line {number}: {e}")
        for name, found in (("heads_blake3", heads_hash.hexdigest()), ("export_blake3", self.hash.hexdigest()),
                            ("spans", self.rows), ("chains", len(self.heads))):
            if footer[name] != found:
                self.problem(f"sidecar: {name} is {ascii(footer[name])}, found {found}")
        for tenant, span_id in left:
            self.problem(f"sidecar: {ascii(tenant)}/{ascii(span_id)}: a chain that the sidecar does not name")
        return self.say(f"sidecar: {number - 1} heads, signed by {key} at {ascii(footer['at'])}")

    def log(self, what, check, options, *given):
        try:
            self.say(f"{what}: " + check(*given, options.log_key, options.witness, options.quorum))
        except Bad as e:
            self.problem(f"{what}: {e}")


def key_of(kind):
    def read(text):
        try:
            key = note_key(text)
            require(key[1] == kind, "proof", "it is not the key of a " + ("log" if kind == LOG else "witness"))
            return key
        except Bad as e:
            raise argparse.ArgumentTypeError(str(e))
    return read


def public_key(text):
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("a public key is 64 lower-case hex digits")
    return text


def main(argv=None, say=print):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", metavar="EXPORT.ndjson")
    parser.add_argument("--sidecar", metavar="FILE", help="the signed sidecar of the same export")
    parser.add_argument("--key", metavar="HEX", type=public_key, help="the key that must have signed the sidecar")
    parser.add_argument("--proof", metavar="FILE", help="a .tlog-proof of the one row in the export")
    parser.add_argument("--consistency", metavar="FILE", help="the proof that the log continues a known checkpoint")
    parser.add_argument("--known", metavar="FILE", help="the checkpoint that you know, signed by the log")
    parser.add_argument("--log-key", metavar="NAME+ID+BASE64", type=key_of(LOG), help="the key of the log that you trust")
    parser.add_argument("--witness", metavar="NAME+ID+BASE64", type=key_of(WITNESS), action="append", default=[],
                        help="the key of a witness that you trust; may be given several times")
    parser.add_argument("--quorum", metavar="N", type=int, default=0, help="how many of them must have cosigned")
    options = parser.parse_args(argv)
    if options.key and not options.sidecar:
        parser.error("--key needs --sidecar")
    if bool(options.proof or options.consistency) != bool(options.log_key):
        parser.error("--proof or --consistency, and --log-key, need each other")
    if bool(options.consistency) != bool(options.known):
        parser.error("--consistency and --known need each other")
    if len({key[2] for key in options.witness}) < len(options.witness):
        parser.error("a witness is given twice: a key counts once, whatever its name")
    if not 0 <= options.quorum <= len(options.witness):
        parser.error("--quorum must be a number from 0 to that of the witnesses")
    verifier = Verifier(say)
    try:
        with open(options.export, "rb") as file:
            verifier.export(file)
        if options.sidecar:
            with open(options.sidecar, "rb") as file:
                verifier.sidecar(file, options.key)
        if options.proof:
            verifier.log("proof", check_proof, options, options.proof, verifier.row if verifier.rows == 1 else None)
        if options.consistency:
            verifier.log("consistency", check_continues, options, options.consistency, options.known)
    except OSError as e:
        parser.error(str(e))
    say(f"{verifier.rows} rows in {len(verifier.heads)} chains, signed by {len(verifier.keys)} keys: "
        f"{verifier.bad} problems. Integrity only: whether each key was allowed to sign was not checked.")
    return 1 if verifier.bad else 0


if __name__ == "__main__":
    sys.exit(main())
