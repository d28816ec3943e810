// Verifies a row in the browser: hash, signature, link, the signer's role, inclusion. Each check passed, failed or was not checked, and
// nothing that was not checked counts as passed.

import { blake3 } from './blake3.js';
import { NotCanonical, SPAN_TYPE, dsse, fromHex, sealedPayload, toHex } from './canonical.js';
import { NotProven, verifyInclusion } from './inclusion.js';
import { verifyEd25519 } from './signature.js';

const passed = (text) => ({ state: 'passed', text });
const failed = (text) => ({ state: 'failed', text });
const unchecked = (text) => ({ state: 'unchecked', text });

/** The hash that the row's content has, as hexadecimal digits. Throws NotCanonical. */
export const hashOf = (row) => toHex(blake3(new TextEncoder().encode(sealedPayload(row))));

function checkHash(row) {
  try {
    const found = hashOf(row);
    if (found === row.curr_hash) return passed('the content has the hash that the row states');
    return failed(`the content was changed: it hashes to ${found}`);
  } catch (error) {
    if (error instanceof NotCanonical) return failed(`the row has no canonical form: ${error.message}`);
    throw error;
  }
}

// Over the hash that the content has, not over the one that the row states: a changed row fails here as well.
async function checkSignature(row) {
  const [key, signature] = [fromHex(row.public_key, 32), fromHex(row.signature, 64)];
  if (!key || !signature) return failed('the row has no seal that can be read');
  try {
    return await verifyEd25519(key, dsse(SPAN_TYPE, blake3(new TextEncoder().encode(sealedPayload(row)))), signature);
  } catch (error) {
    if (error instanceof NotCanonical) return failed(`the row has no canonical form: ${error.message}`);
    throw error;
  }
}

/** Whether a version follows the one before it. `versions` are the other versions that the token may see, or null if they are not known. */
export function checkLink(row, versions) {
  if (versions === null) return unchecked('the other versions could not be read');
  if (!row.prev_hash) {
    const before = versions.find((other) => other.seq < row.seq);
    if (before) return failed(`it says that it is the first version, but version ${before.seq} is there`);
    return passed('it is the first version: no other is before it');
  }
  const before = versions.find((other) => other.seq === row.seq - 1);
  if (!before) return unchecked(`version ${row.seq - 1}, which it names, is not to be seen with this token, or is damaged`);
  for (const column of ['tenant_id', 'id', 'owner_id', 'entity_type']) {
    if (before[column] !== row[column]) return failed(`version ${before.seq} has another ${column}`);
  }
  try {
    if (hashOf(before) !== row.prev_hash) return failed(`version ${before.seq} has another content than when this one was made`);
  } catch (error) {
    if (error instanceof NotCanonical) return failed(`version ${before.seq} has no canonical form`);
    throw error;
  }
  return passed(`it names the content of version ${before.seq}`);
}

const covers = (tenants, tenant) => tenants.includes(tenant) || (tenants.includes('*') && tenant !== 'system');

/** The roles of which a row's signer must have one. */
export function rolesFor(row, trust) {
  const subject = row.metadata?.subject;
  const isOfManifest = subject?.tenant === 'system' && subject?.id === trust.manifest.id;
  if (['approval', 'rejection'].includes(row.entity_type) && isOfManifest) return ['root'];
  const isFirst = !row.prev_hash;
  const named = Object.hasOwn(trust.types, row.entity_type) ? trust.types[row.entity_type] : null;
  if (!named && row.entity_type.startsWith(trust.reserved_prefix)) return [];
  return (named ?? trust.other_types)[isFirst ? 'first' : 'later'];
}

async function checkRole(row, trust) {
  if (!trust) return unchecked('the service did not say whom its manifest names');
  const { manifest } = trust;
  if (checkHash(manifest).state !== 'passed') return unchecked('the manifest that the service sent was changed');
  const signature = await checkSignature(manifest);
  if (signature.state !== 'passed') return unchecked(`the manifest that the service sent: ${signature.text}`);
  const said = manifest.metadata ?? {};
  const by = `manifest version ${said.version}, which this service obeys`;
  const needs = rolesFor(row, trust);
  if (needs.length === 0) return failed('nobody may sign this type');
  const key = row.public_key;
  if ((said.ended ?? []).some((end) => end.key === key)) {
    return unchecked('the key has ended: only its place in a transparency log says whether this row is older (logline fsck --tiles)');
  }
  const granted = (said.authorities ?? []).filter((grant) => grant.key === key && covers(grant.tenants, row.tenant_id));
  const role = needs.find((need) => (need === 'root'
    ? row.tenant_id === 'system' && said.root?.keys?.includes(key)
    : granted.some((grant) => grant.role === need)));
  if (role) return passed(`${role}, by ${by}`);
  const isDelegated = trust.delegations.some((given) => given.key === key && given.not_before <= row.at && row.at < given.expires);
  if (needs.includes('runtime') && isDelegated) return passed(`runtime by delegation, as this service says; ${by}`);
  if (needs.includes('runtime') && !trust.has_all_delegations) return unchecked('there are more delegations than the service names');
  const has = granted.map((grant) => grant.role).join(', ') || 'no role';
  return failed(`the key has ${has} in tenant ${row.tenant_id}; it takes ${needs.join(' or ')}, by ${by}`);
}

async function checkInclusion(row, answer) {
  if (!answer) return unchecked('the service was not asked for a proof');
  if (!answer.proof) return unchecked(answer.reason ?? 'the service has no proof');
  if (!answer.log_key) return unchecked('the service does not name the key of its log');
  if (!globalThis.crypto?.subtle) return unchecked('browsers verify proofs in secure contexts only: open this page by https, or on localhost');
  try {
    const place = await verifyInclusion(row, answer.proof, answer.log_key);
    return passed(`entry ${place.index} of ${place.size} in ${place.origin.slice(0, 28)}…, whose key is the service's word`);
  } catch (error) {
    if (error instanceof NotProven) return failed(error.message);
    return unchecked(`the proof could not be checked: ${error.message}`);
  }
}

export const CHECKS = ['hash', 'signature', 'link', 'role', 'inclusion'];

/** Verifies a row with what is known besides: {versions, trust, proof}. Returns {hash, signature, link, role, inclusion}. */
export async function verify(row, known = {}) {
  const hash = checkHash(row);
  const [signature, role, inclusion] = await Promise.all([
    checkSignature(row), checkRole(row, known.trust ?? null), checkInclusion(row, known.proof ?? null),
  ]);
  // What a changed row says of its predecessor, its type or its place says nothing.
  const isChanged = hash.state === 'failed';
  const since = unchecked('the content was changed, so what it says of this counts for nothing');
  return {
    hash,
    signature,
    link: isChanged ? since : checkLink(row, known.versions ?? null),
    role: isChanged ? since : role,
    inclusion: isChanged ? since : inclusion,
  };
}

/** What all checks together say: {state, text}. The word verified stands only where all have passed. */
export function summary(checks) {
  const states = CHECKS.map((name) => checks[name].state);
  const count = (state) => states.filter((found) => found === state).length;
  if (count('failed') > 0) return { state: 'failed', text: 'Verification failed' };
  if (count('unchecked') === 0) return { state: 'passed', text: 'Verified: all five checks passed' };
  return { state: 'unchecked', text: `${count('passed')} checks passed, ${count('unchecked')} not checked` };
}
