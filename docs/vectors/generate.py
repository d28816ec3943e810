#!/usr/bin/env python3
"""Writes the test vectors of canonical form v1. Needs ../verify/requirements.txt; run it in any folder.

The JCS serialiser is the one of verify.py; everything that a vector adds to it (defaults, normalisation, seal) is done
here from docs/canonical-form.md. The output is deterministic: running it again changes no byte.
"""
import base64
import hashlib
import json
import math
import struct
import sys
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "verify"))
from verify import SPAN, jcs, jcs_number  # noqa: E402

# The secrets of RFC 8032, section 7.1, tests 1 to 3: published, so never to be used for anything else.
SEEDS = ["9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
         "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
         "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"]
ID = "01956a3f-8c00-7000-8000-00000000000"
BASE = {"id": ID + "1", "entity_type": "note", "who": "user:alice", "this": "note.meeting", "tenant_id": "acme",
        "owner_id": "alice", "at": "2026-03-02T09:14:05.000000Z"}


# spans.json

def whole(value):
    """Whole doubles become integers; -0 becomes 0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value


def seal(columns, seed, canonical):
    """`canonical`: the columns whose canonical spelling differs from the draft's, written out by hand."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    row = {"v": 1, "seq": 0, "is_deleted": False, "visibility": "private", **columns, **canonical}
    row["public_key"] = key.public_key().public_bytes_raw().hex()
    row = {name: whole(value) for name, value in row.items() if value is not None}
    if not row.get("related_to", True):
        del row["related_to"]
    payload = jcs(row)
    digest = blake3(payload.encode()).digest()
    signature = key.sign(b"DSSEv1 %d %s 32 %s" % (len(SPAN), SPAN.encode(), digest)).hex()
    row.update(curr_hash=digest.hex(), signature=signature)
    return {"payload": payload, "curr_hash": digest.hex(), "signature": signature, "public_key": row["public_key"],
            "line": jcs(row)}


EVERY = {"seq": 7, "did": "defined", "parent_id": ID + "2", "related_to": [ID + "4", ID + "3"], "visibility": "public",
         "status": "active", "is_deleted": False, "name": "score_payments", "description": "Scores one payment.",
         "code": "fn main() {\n\treturn \"ok\";\n}\n", "language": "rust", "runtime": "native@1",
         "input": {"amount": "120.50", "currency": "EUR"}, "output": {"decision": "allow", "score": -15},
         "error": {"code": "late", "message": "after the deadline"}, "content": ["any", "json", 1, True, None],
         "duration_ms": 2147483647, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
         "metadata": {"attempt": 1, "worker": "w-1"}}

# name, columns beside BASE, columns whose canonical spelling differs
SPANS = [
    ("minimal", {}, {}),
    ("every column", {"entity_type": "function", **EVERY}, {}),
    ("keys in utf-16 order: U+1F600 before U+E000, U+FB33 and U+FFFD",
     {"metadata": {"\ufffd": 1, "\U0001f600": 2, "\ue000": 3, "\ufb33": 4, "\ud7ff": 5, "\U0010ffff": 6, "a": 7,
                   "": 8, "A": 9, "\u0080": 10, "\u20ac": 11, "\r": 12, "1": 13, "10": 14, "2": 15, "ab": 16,
                   "a\U00010000": 17, "a\uffff": 18}}, {}),
    ("keys in utf-16 order, nested", {"content": [{"\ue000": {"\U00010000": 1, "\ue001": 2}, "\U00010000": []}]}, {}),
    ("nesting", {"content": {"b": [[], {}, [[[{"c": [None]}]]]], "a": {"b": {"a": {"b": {"a": "deep"}}}}}}, {}),
    ("64 levels", {"content": json.loads("[" * 63 + "]" * 63)}, {}),
    ("numbers", {"content": [0.1, 1e-7, 4.35, 333333333.3333333, 9007199254740991, -9007199254740991, -0.0, 0, 1.0,
                             -1.5, 5e-324, 1e-6, 123456789.123, 1e15, 0.5, 100, 2.2250738585072014e-308, 1e-5,
                             9007199254740990.0, 4503599627370495.5, 1.7976931348623157e-300, 0.30000000000000004]}, {}),
    ("numbers: one value in many notations",
     {"content": {"a": 100.0, "b": 1e2, "c": 100, "d": 1000e-1}, "input": -0.0, "output": 1.0}, {}),
    ("control characters", {"content": "".join(map(chr, range(1, 0x20)))}, {}),
    ("strings", {"content": {"quotes": "\"'", "backslash": "\\ \\n", "delete": "\x7f", "c1": "\x80\x9f",
                             "separators": "\u2028\u2029", "emoji": "\U0001f600\U0001f9d1\u200d\U0001f4bb",
                             "slash": "</script>", "bom": "\ufeff", "last": "\U0010ffff\uffff"}}, {}),
    ("no unicode normalisation", {"content": ["\u00e9", "e\u0301"], "name": "Zo\u0065\u0308"}, {}),
    ("text columns with control characters", {"code": "a\tb\r\n\x01\x7f", "description": "\u2028", "who": "a\"b\\c"}, {}),
    ("identifiers beyond ascii", {"tenant_id": "\u00e4cme-\U0001f600", "owner_id": "\u30a2\u30ea\u30b9"}, {}),
    ("a name of 256 bytes", {"trace_id": "\u00e9" * 128}, {}),
    ("empty object", {"metadata": {}, "input": {}}, {}),
    ("empty array and empty string", {"content": [], "output": "", "name": "", "status": "", "did": ""}, {}),
    ("false, zero and null inside", {"input": False, "output": 0, "content": {"a": None}, "duration_ms": 0}, {}),
    ("null columns are absent", {"content": None, "status": None, "parent_id": None, "related_to": None, "seq": None,
                                 "visibility": None, "is_deleted": None, "did": None},
     {"seq": 0, "visibility": "private", "is_deleted": False}),
    ("related_to keeps its order and its duplicates", {"related_to": [ID + "9", ID + "8", ID + "9"]}, {}),
    ("an empty related_to is absent", {"related_to": []}, {}),
    ("upper-case uuids become lower-case",
     {"id": "01956A3F-8C00-7000-8000-00000000ABCD", "parent_id": "01956A3F-8C00-7000-8000-00000000ABCE",
      "related_to": ["01956A3F-8C00-7000-8000-00000000ABCF"]},
     {"id": "01956a3f-8c00-7000-8000-00000000abcd", "parent_id": "01956a3f-8c00-7000-8000-00000000abce",
      "related_to": ["01956a3f-8c00-7000-8000-00000000abcf"]}),
    ("time without a fraction", {"at": "2026-03-02T09:14:05Z"}, {"at": "2026-03-02T09:14:05.000000Z"}),
    ("time with an offset", {"at": "2026-03-02T00:14:05.5+01:30"}, {"at": "2026-03-01T22:44:05.500000Z"}),
    ("time truncated to microseconds", {"at": "2026-03-02T09:14:05.999999999Z"}, {"at": "2026-03-02T09:14:05.999999Z"}),
    ("time before 1970, truncated towards the past",
     {"at": "1969-12-31T23:59:59.9999999Z"}, {"at": "1969-12-31T23:59:59.999999Z"}),
    ("first year", {"at": "0001-01-01T00:00:00Z"}, {"at": "0001-01-01T00:00:00.000000Z"}),
    ("last microsecond", {"at": "9999-12-31T23:59:59.999999Z"}, {}),
    ("leap day", {"at": "2024-02-29T12:00:00.1Z"}, {"at": "2024-02-29T12:00:00.100000Z"}),
    ("is_deleted", {"is_deleted": True, "status": "deleted"}, {}),
    ("visibility tenant", {"visibility": "tenant"}, {}),
    ("first version with a seq above 0", {"seq": 2147483647}, {}),
    ("version 1 of the minimal span", {"seq": 1, "at": "2026-03-02T09:15:00.000000Z", "content": {"text": "changed"},
                                       "prev_hash": "minimal"}, {}),
    ("version 2 of the minimal span, a tombstone", {"seq": 2, "at": "2026-03-02T09:16:00.000000Z", "is_deleted": True,
                                                    "prev_hash": "version 1 of the minimal span"}, {}),
]


def spans():
    found = {}
    for index, (name, extra, canonical) in enumerate(SPANS):
        columns = {**BASE, **extra}
        if "prev_hash" in columns:
            columns["prev_hash"] = found[columns["prev_hash"]]["curr_hash"]
        seed = SEEDS[index % 3]
        found[name] = {"name": name, "seed": seed, "columns": columns, **seal(columns, seed, canonical)}
    return list(found.values())


# jcs.json: the expected texts are written out, not computed, so that they check the serialiser too

JCS = [
    ("rfc 8785 section 3.2.2", r'''{
  "numbers": [333333333.33333329, 1E30, 4.50,
              2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}''', '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
          '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'),
    ("rfc 8785 section 3.2.3", r'''{
  "\u20ac": "Euro Sign",
  "\r": "Carriage Return",
  "\ufb33": "Hebrew Letter Dalet With Dagesh",
  "1": "One",
  "\ud83d\ude00": "Emoji: Grinning Face",
  "\u0080": "Control",
  "\u00f6": "Latin Small Letter O With Diaeresis"
}''', '{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis",'
          '"\u20ac":"Euro Sign","\U0001f600":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}'),
    ("empty object", " { } ", "{}"),
    ("empty array", "[\n]", "[]"),
    ("top-level string", '"\\u0041\\/"', '"A/"'),
    ("top-level number", "-0.0", "0"),
    ("top-level null", "null", "null"),
    ("arrays keep their order", "[56, {\"d\": true, \"10\": null, \"1\": []}]", '[56,{"1":[],"10":null,"d":true}]'),
    ("keys that are prefixes", '{"aa":1,"a":2,"":3,"B":4,"b":5}', '{"":3,"B":4,"a":2,"aa":1,"b":5}'),
    ("nested objects are sorted too", '{"b":{"z":1,"a":{"y":1,"x":2}},"a":[{"b":1,"a":2}]}',
     '{"a":[{"a":2,"b":1}],"b":{"a":{"x":2,"y":1},"z":1}}'),
    ("surrogates sort below U+E000", '{"\\ue000":1,"\\ud800\\udc00":2,"\\udbff\\udfff":3,"\\ud7ff":4,"\\uffff":5}',
     '{"\ud7ff":4,"\U00010000":2,"\U0010ffff":3,"\ue000":1,"\uffff":5}'),
    ("every escape", '"\\b\\f\\n\\r\\t\\"\\\\\\/\\u0001\\u001F\\u007f\\u0080\\u2028\\u2029"',
     '"\\b\\f\\n\\r\\t\\"\\\\/\\u0001\\u001f\u007f\u0080\u2028\u2029"'),
    ("no unicode normalisation", '["A\\u030a","\\u00c5"]', '["A\u030a","\u00c5"]'),
    ("numbers at the changes of notation",
     "[1e21, 999999999999999900000, 1e20, 0.000001, 0.0000001, 1.5e-7, 123e-20, 1e23, 1.0, -0, 100, 5e-324]",
     "[1e+21,999999999999999900000,100000000000000000000,0.000001,1e-7,1.5e-7,1.23e-18,1e+23,1,0,100,5e-324]"),
]

# RFC 8785, appendix B, its table in full
NUMBERS = [
    ("0000000000000000", "0"), ("8000000000000000", "0"), ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"), ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"), ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"), ("4430000000000000", "295147905179352830000"),
    ("7fffffffffffffff", None), ("7ff0000000000000", None), ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"), ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"), ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"), ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"), ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"), ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"), ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"), ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


# invalid.json

def invalid():
    plain = json.dumps(BASE)
    sealed = {**BASE, "v": 1, "seq": 0, "is_deleted": False, "visibility": "private", "curr_hash": "1" * 64,
              "public_key": "2" * 64, "signature": "3" * 128}
    found = []

    def add(error, name, line):
        text = {"line_hex": line.hex()} if isinstance(line, bytes) else {"line": line}
        found.append({"name": name, **text, "error": error})

    def member(text):
        """The unsigned line with one more member, as raw text."""
        return plain[:-1] + ", " + text + "}"

    def with_columns(base, **columns):
        return json.dumps({k: v for k, v in {**base, **columns}.items() if v != "absent"})

    for name, text in [
        ("top level", member('"who": "mallory"')), ("top level, same value", member('"tenant_id": "acme"')),
        ("written with an escape", member('"wh\\u006f": "mallory"')),
        ("nested", member('"content": {"amount": 1, "amount": 1000000}')),
        ("in an array", member('"content": [{"a": {"b": 1, "c": 2, "b": 3}}]')),
        ("escaped twice differently", member('"content": {"\\u0061": 1, "a": 2}')),
        ("empty keys", member('"metadata": {"": 1, "": 2}')), ("null twice", member('"content": null, "content": null')),
        ("beyond U+FFFF", member('"metadata": {"\U0001f600": 1, "\\ud83d\\ude00": 2}')),
    ]:
        add("duplicate_key", f"duplicate key: {name}", text)
    for number in ["9007199254740992", "-9007199254740992", "9007199254740992.0", "9.007199254740992e15", "1e400", "-1e400",
                   "90071992547409920e-1", "9007199254740991.1", "-9007199254740991.00000000000000001", "1e21", "1E16",
                   "18446744073709551615", "0.00009007199254740992e20", "1e999999999999999999999",
                   "1" + "0" * 400, "9007199254740993000e-3"]:
        add("number_out_of_range", f"number {number[:40]}", member(f'"content": {number}'))
    add("number_out_of_range", "number in a column that must be a string", member('"status": 9007199254740993'))
    add("number_out_of_range", "number in seq", member('"seq": 1e400'))
    for number in ["NaN", "Infinity", "-Infinity"]:
        add("non_finite", f"number {number}", member(f'"content": [{number}]'))
    for name, text in [("escaped", '"content": "a\\u0000b"'), ("raw", '"content": "a\0b"'),
                       ("in a key", '"metadata": {"\\u0000": 1}'), ("in a name", '"status": "\\u0000"')]:
        add("nul", f"U+0000 {name}", member(text))
    for name, text in [("high alone", "\\ud83d"), ("low alone", "\\ude00"), ("reversed", "\\ude00\\ud83d"),
                       ("high, high", "\\ud83d\\ud83d"), ("high, then text", "\\ud83dx"),
                       ("high, then another escape", "\\ud83d\\n"), ("high, then an escape that is no surrogate", "\\udbff\\u0041")]:
        add("lone_surrogate", f"surrogate: {name}", member(f'"content": "{text}"'))
    add("lone_surrogate", "surrogate in a key", member('"metadata": {"\\udfff": 1}'))
    add("too_deep", "65 levels of arrays", member(f'"content": {"[" * 64}{"]" * 64}'))
    add("too_deep", "65 levels of objects", member('"content": ' + '{"a":' * 63 + "{}" + "}" * 63))
    add("too_deep", "65 levels, mixed", member('"metadata": ' + '{"a":[' * 32 + "]}" * 32))
    add("too_deep", "5000 levels, never closed", member(f'"content": {"[" * 5000}')[:-1])
    for name, raw in [("a byte that never stands in utf-8", b"\xff"), ("overlong slash", b"\xc0\xaf"),
                      ("overlong nul", b"\xc0\x80"), ("surrogate in utf-8", b"\xed\xa0\xbd\xed\xb8\x80"),
                      ("beyond U+10FFFF", b"\xf4\x90\x80\x80"), ("cut off", b"\xe2\x82"), ("latin-1", b"caf\xe9")]:
        add("utf8", f"utf-8: {name}", member('"content": "@"').encode().replace(b"@", raw))
    add("utf8", "utf-16 with its mark", b"\xff\xfe" + plain.encode("utf-16-le"))
    for name, text in [
        ("byte order mark", "\ufeff" + plain), ("empty line", ""), ("white space only", " \t"),
        ("cut off", plain[:-1]), ("two objects", plain + plain), ("trailing comma", plain[:-1] + ",}"),
        ("something after the object", plain + " x"), ("comment", plain + " // note"), ("single quotes", plain.replace('"', "'")),
        ("key without quotes", member("content: 1")), ("raw tab in a string", member('"content": "a\tb"')),
        ("raw U+0001 in a string", member('"content": "\x01"')), ("unknown escape", member('"content": "\\x41"')),
        ("short escape", member('"content": "\\u041"')), ("escape with a sign", member('"content": "\\u+041"')),
        ("leading zero", member('"content": 01')), ("leading plus", member('"content": +1')),
        ("no digit before the point", member('"content": .5')), ("no digit after the point", member('"content": 1.')),
        ("no digit in the exponent", member('"content": 1e')), ("hexadecimal", member('"content": 0x10')),
        ("minus alone", member('"content": -')), ("nan in lower case", member('"content": nan')),
        ("literal in upper case", member('"content": TRUE')), ("literal with a tail", member('"content": nullx')),
        ("string that does not end", member('"content": "a')[:-1]), ("no-break space between tokens", member('\u00a0"content": 1')),
        ("trailing comma in an array", member('"content": [1,]')), ("nul between tokens", member('\0"content": 1')),
    ]:
        add("syntax", f"syntax: {name}", text)
    for text in ["[]", "null", "true", "0", '"note"', f"[{plain}]"]:
        add("not_an_object", f"not an object: {text[:8]}", text)
    for column, value in [("when", "2026-03-02T09:14:05Z"), ("V", 1), ("Who", "w"), ("who ", "w"), ("", 0), ("hash", "1" * 64),
                          ("deleted", True), ("__proto__", {}), ("id\u200b", ID + "1"), ("pos", 1)]:
        add("unknown_column", f"unknown column {column!a}", with_columns(BASE, **{column: value}))
    add("unknown_column", "unknown column in a signed line", with_columns(sealed, when="2026-03-02T09:14:05Z"))
    for column in ["id", "entity_type", "who", "this", "tenant_id", "owner_id", "at"]:
        add("missing", f"missing: {column}", with_columns(sealed, **{column: "absent"}))
    for column in ["entity_type", "who", "this", "tenant_id", "owner_id"]:
        add("missing", f"missing: {column} is empty", with_columns(sealed, **{column: ""}))
    add("missing", "missing: tenant_id is null", with_columns(sealed, tenant_id=None))
    add("missing", "missing: the nil uuid", with_columns(sealed, id="00000000-0000-0000-0000-000000000000"))
    for column, value in [("who", 5), ("this", ["t"]), ("status", True), ("code", {"a": 1}), ("tenant_id", 1), ("id", 1),
                          ("at", 1772442845), ("is_deleted", "true"), ("is_deleted", 0), ("related_to", ID + "1"),
                          ("related_to", [1]), ("related_to", [None]), ("related_to", {}), ("parent_id", {}),
                          ("visibility", False), ("curr_hash", 5), ("signature", [])]:
        add("type", f"type: {column} = {json.dumps(value)}", with_columns(BASE, **{column: value}))
    for column in ["entity_type", "tenant_id", "owner_id", "status", "trace_id"]:
        add("name_too_long", f"257 bytes: {column}", with_columns(sealed, **{column: "a" * 257}))
    add("name_too_long", "129 characters of 2 bytes", with_columns(sealed, owner_id="\u00e9" * 129))
    for column, value in [("tenant_id", "ac\nme"), ("owner_id", "alice\x7f"), ("entity_type", "note\t"), ("status", "\x1b[2J"),
                          ("trace_id", "\u0085"), ("tenant_id", "\u009f")]:
        add("control_character", f"control character: {column} = {value!a}", with_columns(sealed, **{column: value}))
    for value in ["Private", "secret", "", " public", "all"]:
        add("visibility", f"visibility {value!a}", with_columns(BASE, visibility=value))
    for text in ["-1", "-1.0", "-9007199254740991"]:
        add("negative_seq", f"seq {text}", member(f'"seq": {text}'))
    for text in ['"seq": 2147483648', '"seq": 4294967296', '"seq": 1.5', '"seq": -0.5', '"seq": "1"', '"seq": true',
                 '"seq": 9007199254740991', '"duration_ms": -1', '"duration_ms": 2147483648', '"duration_ms": 0.5',
                 '"duration_ms": "5"']:
        add("integer_out_of_range", text.replace('"', ""), member(text))
    for at in ["2026-03-02T23:59:60Z", "2016-12-31T23:59:60.000000Z", "2026-03-02T09:14:60.5Z", "0000-01-01T00:00:00Z",
               "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "-0001-01-01T00:00:00Z",
               "+2026-03-02T09:14:05Z", "2026-03-02", "2026-03-02T09:14:05", "2026-02-29T09:14:05Z", "2026-13-01T00:00:00Z",
               "2026-03-02T24:00:00Z", "2026-03-02T09:60:00Z", "2026-03-02T09:14Z", "2026-03-02T09:14:05.Z",
               "2026-03-02T09:14:05+0100", "1772442845", "", "now", "\u0662\u0660\u0662\u0666-03-02T09:14:05Z",
               "2026-03-02T09:14:05\u221201:00", "2026-03-02T09:14:05Z ", "Mon, 02 Mar 2026 09:14:05 GMT"]:
        add("timestamp", f"at {at!a}", with_columns(BASE, at=at))
    for column, value in [("id", "note-1"), ("id", ""), ("id", ID.replace("-", "") + "1"), ("id", "{" + ID + "1}"),
                          ("id", "urn:uuid:" + ID + "1"), ("id", ID + "g"), ("parent_id", ID), ("parent_id", "root"),
                          ("related_to", [ID + "1", "x"]), ("related_to", [""]), ("id", " " + ID)]:
        add("uuid", f"uuid: {column} = {json.dumps(value)}", with_columns(sealed, **{column: value}))
    for column, value in [("curr_hash", "A" * 64), ("public_key", "1" * 63 + "F"), ("signature", "3" * 127 + "A"),
                          ("curr_hash", "1" * 63), ("curr_hash", "1" * 65), ("signature", "3" * 64), ("public_key", ""),
                          ("curr_hash", "0x" + "1" * 62), ("curr_hash", "g" * 64), ("public_key", " " + "2" * 63)]:
        add("hex", f"hex: {column} = {value[:12]!a} ({len(value)})", with_columns(sealed, **{column: value}))
    add("hex", "hex: prev_hash in upper case", with_columns(sealed, seq=1, prev_hash="AB" * 32))
    add("hex", "hex: prev_hash in an unsigned line", with_columns(BASE, seq=1, prev_hash="first"))
    for text in ["2", "0", "-1", '"1"', "1.5", "true", "[1]"]:
        add("version", f"v {text}", member(f'"v": {text}'))
    for absent in [["signature"], ["curr_hash"], ["public_key"], ["curr_hash", "signature"], ["curr_hash", "public_key"],
                   ["signature", "public_key"]]:
        add("incomplete_seal", f"without {' and '.join(absent)}", with_columns(sealed, **dict.fromkeys(absent, "absent")))
    add("incomplete_seal", "signature is null", with_columns(sealed, signature=None))
    add("unsigned_with_predecessor", "prev_hash in an unsigned line", with_columns(BASE, seq=1, prev_hash="1" * 64))
    add("unsigned_with_predecessor", "prev_hash in an unsigned line of seq 0", with_columns(BASE, prev_hash="1" * 64))
    add("predecessor_of_zero", "prev_hash at seq 0", with_columns(sealed, prev_hash="4" * 64))
    add("predecessor_of_zero", "prev_hash at seq 0.0e1", json.dumps({**sealed, "prev_hash": "4" * 64}).replace('"seq": 0', '"seq": 0.0e1'))
    return found


# blake3.json

# Around every border of blocks (64) and chunks (1024), and of trees whose sides are not alike.
LENGTHS = [0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 1087, 1088, 1089, 2047, 2048, 2049, 3072, 3073, 4096, 4097, 5120,
           5121, 6144, 6145, 7168, 7169, 8192, 8193, 16384, 16385, 31744, 31745, 65536, 102400, 1048576]


def blake3_of_lengths():
    """As in BLAKE3's own test vectors, the input is 0, 1, …, 250, 0, 1, … up to its length."""
    return [{"length": length, "hash": blake3(bytes(index % 251 for index in range(length))).hexdigest()} for length in LENGTHS]


# checkpoints.json

LOG_SEED, WITNESS_SEED, LOG_NAME, WITNESS_NAME = "01" * 32, "02" * 32, "log.invalid/vectors", "witness.example/w"
ROOT = base64.b64encode(hashlib.sha256(b"\0a leaf").digest()).decode()


def checkpoints():
    """Checkpoints at every bound of docs/log.md and beyond it, with valid signatures."""
    def line(name, kind, seed, message, stamp=b""):
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
        key_id = hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key.public_key().public_bytes_raw()).digest()[:4]
        return f"\u2014 {name} " + base64.b64encode(key_id + stamp + key.sign(message)).decode() + "\n"

    def cosigned(text, time):
        message = f"cosignature/v1\ntime {time}\n{text}".encode()
        return line(WITNESS_NAME, 4, WITNESS_SEED, message, time.to_bytes(8, "big"))

    def note(text, *more, time=1_700_000_000):
        return text + "\n" + line(LOG_NAME, 1, LOG_SEED, text.encode()) + cosigned(text, time) + "".join(more)

    def text(size="1", root=ROOT, more=""):
        return f"{LOG_NAME}\n{size}\n{root}\n{more}"

    plain, empty = text(), base64.b64encode(hashlib.sha256().digest()).decode()

    def others(count):
        return [f"\u2014 other{n} YWJjZGVmZ2g=\n" for n in range(count)]

    def other(name, signature="YWJjZGVmZ2g="):
        return f"\u2014 {name} {signature}\n"

    return [{"name": name, "note": value, "is_accepted": is_accepted} for name, value, is_accepted in [
        ("as it should be", note(plain), True),
        ("time 1", note(plain, time=1), True),
        ("time 0", note(plain, time=0), False),
        ("time 2^63-1", note(plain, time=2**63 - 1), True),
        ("time 2^63", note(plain, time=2**63), False),
        ("time 2^64-1", note(plain, time=2**64 - 1), False),
        ("a witness that has signed twice", note(plain, cosigned(plain, 5)), True),
        ("a witness whose second time is 0", note(plain, cosigned(plain, 0)), False),
        ("100 lines of signatures", note(plain, *others(98)), True),
        ("101 lines of signatures", note(plain, *others(99)), False),
        ("150 lines of signatures", note(plain, *others(148)), False),
        ("an extension", note(text(more="x\n")), True),
        ("16 extensions", note(text(more="x\n" * 16)), True),
        ("17 extensions", note(text(more="x\n" * 17)), False),
        ("20 extensions", note(text(more="x\n" * 20)), False),
        ("an empty extension", note(text(more="\n")), False),
        ("an extension after an empty line", note(text(more="\nextra after an empty line\n")), False),
        ("an extension before an empty line", note(text(more="x\n\n")), False),
        ("no root", note(f"{LOG_NAME}\n1\n"), False),
        ("size 2^64-1", note(text(2**64 - 1)), True),
        ("size 2^64", note(text(2**64)), False),
        ("size 99999999999999999999", note(text(10**20 - 1)), False),
        ("size 0", note(text(0, empty)), True),
        ("size 0 with the root of another tree", note(text(0)), False),
        ("size 01", note(text("01")), False),
        ("a root without its padding", note(text(root=ROOT.rstrip("="))), False),
        ("a line by a name of 255 bytes", note(plain, other("n" * 255)), True),
        ("a line by a name of 256 bytes", note(plain, other("n" * 256)), False),
        ("a line by a name of 128 characters and 256 bytes", note(plain, other("\u00e9" * 128)), False),
        ("a line by a name with a plus", note(plain, other("a+b")), False),
        ("a line by a name with a no-break space", note(plain, other("a\u00a0b")), False),
        ("a line by a name with a control character", note(plain, other("a\u0085b")), False),
        ("a line by a name with U+007F", note(plain, other("a\x7fb")), False),
        ("a line by an empty name", note(plain, other("")), False),
        ("a line with four bytes", note(plain, other("other", "YWJjZA==")), False),
        ("a line with five bytes", note(plain, other("other", "YWJjZGU=")), True),
        ("a line whose base64 is not canonical", note(plain, other("other", "YWJjZGV=")), False),
        ("a line with two spaces", note(plain, other("other ")), False),
        ("an empty line at the end", note(plain, "\n"), False),
        ("U+007F in an extension", note(text(more="a\x7fb\n")), True),
        ("U+001F in an extension", note(text(more="a\x1fb\n")), False),
        ("a return in an extension", note(text(more="a\r\n")), False),
    ]]


def main():
    for name, text, canonical in JCS:
        value = json.loads(text, parse_int=float)
        assert jcs(value) == canonical, name
    for bits, text in NUMBERS:
        value = struct.unpack(">d", bytes.fromhex(bits))[0]
        assert (jcs_number(value) if math.isfinite(value) else None) == text, bits
    for name, content in [
        ("spans", spans()),
        ("jcs", [{"name": name, "input": text, "canonical": canonical} for name, text, canonical in JCS]),
        ("numbers", [{"ieee754": bits, "text": text} for bits, text in NUMBERS]),
        ("invalid", invalid()),
        ("blake3", blake3_of_lengths()),
        ("checkpoints", checkpoints()),
    ]:
        lines = ",\n".join(json.dumps(item) for item in content)
        (HERE / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="ascii")
        print(f"{name}.json: {len(content)}")


if __name__ == "__main__":
    main()
