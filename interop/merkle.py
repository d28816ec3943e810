"""Judges trees, proofs and checkpoints of the library with pymerkle and sigstore, and writes proofs of pymerkle's.

usage: merkle.py OURS THEIRS. logline-log/tests/foreign.rs says what the members of a case mean.
"""
import base64
import json
import sys
from types import SimpleNamespace

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pymerkle import InmemoryTree, InvalidProof, verify_consistency, verify_inclusion
from pymerkle.core import _inclusion_path_layout
from pymerkle.proof import InclusionProof
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import SignedCheckpoint, verify_checkpoint
from sigstore._internal.trust import Keyring
from sigstore.errors import VerificationError
from sigstore_models.common import v1

LEAVES = 600


def entry(n):
    return f"entry {n}".encode()


def raw(text):
    return base64.b64decode(text, validate=True)


def text(digest):
    return base64.b64encode(digest).decode()


TREE = InmemoryTree(algorithm="sha256")
for number in range(LEAVES):
    TREE.append_entry(entry(number))
OTHER = InmemoryTree(algorithm="sha256")
OTHER.append_entry(b"another")


def pymerkle_says(case):
    try:
        if case["kind"] == "inclusion":
            index, size, leaf = case["index"] + 1, case["size"], raw(case["leaf"])
            rule, _ = _inclusion_path_layout(index, size)
            path = [leaf, *map(raw, case["proof"])]
            proof = InclusionProof("sha256", True, size, index, rule, path)
            verify_inclusion(leaf, raw(case["root"]), proof, index=index, size=size)
        else:
            # Its proofs have another form, so its own is held to our roots.
            proof = TREE.prove_consistency(case["old"], case["size"])
            verify_consistency(raw(case["old_root"]), raw(case["root"]), proof)
        return True
    except InvalidProof:
        return False


def sigstore_includes(case):
    proof = SimpleNamespace(log_index=case["index"], tree_size=case["size"], hashes=list(map(raw, case["proof"])),
                            root_hash=raw(case["root"]))
    body = entry(case["index"])
    entry_of = SimpleNamespace(_inner=SimpleNamespace(inclusion_proof=proof, canonicalized_body=body))
    try:
        verify_merkle_inclusion(entry_of)
        return True
    except VerificationError:
        return False


def sigstore_opens(case):
    """A checkpoint, as the one of an inclusion proof. The root that it must have is that of the good one."""
    name, _, key = case["key"].split("+", 2)
    key_id = bytes.fromhex(case["key"].split("+", 2)[1])
    der = Ed25519PublicKey.from_public_bytes(raw(key)[1:]).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    keyring = Keyring([v1.PublicKey(raw_bytes=base64.b64encode(der), key_details=v1.PublicKeyDetails.PKIX_ED25519)])
    assert keyring._keyring, "sigstore does not take the key"
    proof = SimpleNamespace(checkpoint=SimpleNamespace(envelope=case["text"]), root_hash=TREE.get_root(300))
    inner = SimpleNamespace(inclusion_proof=proof, log_id=SimpleNamespace(key_id=key_id + bytes(28)))
    try:
        verify_checkpoint(keyring, SimpleNamespace(_inner=inner))
        return SignedCheckpoint.from_text(case["text"]).checkpoint.origin == name
    except VerificationError:
        return False


def main(ours, theirs):
    counts = {}
    with open(ours, encoding="utf-8") as file:
        for line in file:
            case = json.loads(line)
            verdicts = {}
            if case["kind"] == "inclusion":
                verdicts["pymerkle"] = pymerkle_says(case)
                if raw(case["leaf"]) == TREE.get_leaf(case["index"] + 1):
                    verdicts["sigstore"] = sigstore_includes(case)
            elif case["kind"] == "consistency":
                good = TREE.get_root(case["old"]), TREE.get_root(case["size"])
                # A tampered proof says nothing about the roots, which is all that is asked here.
                if case["valid"] or (raw(case["old_root"]), raw(case["root"])) != good:
                    verdicts["pymerkle"] = pymerkle_says(case)
            elif case["kind"] == "note":
                verdicts["sigstore"] = sigstore_opens(case)
            for judge, verdict in verdicts.items():
                if verdict != case["valid"]:
                    sys.exit(f"valid is {case['valid']}, and {judge} says {verdict}: {line[:400]}")
                counts[judge, verdict] = counts.get((judge, verdict), 0) + 1
    for judge in ("pymerkle", "sigstore"):
        good, bad = counts.get((judge, True), 0), counts.get((judge, False), 0)
        if min(good, bad) < 100:
            sys.exit(f"{judge} has judged too few cases: {good} that are valid, {bad} that are not")
        print(f"{judge} agrees: {good} cases are valid, {bad} are not")
    with open(theirs, "w", encoding="ascii") as file:
        for size in (1, 2, 3, 5, 8, 13, 100, 255, 256, 257, LEAVES):
            for index in (0, size // 3, size // 2, 2 * size // 3, size - 1):
                leaf, *proof = TREE.prove_inclusion(index + 1, size).path
                case = {"kind": "inclusion", "index": index, "size": size, "leaf": text(leaf),
                        "root": text(TREE.get_root(size)), "proof": list(map(text, proof)), "valid": True}
                file.write(json.dumps(case) + "\n")
                file.write(json.dumps({**case, "leaf": text(OTHER.get_leaf(1)), "valid": False}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
