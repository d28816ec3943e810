#!/usr/bin/env python3
"""Opens the envelopes of encrypted memories (docs/memory.md), with `cryptography` alone.

    envelope.py VECTORS        opens every envelope of a file of vectors, and none of the forgery
"""

import hmac
import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HEADER = 98


class NotOpened(Exception):
    """The envelope does not open, and why."""


def framed(*parts):
    """Each part with its length before it, in 4 bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def derive(salt, key, purpose):
    return HKDF(algorithm=SHA512(), length=32, salt=salt, info=purpose.encode()).derive(key)


def open_envelope(key, tenant, subject, span, field, envelope):
    """The text, or NotOpened. `span` has 16 bytes."""
    if len(envelope) < HEADER + 16 or envelope[:4] != b"LLME":
        raise NotOpened("it is not an envelope, or it was cut off")
    if envelope[4:6] != b"\x01\x01":
        raise NotOpened("another version or suite")
    salt, commitment, nonce = envelope[22:54], envelope[54:86], envelope[86:98]
    if not hmac.compare_digest(commitment, derive(salt, key, "logline.envelope.v1.commit")):
        raise NotOpened("another key")
    place = framed(tenant.encode(), subject.encode(), span, field.encode())
    try:
        cipher = AESGCM(derive(salt, key, "logline.envelope.v1.encrypt"))
        return cipher.decrypt(nonce, envelope[HEADER:], envelope[:HEADER] + place)
    except InvalidTag:
        raise NotOpened("it was changed, or belongs elsewhere") from None


def opened(vector, key=None):
    """Opens an entry of a file of vectors."""
    return open_envelope(
        bytes.fromhex(key or vector["key"]),
        vector["tenant"],
        vector["subject"],
        bytes.fromhex(vector["span"].replace("-", "")),
        vector["field"],
        bytes.fromhex(vector["envelope"]),
    )


def main(path):
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)
    for vector in vectors["envelopes"]:
        if opened(vector).decode() != vector["text"]:
            sys.exit(f"{vector['envelope'][:64]}… opens to another text")
    place = vectors["envelopes"][0]
    for key in vectors["forgery"]["keys"]:
        try:
            opened({**place, "envelope": vectors["forgery"]["envelope"]}, key)
        except NotOpened:
            continue
        sys.exit("an envelope that was forged for two keys opens")
    print(f"{len(vectors['envelopes'])} envelopes open, the forgery does not")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
