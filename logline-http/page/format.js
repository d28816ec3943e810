// Times, numbers and names as people read them.

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: '2-digit', month: 'short' });
const long = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

/** Milliseconds of a timestamp; NaN if it is none. */
export const time = (text) => Date.parse(text);

/** The time of day, with the day before it if that is another than today. */
export function short(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text ?? '';
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : `${day.format(at)} ${clock.format(at).slice(0, 5)}`;
}

export const full = (text) => {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? String(text ?? '') : long.format(at);
};

/** A duration in milliseconds. */
export function duration(ms) {
  if (ms === undefined || ms === null || Number.isNaN(ms)) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1000)} s`;
  if (ms < 86_400_000) return `${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
  return `${Math.floor(ms / 86_400_000)} d ${Math.floor((ms % 86_400_000) / 3_600_000)} h`;
}

// A duration in one unit, for what is compared at a glance.
function coarse(ms) {
  if (ms < 60_000) return `${Math.floor(ms / 1000)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  if (ms < 2 * 86_400_000) return `${Math.floor(ms / 3_600_000)} h`;
  return `${Math.floor(ms / 86_400_000)} days`;
}

/** How far a time is from now: `in 12 s`, `3 min ago`. */
export function relative(text, now = Date.now()) {
  const distance = time(text) - now;
  if (Number.isNaN(distance)) return '';
  if (Math.abs(distance) > 365 * 86_400_000) return full(text);
  if (distance >= 0) return `in ${distance < 3_600_000 ? duration(Math.ceil(distance / 1000) * 1000) : coarse(distance)}`;
  return distance > -1000 ? 'now' : `${coarse(-distance)} ago`;
}

const count = new Intl.NumberFormat('en-GB');
export const number = (value) => count.format(value);
export const percent = (share) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

/** Money in billionths of its unit. */
export const money = (nanos, currency) => `${(nanos / 1e9).toLocaleString('en-GB', { maximumSignificantDigits: 3 })} ${currency ?? ''}`.trim();

/** The head of a hash, an id or a key, which is enough to tell them apart. */
export const head = (text, digits = 8) => (typeof text === 'string' ? text.slice(0, digits) : '');

/** The names of functions and other parents by id, as far as they are known. */
export const names = new Map();

/** What a row is called: its name; of a request or an execution the name of the function; or what it is about. */
export function title(row) {
  const isRun = row.entity_type === 'request' || row.entity_type === 'execution';
  const found = row.name || (isRun && names.get(row.parent_id)) || row.this || row.entity_type;
  return found.length > 200 ? `${found.slice(0, 200)}…` : found;
}

/** A value of a row as text, whatever it is: rows are what others wrote. */
export function plain(value, most = 500) {
  if (value === null || value === undefined) return '';
  const text = typeof value === 'string' ? value : typeof value === 'object' ? JSON.stringify(value) : String(value);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** What failed, in one line. */
export function errorText(error) {
  if (typeof error !== 'object' || error === null) return plain(error);
  const { code, message } = error;
  return code || message ? plain([plain(code), plain(message)].filter(Boolean).join(': ')) : plain(error);
}
