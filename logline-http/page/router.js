// Views are fragments of the address, so that a link to any of them can be shared. No fragment has a token.

/** The view that the address names: {name, parts, params}. */
export function here() {
  const [path, query] = location.hash.replace(/^#/, '').split('?');
  const parts = path.split('/').filter(Boolean).map((part) => {
    try { return decodeURIComponent(part); } catch { return ''; }
  });
  return { name: parts[0] ?? 'overview', parts: parts.slice(1), params: Object.fromEntries(new URLSearchParams(query ?? '')) };
}

/** The address of a view. */
export function to(parts, params = {}) {
  const path = parts.map((part) => encodeURIComponent(part)).join('/');
  const found = Object.entries(params).filter(([, value]) => value);
  return `#/${path}${found.length > 0 ? `?${new URLSearchParams(found)}` : ''}`;
}

export const toSpan = (row) => (row.entity_type === 'request'
  ? to(['request', row.id])
  : to(['span', row.tenant_id, row.id, row.seq]));

export const toVersion = (row) => to(['span', row.tenant_id, row.id, row.seq]);

/** Goes to a view. */
export const go = (address) => { location.hash = address; };

/** Changes the parameters of the present view without a new entry in the history. */
export function restate(parts, params) {
  history.replaceState(null, '', `${location.pathname}${location.search}${to(parts, params)}`);
}
