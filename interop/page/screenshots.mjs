// Writes docs/images/page-*.png: each view of the demonstration, light and dark, wide and narrow.

import { join } from 'node:path';

import { serveDemo } from './demo.mjs';
import { chromium, folder, freePort, root } from './site.mjs';

const dir = folder();
const { service, made } = await serveDemo(join(dir, 'demo.ledger'), dir, await freePort());
const context = await chromium();

const views = {
  overview: '/overview', spans: '/spans', span: `/span/acme/${made.limit.id}/3`, request: `/request/${made.retried}`, requests: '/requests?show=open',
  approvals: '/approvals', prompts: '/prompts', problems: '/problems',
};
const sizes = [
  { suffix: '', scheme: 'light', width: 1280, height: 820, names: Object.keys(views) },
  { suffix: '-dark', scheme: 'dark', width: 1280, height: 820, names: ['overview', 'span', 'request'] },
  { suffix: '-narrow', scheme: 'light', width: 400, height: 820, names: ['spans', 'span'] },
];

const page = await context.newPage();
for (const { suffix, scheme, width, height, names } of sizes) {
  await page.emulateMedia({ colorScheme: scheme });
  await page.setViewportSize({ width, height });
  for (const name of names) {
    // From another page, so that it is loaded and not only asked for another view.
    await page.goto('about:blank');
    await page.goto(`${service.url}/#token=${service.token}&view=${encodeURIComponent(views[name])}`);
    await page.waitForFunction(() => !/Reading …|Verifying …/.test(document.getElementById('main').innerText) && document.getElementById('stream').dataset.state === 'live');
    await page.waitForTimeout(400);
    await page.screenshot({ path: join(root, `docs/images/page-${name}${suffix}.png`) });
    console.log(`docs/images/page-${name}${suffix}.png`);
  }
}
await context.close();
await service.stop();
