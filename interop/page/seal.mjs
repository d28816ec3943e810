// Seals rows with the page's own modules and Node's Ed25519. The importer of the library then accepts them or not.

import { createPrivateKey, createPublicKey, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { blake3 } from '../../logline-http/page/blake3.js';
import { SPAN_TYPE, dsse, jcs, payload, toHex } from '../../logline-http/page/canonical.js';

const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex');

/** The key in a key file, or of a secret of 64 hexadecimal digits. */
export function keyOf(text) {
  const digits = /logline-ed25519-secret-v1:([0-9a-f]{64})/.exec(text)?.[1] ?? text;
  const secret = createPrivateKey({ key: Buffer.concat([PKCS8, Buffer.from(digits, 'hex')]), format: 'der', type: 'pkcs8' });
  const public_key = createPublicKey(secret).export({ format: 'der', type: 'spki' }).subarray(-32).toString('hex');
  return { secret, public_key };
}

export const keyFile = (path) => keyOf(readFileSync(path, 'utf8'));

/** The sealed row of a draft: first version, or the next one after `before`. */
export function seal(draft, key, before = null) {
  const row = {
    v: 1, seq: before ? before.seq + 1 : 0, is_deleted: false, visibility: 'tenant', ...draft, public_key: key.public_key,
    ...(before && { id: before.id, prev_hash: before.curr_hash }),
  };
  const hash = blake3(new TextEncoder().encode(payload(row)));
  return { ...row, curr_hash: toHex(hash), signature: sign(null, dsse(SPAN_TYPE, hash), key.secret).toString('hex') };
}

export const line = (row) => `${jcs(row)}\n`;
