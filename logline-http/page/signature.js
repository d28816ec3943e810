// Ed25519 by WebCrypto, after the checks in which implementations differ: canonical keys, points of small order, the range of S.

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const Y8 = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;
// The y coordinates of the eight points of small order.
const SMALL = new Set([0n, 1n, P - 1n, Y8, P - Y8]);

const failed = (text) => ({ state: 'failed', text });
const unchecked = (text) => ({ state: 'unchecked', text });

function little(bytes) {
  let value = 0n;
  for (let index = bytes.length - 1; index >= 0; index -= 1) value = (value << 8n) | BigInt(bytes[index]);
  return value;
}

// The y coordinate of an encoded point: the highest bit is the sign of x.
const yOf = (bytes) => little(bytes) & (2n ** 255n - 1n);

/** Whether a key is sound: canonically encoded, and no point of small order. Returns what is wrong, or null. */
export function weakness(key) {
  const y = yOf(key);
  if (y >= P) return 'the public key is not canonically encoded';
  if (SMALL.has(y)) return 'the public key is weak: a point of small order, under which anybody can sign';
  return null;
}

/** Verifies an Ed25519 signature: {state: 'passed' | 'failed' | 'unchecked', text}. All arguments are Uint8Arrays. */
export async function verifyEd25519(key, message, signature) {
  const weak = weakness(key);
  if (weak) return failed(weak);
  if (signature.length !== 64) return failed('the signature has another length than 64 bytes');
  const r = yOf(signature.subarray(0, 32));
  if (SMALL.has(r % P)) return failed('the signature holds a point of small order');
  if (little(signature.subarray(32)) >= ORDER) return failed('the signature is not reduced: another spelling of it exists');
  if (!globalThis.crypto?.subtle) {
    return unchecked('browsers verify signatures in secure contexts only: open this page by https, or on localhost');
  }
  let imported;
  try {
    imported = await crypto.subtle.importKey('raw', key, { name: 'Ed25519' }, false, ['verify']);
  } catch (error) {
    if (error.name === 'NotSupportedError') return unchecked('this browser has no Ed25519: take a newer one');
    return failed('the public key is no point of the curve');
  }
  const holds = await crypto.subtle.verify({ name: 'Ed25519' }, imported, signature, message);
  return holds ? { state: 'passed', text: 'the key has signed exactly this hash' } : failed('the key has not signed this content');
}
