"""Tests of verify.py against docs/vectors, and of the vectors against verify.py: `python3 -m unittest` in this folder."""
import base64
import io
import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import envelope  # noqa: E402
import verify  # noqa: E402
from blake3 import blake3  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402


def vectors(name):
    return json.loads((HERE.parent / "vectors" / f"{name}.json").read_text(encoding="ascii"))


SPANS = {span["name"]: span for span in vectors("spans")}
CHAIN = [SPANS[name]["line"] for name in ("minimal", "version 1 of the minimal span",
                                          "version 2 of the minimal span, a tombstone")]
OTHER = SPANS["upper-case uuids become lower-case"]["line"]
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SPANS["minimal"]["seed"]))
PUBLIC = SPANS["minimal"]["public_key"]


def run(lines):
    """The problems found in an export of these lines."""
    said = []
    verifier = verify.Verifier(said.append)
    verifier.export(io.BytesIO("".join(line + "\n" for line in lines).encode()))
    return said


def changed(line, **columns):
    return verify.jcs({**json.loads(line), **columns})


def sealed(line, **columns):
    """The row with other columns and a new, valid seal."""
    row = {**json.loads(line), **columns, "public_key": PUBLIC}
    row = {k: v for k, v in row.items() if v is not None and k not in ("curr_hash", "signature")}
    digest = blake3(verify.jcs(row).encode()).digest()
    message = b"DSSEv1 31 application/vnd.logline.span.v1 32 " + digest
    return verify.jcs({**row, "curr_hash": digest.hex(), "signature": KEY.sign(message).hex()})


def sidecar(lines, **footer):
    last = {}
    for row in map(json.loads, lines):
        last[row["tenant_id"].encode(), row["id"]] = {k: row[k] for k in ("tenant_id", "id", "seq", "curr_hash")}
    heads = "".join(verify.jcs(last[chain]) + "\n" for chain in sorted(last))
    export = "".join(line + "\n" for line in lines)
    footer = {"type": "logline.sidecar", "v": 1, "at": "2026-03-03T00:00:00.000000Z", "chains": len(last),
              "spans": len(lines), "tenant": None, "public_key": PUBLIC,
              "export_blake3": blake3(export.encode()).hexdigest(), "heads_blake3": blake3(heads.encode()).hexdigest(),
              **footer}
    message = b"DSSEv1 34 application/vnd.logline.sidecar.v1 32 " + blake3(verify.jcs(footer).encode()).digest()
    return heads + verify.jcs({**footer, "signature": KEY.sign(message).hex()}) + "\n"


def run_files(lines, sidecar_text, *flags):
    """Exit status and output of the program."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        export, side = Path(folder, "export.ndjson"), Path(folder, "export.sidecar")
        export.write_bytes("".join(line + "\n" for line in lines).encode())
        side.write_bytes(sidecar_text.encode())
        status = verify.main([str(export), "--sidecar", str(side), *flags], said.append)
    return status, "\n".join(said)


class Size(unittest.TestCase):
    def test_a_text_has_at_most_so_many_arrays_and_objects_with_members(self):
        def read(count, item):
            return verify.read_json(("[" + ",".join([item] * count) + "]").encode())

        read(verify.MAX_CONTAINERS - 1, "[1]")
        read(verify.MAX_CONTAINERS * 2, "[ ]")
        for item in ("[1]", '{"a":1}', "[[]]"):
            with self.assertRaises(verify.Bad) as refused:
                read(verify.MAX_CONTAINERS, item)
            self.assertEqual(refused.exception.kind, "too_many")


class Canonical(unittest.TestCase):
    def test_jcs_vectors(self):
        for vector in vectors("jcs"):
            with self.subTest(vector["name"]):
                self.assertEqual(verify.jcs(json.loads(vector["input"], parse_int=float)), vector["canonical"])

    def test_rfc_8785_numbers(self):
        for vector in vectors("numbers"):
            value = struct.unpack(">d", bytes.fromhex(vector["ieee754"]))[0]
            with self.subTest(vector["ieee754"]):
                if vector["text"] is None:
                    self.assertRaises(ValueError, verify.jcs_number, value)
                else:
                    self.assertEqual(verify.jcs_number(value), vector["text"])

    def test_every_invalid_line_is_refused_for_its_reason(self):
        for vector in vectors("invalid"):
            raw = bytes.fromhex(vector["line_hex"]) if "line_hex" in vector else vector["line"].encode()
            with self.subTest(vector["name"]), self.assertRaises(verify.Bad) as caught:
                row = verify.read_json(raw)
                verify.require(isinstance(row, dict), "not_an_object", "")
                verify.check_row({k: v for k, v in row.items() if v is not None})
            self.assertEqual(caught.exception.kind, vector["error"], vector["name"])

    def test_every_span_line_is_whole(self):
        for span in SPANS.values():
            with self.subTest(span["name"]):
                row = verify.read_json(span["line"].encode())
                verify.check_row(row)
                verify.check_seal(row)
                self.assertEqual(blake3(span["payload"].encode()).hexdigest(), span["curr_hash"])
                self.assertEqual(verify.jcs(row), span["line"])


class Tampering(unittest.TestCase):
    def assert_only(self, lines, number, *texts):
        problems = run(lines)
        self.assertEqual(len(problems), 1, problems)
        for text in (f"line {number}: ", *texts):
            self.assertIn(text, problems[0])

    def test_an_untouched_export_holds(self):
        self.assertEqual(run([CHAIN[0], OTHER, CHAIN[1], CHAIN[2]]), [])

    def test_white_space_and_order_of_keys_do_not_matter(self):
        row = json.loads(CHAIN[0])
        self.assertEqual(run([json.dumps(dict(reversed(row.items())), indent=1).replace("\n", " ")]), [])

    def test_a_nested_value_was_changed(self):
        line = CHAIN[1].replace('"text":"changed"', '"text":"chenged"')
        self.assert_only([CHAIN[0], line, CHAIN[2]], 2, "acme/01956a3f-8c00-7000-8000-000000000001/1", "content was changed")

    def test_a_column_was_removed(self):
        row = json.loads(CHAIN[1])
        del row["content"]
        self.assert_only([CHAIN[0], verify.jcs(row)], 2, "content was changed")

    def test_columns_were_swapped_between_rows(self):
        first, second = json.loads(CHAIN[0]), json.loads(OTHER)
        lines = [changed(CHAIN[0], at=second["at"], who="mallory"), changed(OTHER, who=first["who"], this="note.other")]
        problems = run(lines)
        self.assertEqual([p[:8] for p in problems], ["line 1: ", "line 2: "])
        self.assertTrue(all("content was changed" in p for p in problems))

    def test_seals_were_swapped_between_rows(self):
        seals = [{k: json.loads(line)[k] for k in ("curr_hash", "signature", "public_key")} for line in (CHAIN[0], OTHER)]
        self.assertEqual(len(run([changed(CHAIN[0], **seals[1]), changed(OTHER, **seals[0])])), 2)

    def test_a_middle_version_was_removed(self):
        self.assert_only([CHAIN[0], CHAIN[2]], 2, "versions 1 to 1 before it are missing")

    def test_the_first_version_was_removed(self):
        self.assert_only(CHAIN[1:], 1, "it follows a version that is missing")

    def test_versions_were_reordered(self):
        self.assertIn("line 3: acme/01956a3f-8c00-7000-8000-000000000001/1: it comes after version 2: out of order",
                      run([CHAIN[0], CHAIN[2], CHAIN[1]]))

    def test_a_key_was_duplicated(self):
        self.assert_only([CHAIN[0][:-1] + ',"who":"mallory"}'], 1, "duplicate key 'who'")
        nested = CHAIN[1].replace('"text":"changed"', '"text":"changed","text":"x"')
        self.assertIn("duplicate key 'text'", run([CHAIN[0], nested])[0])

    def test_a_chain_was_forked(self):
        self.assert_only([*CHAIN[:2], sealed(CHAIN[1], content="fork")], 3, "the chain was forked")
        self.assert_only([CHAIN[0], CHAIN[0]], 2, "the chain was forked")

    def test_a_version_follows_another_hash(self):
        self.assert_only([CHAIN[0], sealed(CHAIN[1], prev_hash="0" * 64)], 2, "the version before it hashes to")
        self.assert_only([CHAIN[0], sealed(CHAIN[1], prev_hash=None)], 2, "prev_hash is absent")

    def test_owner_or_type_changed_along_a_chain(self):
        self.assert_only([CHAIN[0], sealed(CHAIN[1], owner_id="mallory")], 2, "owner_id differs")
        self.assert_only([CHAIN[0], sealed(CHAIN[1], entity_type="function")], 2, "entity_type differs")

    def test_another_tenants_id_is_another_chain(self):
        self.assertEqual(run([CHAIN[0], sealed(CHAIN[0], tenant_id="globex", owner_id="mallory")]), [])

    def test_a_signature_does_not_match(self):
        signature = json.loads(CHAIN[0])["signature"]
        for other in (signature[:-2] + ("00" if signature[-2:] != "00" else "01"), "0" * 128, json.loads(OTHER)["signature"]):
            self.assert_only([changed(CHAIN[0], signature=other)], 1, "does not match")

    def test_a_signature_of_another_kind_of_statement_does_not_count(self):
        body = bytes.fromhex(json.loads(CHAIN[0])["curr_hash"])
        message = b"DSSEv1 34 application/vnd.logline.sidecar.v1 32 " + body
        self.assert_only([changed(CHAIN[0], signature=KEY.sign(message).hex())], 1, "does not match")

    def test_hex_in_upper_case(self):
        for column in ("curr_hash", "signature", "public_key"):
            line = changed(CHAIN[0], **{column: json.loads(CHAIN[0])[column].upper()})
            self.assert_only([line], 1, f"column {column} is not", "lower-case hex")

    def test_the_points_of_small_order_are_those_of_the_curve(self):
        p = verify.P
        d = -121665 * pow(121666, -1, p) % p

        def twice(x, y):
            k = d * x * x * y * y % p
            return 2 * x * y * pow(1 + k, -1, p) % p, (y * y + x * x) * pow(1 - k, -1, p) % p

        self.assertEqual(len(verify.SMALL_ORDER_Y), 5)
        for y in verify.SMALL_ORDER_Y:
            square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
            x = pow(square, (p + 3) // 8, p)
            if x * x % p != square:
                x = x * pow(2, (p - 1) // 4, p) % p
            self.assertEqual(x * x % p, square, f"{y:x} is on the curve")
            self.assertEqual(twice(*twice(*twice(x, y))), (0, 1), f"{y:x}")

    def test_weak_and_non_canonical_keys_are_refused(self):
        p = 2**255 - 19
        weak = [y.to_bytes(32, "little") for y in verify.SMALL_ORDER_Y]
        weak += [(y | 1 << 255).to_bytes(32, "little") for y in verify.SMALL_ORDER_Y]
        wide = [(p + i).to_bytes(32, "little") for i in range(19)]
        for key, text in [(key, "is weak") for key in weak] + [(key, "not canonically") for key in wide]:
            row = {**json.loads(CHAIN[0]), "public_key": key.hex()}
            del row["curr_hash"], row["signature"]
            digest = blake3(verify.jcs(row).encode()).hexdigest()
            # R = the identity, S = 0: a signature that some verifiers accept from a small-order key for any message.
            row.update(curr_hash=digest, signature="01" + "00" * 63)
            self.assert_only([verify.jcs(row)], 1, text)

    def test_the_row_after_an_unreadable_one_is_not_blamed(self):
        self.assert_only([CHAIN[0], changed(CHAIN[1], curr_hash="AB" * 32), CHAIN[2]], 2, "lower-case hex")

    def test_unsigned_rows_are_refused(self):
        row = {k: v for k, v in json.loads(CHAIN[0]).items() if k not in ("curr_hash", "signature", "public_key")}
        self.assert_only([verify.jcs(row)], 1, "not signed")


class Sidecars(unittest.TestCase):
    LINES = [CHAIN[0], OTHER, CHAIN[1], sealed(CHAIN[0], tenant_id="globex")]

    def assert_bad(self, lines, text, *flags, said):
        status, output = run_files(lines, text, *flags)
        self.assertEqual(status, 1, output)
        self.assertIn(said, output)

    def test_an_untouched_pair_holds(self):
        status, output = run_files(self.LINES, sidecar(self.LINES), "--key", PUBLIC)
        self.assertEqual(status, 0, output)
        self.assertIn("3 heads, signed by " + PUBLIC, output)
        self.assertIn("4 rows in 3 chains, signed by 3 keys: 0 problems. Integrity only", output)
        self.assertEqual(run_files([], sidecar([]))[0], 0)

    def test_a_removed_tail_or_id_is_named(self):
        text = sidecar(self.LINES)
        self.assert_bad([*self.LINES[:2], self.LINES[3]], text,
                        said="acme/01956a3f-8c00-7000-8000-000000000001/1: named with")
        self.assert_bad([CHAIN[0], CHAIN[1], self.LINES[3]], text, said="it was not found")

    def test_an_added_row_is_named(self):
        self.assert_bad([*self.LINES, sealed(OTHER, tenant_id="zeta")], sidecar(self.LINES), said="does not name")
        self.assert_bad(self.LINES + CHAIN[2:], sidecar(self.LINES), said="export_blake3 is")

    def test_a_changed_sidecar_is_refused(self):
        text = sidecar(self.LINES)
        lines = text.splitlines(keepends=True)
        self.assert_bad(self.LINES, text.replace('"spans":4', '"spans":5'), said="does not match")
        self.assert_bad(self.LINES, "".join(lines[1:]), said="heads_blake3 is")
        self.assert_bad(self.LINES, lines[1] + lines[0] + "".join(lines[2:]), said="not in the order")
        self.assert_bad(self.LINES, "".join(lines[:-1]), said="cut off")
        self.assert_bad(self.LINES, text + lines[0], said="nothing may follow")
        self.assert_bad(self.LINES, text.replace(",", ", ", 1), said="canonical json")
        self.assert_bad(self.LINES, sidecar(self.LINES, v=2), said="version 1")
        self.assert_bad(self.LINES, sidecar(self.LINES, spans=3), said="spans is 3, found 4")

    def test_the_signer_must_be_the_one_expected(self):
        self.assert_bad(self.LINES, sidecar(self.LINES), "--key", "ab" * 32, said="not by " + "ab" * 32)


LOG_VECTOR = vectors("log")


def run_proof(proof=LOG_VECTOR["proof"], lines=None, *flags, log_key=LOG_VECTOR["log_key"]):
    """Exit status and output of the program, for one row and its proof."""
    said, row = [], LOG_VECTOR["leaves"][LOG_VECTOR["index"]]["line"]
    # The row may follow a version that is not in the export; that is reported and is not the proof's matter.
    with tempfile.TemporaryDirectory() as folder:
        export, file = Path(folder, "row.ndjson"), Path(folder, "row.tlog-proof")
        export.write_bytes("".join(line + "\n" for line in lines or [row]).encode())
        file.write_bytes(proof.encode())
        verify.main([str(export), "--proof", str(file), "--log-key", log_key, *flags], said.append)
    return "\n".join(text for text in said if text.startswith("proof"))


class Proofs(unittest.TestCase):
    def test_records_and_their_hashes(self):
        for leaf in LOG_VECTOR["leaves"]:
            record = verify.leaf_record(json.loads(leaf["line"]))
            self.assertEqual(record.hex(), leaf["record"])
            self.assertEqual(verify.sha256(b"\0", record), verify.base64_bytes(leaf["hash"]))

    def test_a_row_is_in_the_log(self):
        self.assertIn("leaf 4 of 7", run_proof())
        witness = ("--witness", LOG_VECTOR["witness_key"], "--quorum", "1")
        self.assertIn("cosigned by 1 witnesses", run_proof(LOG_VECTOR["proof"], None, *witness))

    def test_a_proof_of_another_row_proves_nothing(self):
        other = LOG_VECTOR["leaves"][3]["line"]
        self.assertIn("leads to another root", run_proof(lines=[other]))
        both = [leaf["line"] for leaf in LOG_VECTOR["leaves"][3:5]]
        self.assertIn("exactly one", run_proof(lines=both))

    def test_every_change_of_the_proof_is_noticed(self):
        good = LOG_VECTOR["proof"]
        lines = good.split("\n")
        changes = [
            (good.replace("@v1", "@v2", 1), "not a c2sp.org"),
            (good.replace("index 4", "index 5"), "another root"),
            (good.replace("index 4", "index 04"), "not a number"),
            (good.replace("index 4", "index 7"), "not in a tree"),
            (good.replace("index 4", "extra !\nindex 4"), "not base64"),
            ("\n".join(lines[:2] + [lines[3], lines[2]] + lines[4:]), "another root"),
            ("\n".join(lines[:2] + lines[3:]), "fewer hashes"),
            ("\n".join(lines[:2] + [lines[2]] + lines[2:]), "more hashes"),
            (good.replace("\n7\n", "\n8\n"), "does not match"),
            (good.replace("log.invalid/vectors\n7", "log.invalid/another\n7"), "does not match"),
            (good.replace("\u2014 log.invalid/vectors", "\u2014 log.invalid/nobody"), "has not signed"),
            (good[:-1], "not a signed note"),
        ]
        for changed, text in changes:
            with self.subTest(text):
                self.assertNotEqual(changed, good)
                self.assertIn(text, run_proof(changed))

    def test_a_witness_that_did_not_cosign_does_not_count(self):
        raw = b"\x04" + KEY.public_key().public_bytes_raw()
        key_id = verify.sha256(b"another.example/w\n", raw)[:4].hex()
        other = f"another.example/w+{key_id}+{base64.b64encode(raw).decode()}"
        self.assertIn("0 witnesses have cosigned, 1 are needed",
                      run_proof(LOG_VECTOR["proof"], None, "--witness", other, "--quorum", "1"))


class Checkpoints(unittest.TestCase):
    LOG, WITNESS = (verify.note_key(LOG_VECTOR[name]) for name in ("log_key", "witness_key"))

    def is_accepted(self, note):
        try:
            verify.open_checkpoint(note, self.LOG, [self.WITNESS], 1)
            return True
        except verify.Bad:
            return False

    def test_every_bound_is_where_the_vectors_have_it(self):
        found = {vector["name"]: self.is_accepted(vector["note"]) for vector in vectors("checkpoints")}
        self.assertEqual(found, {vector["name"]: vector["is_accepted"] for vector in vectors("checkpoints")})
        self.assertEqual(set(found.values()), {True, False})

    def test_a_note_has_at_most_256_kib(self):
        good = LOG_VECTOR["checkpoint"]
        left = verify.MAX_NOTE - len(good.encode()) - len("\u2014 other \n".encode())
        # Base64 comes in fours, so the name takes what is left of them.
        line = "\u2014 other" + "x" * (left % 4) + " " + "A" * (left // 4 * 4) + "\n"
        self.assertEqual(len((good + line).encode()), verify.MAX_NOTE)
        self.assertTrue(self.is_accepted(good + line))
        self.assertFalse(self.is_accepted(good + line.replace("other", "others")))


def tree_root(leaves):
    """The root of RFC 6962, section 2.1, by its definition."""
    if len(leaves) < 2:
        return leaves[0] if leaves else verify.sha256()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return verify.sha256(b"\x01", tree_root(leaves[:split]), tree_root(leaves[split:]))


def tree_growth(old, leaves, is_whole=True):
    """The proof of RFC 6962, section 2.1.2, by its definition."""
    if old == len(leaves):
        return [] if is_whole else [tree_root(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= split:
        return tree_growth(old, leaves[:split], is_whole) + [tree_root(leaves[split:])]
    return tree_growth(old - split, leaves[split:], False) + [tree_root(leaves[:split])]


LEAVES = [verify.base64_bytes(leaf["hash"]) for leaf in LOG_VECTOR["leaves"]]


def checkpoint(leaves):
    """A checkpoint of these leaves, signed by the log of the vectors."""
    name, _, _, key_id = verify.note_key(LOG_VECTOR["log_key"])
    text = f"{name}\n{len(leaves)}\n{base64.b64encode(tree_root(leaves)).decode()}\n"
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(LOG_VECTOR["log_seed"]))
    return f"{text}\n\u2014 {name} {base64.b64encode(key_id + key.sign(text.encode())).decode()}\n"


def run_growth(old, proof, known=None, new=LOG_VECTOR["checkpoint"], *flags):
    """What the program says of a log that has grown from its first `old` leaves."""
    said = []
    lines = [f"old {old}", *(base64.b64encode(part).decode() for part in proof), "", new]
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder, name) for name in ("row.ndjson", "growth", "known")]
        names[0].write_text(LOG_VECTOR["leaves"][0]["line"] + "\n")
        names[1].write_text("\n".join(lines))
        names[2].write_text(checkpoint(LEAVES[:old]) if known is None else known)
        verify.main([str(names[0]), "--consistency", str(names[1]), "--known", str(names[2]),
                     "--log-key", LOG_VECTOR["log_key"], *flags], said.append)
    return "\n".join(text for text in said if text.startswith("consistency"))


class Growth(unittest.TestCase):
    def test_a_log_that_has_grown_proves_it(self):
        for old in range(8):
            proof = tree_growth(old, LEAVES) if old else []
            self.assertIn(f"has grown from {old} to 7 leaves", run_growth(old, proof))
        witness = ("--witness", LOG_VECTOR["witness_key"], "--quorum", "1")
        self.assertIn("cosigned by 1", run_growth(3, tree_growth(3, LEAVES), None, LOG_VECTOR["checkpoint"], *witness))

    def test_a_log_with_two_histories_cannot(self):
        fork = LEAVES[:2] + [LEAVES[3], LEAVES[2]] + LEAVES[4:]
        for old in range(3, 8):
            for proof in (tree_growth(old, LEAVES), tree_growth(old, fork)):
                said = run_growth(old, proof, checkpoint(fork[:old]))
                self.assertRegex(said, "does not begin|does not continue|different roots|must be empty")

    def test_every_change_is_noticed(self):
        proof = tree_growth(3, LEAVES)
        for changed in (proof[1:], proof[:-1], proof + proof[:1], proof[::-1], [], [proof[0][::-1], *proof[1:]]):
            self.assertIn("consistency: ", run_growth(3, changed))
            self.assertNotIn("has grown", run_growth(3, changed))
        self.assertIn("smaller", run_growth(7, [], checkpoint(LEAVES), checkpoint(LEAVES[:5])))
        self.assertIn("the known checkpoint has 4", run_growth(3, proof, checkpoint(LEAVES[:4])))
        self.assertIn("does not match", run_growth(3, proof, checkpoint(LEAVES[:3]).replace("\n3\n", "\n2\n")))
        self.assertIn("witnesses have cosigned", run_growth(
            3, proof, None, checkpoint(LEAVES), "--witness", LOG_VECTOR["witness_key"], "--quorum", "1"))

    def test_the_cases_of_transparency_dev(self):
        folder = HERE.parent.parent / "logline-log" / "tests" / "testdata"

        def holds(check, case):
            try:
                return check(case) is not False
            except verify.Bad:
                return False

        def raw(text):
            return base64.b64decode(text or "")

        def inclusion(case):
            proof = [verify.base64_bytes(part, 32) for part in case["proof"] or []]
            verify.base64_bytes(case["leafHash"], 32)
            found = verify.inclusion_root(raw(case["leafHash"]), case["leafIdx"], case["treeSize"], proof)
            return found == raw(case["root"])

        def consistency(case):
            proof = [verify.base64_bytes(part, 32) for part in case["proof"] or []]
            verify.check_consistency((case["size1"], raw(case["root1"])), (case["size2"], raw(case["root2"])), proof)

        for name, check in (("inclusion", inclusion), ("consistency", consistency)):
            cases = [json.loads(line) for line in (folder / f"merkle-{name}.ndjson").read_text().splitlines()]
            self.assertGreater(len(cases), 90)
            for case in cases:
                # They call a proof from the empty tree useless, and a witness of C2SP must accept it.
                differs = case["case"] == "additional/size1-is-zero-and-size2-is-not-zero"
                with self.subTest(f"{name} {case['case']}"):
                    self.assertEqual(holds(check, case), differs or not case["wantErr"])


class Envelope(unittest.TestCase):
    def setUp(self):
        self.file = vectors("envelope")

    def test_every_envelope_opens_to_its_text(self):
        for vector in self.file["envelopes"]:
            self.assertEqual(envelope.opened(vector).decode(), vector["text"])

    def test_an_envelope_that_was_forged_for_two_keys_opens_under_none(self):
        forged = {**self.file["envelopes"][0], "envelope": self.file["forgery"]["envelope"]}
        for key in self.file["forgery"]["keys"]:
            with self.assertRaises(envelope.NotOpened):
                envelope.opened(forged, key)

    def test_a_flipped_bit_or_another_place_does_not_open(self):
        vector = self.file["envelopes"][1]
        raw = bytes.fromhex(vector["envelope"])
        for at in range(len(raw)):
            changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:]
            with self.assertRaises(envelope.NotOpened):
                envelope.opened({**vector, "envelope": changed.hex()})
        for member in ["tenant", "subject", "field"]:
            with self.assertRaises(envelope.NotOpened):
                envelope.opened({**vector, member: "other"})


if __name__ == "__main__":
    unittest.main()
