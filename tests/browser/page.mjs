// node page.mjs FOLDER: uses the page that expected.py has put there in a real Chromium, as a reader
// would, and compares what it shows with what PyTorch computed. Needs Debian's chromium, and
// playwright-core in NODE_PATH. Screenshots go to FOLDER, too.
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const folder = path.resolve(process.argv[2]), live = path.join(folder, "page.html");
const expected = JSON.parse(fs.readFileSync(path.join(folder, "expected.json"), "utf-8"));
const quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: quiet });

async function open(options, page = live) {
  const tab = await browser.newPage({ locale: "en-US", ...options });
  tab.faults = [];
  tab.on("request", (request) => {
    if (request.url() !== `file://${page}` && !request.url().startsWith("data:")) {
      tab.faults.push(`request: ${request.url()}`);
    }
  });
  tab.on("pageerror", (error) => tab.faults.push(`error: ${error.message}`));
  tab.on("console", (message) => {
    if (message.type() === "error") tab.faults.push(`console: ${message.text()}`);
  });
  await tab.goto(`file://${page}`);
  return tab;
}

const answer = async (tab) => {
  await tab.waitForFunction(() => /\d/.test(document.getElementById("when").textContent));
  return (await tab.locator(".tile:not(.source)").allTextContents()).join("").replace(/[⊢⊣▢]/g, "");
};

const tab = await open({ viewport: { width: 1280, height: 900 } });
const row = async () => Object.fromEntries(await tab.locator("#next tr").evaluateAll((rows) =>
  rows.map((one) => [one.cells[0].textContent, parseFloat(one.cells[2].textContent)])));
for (const { text, written, first, off } of expected.texts) { // type, step, switch a head off
  await tab.fill("#text", text);
  assert.equal(await answer(tab), written);
  await tab.click("#first");
  const shown = await row();
  for (const [symbol, percent] of Object.entries(first)) {
    assert.ok(Math.abs(shown[symbol] - percent) <= 0.11, `${text}: ${symbol} ${shown[symbol]}`);
  }
  await tab.click("#step");
  assert.equal(await answer(tab), Array.from(written).slice(0, 2).join(""));
  await tab.click("#back");
  assert.equal(await answer(tab), Array.from(written)[0]);
  const at = async () => Number(await tab.inputValue("#time"));
  await tab.click("#last");
  const box = tab.getByLabel(`Cross-attention, layer ${off.layer}, head ${off.head}: on`);
  for (const [way, without] of Object.entries(off.written)) {
    await tab.check(`input[value="${way}"]`);
    await box.uncheck();
    assert.equal(await answer(tab), without);
    await box.check();
    await answer(tab);
    await tab.click("#first"); // a change keeps the step
    await box.uncheck();
    await tab.waitForTimeout(100);
    await answer(tab);
    assert.equal(await at(), 0);
    assert.match(await tab.textContent("#told"), /Changed: cross-attention \d·\d off\. With nothing/);
    await box.check();
    await answer(tab);
    await tab.click("#last");
  }
}

await tab.fill("#text", expected.texts[0].text); // play to the end, by the keyboard
await answer(tab);
await tab.focus("#play");
await tab.keyboard.press("Enter");
await tab.waitForFunction(() => !document.querySelector(".tile.now + .place + .tile")
  && document.getElementById("step").disabled, null, { timeout: 30000 });
assert.equal(await answer(tab), expected.texts[0].written);

const map = tab.locator("#panels canvas[role=application]").nth(2); // a map by the keyboard
await map.focus();
await tab.keyboard.press("ArrowUp");
const said = await tab.locator("#panels .readout").nth(2).textContent();
assert.match(said, /^To write “.” \(step \d+\), it reads “.” \(place \d+\): [\d.]+%$/u);
assert.equal(await tab.locator(".tile.pointed").count(), 2);
assert.equal(await tab.locator("#panels details").nth(2).locator("li").count(),
  Array.from(expected.texts[0].written).length + 1);

await tab.fill("#text", '<img src=x onerror="document.title=1">'); // markup is text
assert.match(await tab.textContent("#message"), /Left out/);
assert.equal(await tab.locator("img").count(), 0);
await tab.fill("#text", "ABC");
assert.match(await tab.textContent("#message"), /Capitals/);
assert.deepEqual(await tab.locator(".tile.source").allTextContents(), ["a", "b", "c"]);
await tab.fill("#text", "");
assert.match(await tab.textContent("#message"), /Type something/);
await tab.click("#language");
assert.match(await tab.textContent("h1"), /en marcha/);
assert.equal(await tab.getAttribute("html", "lang"), "es");

if (expected.moments) { // the model before it had learned anything, and the one made by hand
  await tab.fill("#text", expected.texts[0].text);
  await tab.locator("#moment").fill("0");
  assert.equal(await answer(tab), expected.moments.first);
  await tab.getByRole("button", { name: "hecho a mano" }).click();
  assert.equal(await answer(tab), expected.moments.byHand);
}
assert.deepEqual(tab.faults, []);

for (const colorScheme of ["light", "dark"]) { // no page is wider than its window
  for (const [width, name] of [[1280, "desktop"], [390, "phone"]]) {
    const look = await open({ colorScheme, viewport: { width, height: 844 } });
    await answer(look);
    await look.waitForTimeout(500);
    assert.ok(await look.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await look.screenshot({ path: `${folder}/${colorScheme}-${name}.png`, fullPage: true });
    assert.deepEqual(look.faults, []);
  }
}

const shown = path.join(folder, "maps.html"); // show_attention's, in a notebook
const maps = await open({ viewport: { width: 900, height: 600 } }, shown);
await maps.locator("svg").nth(4).focus();
await maps.keyboard.press("ArrowDown");
assert.match(await maps.locator("p[role=status]").textContent(),
  new RegExp(`^cross-attention, layer 1, head 0: row 1 .* weight ${expected.weight.toFixed(3)}$`));
await maps.getByRole("button", { name: "decoder" }).click();
assert.match(await maps.locator("svg").first().getAttribute("aria-label"), /^decoder, layer 0/);
assert.deepEqual(maps.faults, []);
const still = await open({ javaScriptEnabled: false }, shown);
assert.ok(await still.locator("img").isVisible());
await browser.close();
console.log(`${expected.texts.length} texts typed; no request, no error`);
