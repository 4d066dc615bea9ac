// The web edition in a real Chromium: node tests/browser/pages.cjs FOLDER
// Every page, light and dark, wide and narrow: no request but to the site itself, no error, no
// serious finding of axe, nothing wider than the screen. Then what a reader does: search, fold,
// go on to the next page, switch to dark.
// NODE_PATH names the folder with playwright-core and axe-core; CHROMIUM, the browser.

const { readFileSync, readdirSync } = require("node:fs");
const { join, relative } = require("node:path");
const { open, serve } = require("./common.cjs");

const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");
const LOOKS = [
  { colorScheme: "light", viewport: { width: 1280, height: 900 } },
  { colorScheme: "dark", viewport: { width: 1280, height: 900 } },
  { colorScheme: "light", viewport: { width: 390, height: 844 } },
];

async function look(page, name, say) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) say(`${name}: ${wide} pixels wider than the screen`);
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
  for (const { id, impact, nodes } of found.violations)
    if (["serious", "critical"].includes(impact))
      say(`${name}: ${impact}: ${id} at ${nodes.length} places, as ${nodes[0].html.slice(0, 160)}`);
}

async function use(page, site, say) {
  const expect = (what, right) => right || say(`${what}: not so`);
  await page.goto(`${site}/index.html`);
  await page.fill("input[name=q]", "MultiHeadAttention");
  await page.press("input[name=q]", "Enter");
  await page.waitForSelector("#search-results li");
  const results = await page.locator("#search-results li a").allTextContents();
  expect("the search finds notebook 02", results.some((text) => text.startsWith("02")));

  await page.goto(`${site}/02_attention.html`);
  expect("formulas are shown", (await page.locator("math").first().boundingBox()).height > 5);
  const solution = page.locator("details", { hasText: "Solution" }).last();
  const code = solution.locator("div.cell_input").first();
  expect("a solution is folded", !(await code.isVisible()));
  await solution.locator("summary").click();
  expect("and unfolds with its code", await code.isVisible());
  await page.locator("a.next-page").click();
  expect("the next page is 03", page.url().endsWith("/03_positions.html"));
  await page.locator("a.prev-page").click();
  expect("the one before it is 02", page.url().endsWith("/02_attention.html"));

  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const colours = new Set();
  for (let i = 0; i < 3; i++) {
    colours.add(await background());
    await page.locator("button.theme-toggle:visible").first().click();
  }
  expect("the button switches to dark and back", colours.size === 2);
}

async function main(folder) {
  const { site, close } = await serve(folder);
  const browser = await open();
  const faults = [];
  const names = readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith(".html"))
    .sort();
  let requests = 0;
  for (const options of LOOKS) {
    const context = await browser.newContext(options);
    const say = (text) =>
      faults.push(`${options.colorScheme}, ${options.viewport.width} pixels: ${text}`);
    context.on("request", (request) => {
      requests += 1;
      if (!/^data:/.test(request.url()) && !request.url().startsWith(`${site}/`))
        say(`a request to ${request.url()}`);
    });
    context.on("weberror", (error) => say(`an error: ${error.error().message}`));
    const page = await context.newPage();
    for (const name of names) {
      await page.goto(`${site}/${name}`);
      await look(page, relative(folder, join(folder, name)), say);
    }
    if (options === LOOKS[0]) await use(page, site, say);
    await context.close();
  }
  await browser.close();
  close();
  for (const fault of faults) console.log(fault);
  console.log(`${names.length} pages in ${LOOKS.length} looks, ${requests} requests: ${faults.length} to fix`);
  process.exit(faults.length || !names.length ? 1 : 0);
}

main(process.argv[2]);
