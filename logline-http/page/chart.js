// Small charts: bars over time, drawn as SVG, each with its numbers as text for those who do not see it.

import { h, svg } from './dom.js';

const WIDTH = 300;
const HEIGHT = 56;

/** A chart of one number over time. `points` are {label, value, part}, `part` of the value being bad. */
export function chart({ title, value, note, points, format }) {
  const most = Math.max(1e-9, ...points.map((point) => point.value ?? 0));
  const step = WIDTH / points.length;
  const bars = points.map((point, index) => {
    const height = Math.max(point.value > 0 ? 2 : 0, ((point.value ?? 0) / most) * HEIGHT);
    const bad = Math.min(height, ((point.part ?? 0) / most) * HEIGHT);
    const at = { x: (index * step + 0.5).toFixed(2), width: Math.max(1, step - 1.5).toFixed(2), rx: 1 };
    return svg('g', {},
      svg('title', { text: `${point.label}: ${format(point.value ?? 0)}` }),
      svg('rect', { x: at.x, width: at.width, y: 0, height: HEIGHT, class: 'bar-room' }),
      svg('rect', { ...at, y: (HEIGHT - height).toFixed(2), height: height.toFixed(2), class: 'bar' }),
      bad > 0 && svg('rect', { ...at, y: (HEIGHT - Math.max(2, bad)).toFixed(2), height: Math.max(2, bad).toFixed(2), class: 'bar bar-bad' }));
  });
  const first = points[0]?.label ?? '';
  const last = points[points.length - 1]?.label ?? '';
  const summary = `${title}: ${value}. ${points.length} intervals from ${first} to ${last}, at most ${format(most < 1e-6 ? 0 : most)}.`;
  return h('figure', { class: 'chart' },
    h('figcaption', {}, h('span', { class: 'chart-title', text: title }), h('span', { class: 'chart-value', text: value }), h('span', { class: 'chart-note', text: note })),
    svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': summary }, bars),
    h('div', { class: 'chart-axis', 'aria-hidden': 'true' }, h('span', { text: first }), h('span', { text: last })));
}

/** A share of a whole as a bar. `low` and `high` are the ends of an interval. */
export function share({ value, low, high, label }) {
  const bar = h('div', { class: 'share', role: 'img', 'aria-label': label }, h('div', { class: 'share-fill' }));
  bar.firstChild.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  if (low !== undefined && high !== undefined) {
    const range = h('div', { class: 'share-range' });
    range.style.left = `${low * 100}%`;
    range.style.width = `${Math.max(0.5, (high - low) * 100)}%`;
    bar.append(range);
  }
  return bar;
}
