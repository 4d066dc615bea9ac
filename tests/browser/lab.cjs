// Notebooks in JupyterLab, as people run them: node tests/browser/lab.cjs FOLDER NOTEBOOK...
// Starts the `jupyter` of the environment in FOLDER, which holds copies that may change. Opens each
// notebook in a real Chromium, runs it from top to bottom, saves it, and reads what was saved:
// every cell has run, none failed, and each shows as many pictures as were stored. FOLDER/shots
// gets the pictures of the screen. NODE_PATH and CHROMIUM as for pages.cjs.

const { spawn } = require("node:child_process");
const { mkdirSync, readFileSync, writeFileSync } = require("node:fs");
const { createServer } = require("node:net");
const { join } = require("node:path");
const { open } = require("./common.cjs");

const MINUTES = 60_000;
const read = (path) => JSON.parse(readFileSync(path, "utf-8"));
const codes = (notebook) => notebook.cells.filter((cell) => cell.cell_type === "code");
const source = (cell) => [cell.source].flat().join("");
const pictures = (cell) => cell.outputs.filter((output) => output.data?.["image/png"]).length;

const freePort = () =>
  new Promise((found) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });

async function start(folder) {
  const port = await freePort();
  const settings = join(folder, "settings", "@jupyterlab", "notebook-extension");
  mkdirSync(settings, { recursive: true }); // all cells are drawn, also those far below
  writeFileSync(join(settings, "tracker.jupyterlab-settings"), '{"windowingMode": "none"}');
  const options = ["--no-browser", "--allow-root", `--port=${port}`, "--ServerApp.port_retries=0"];
  const silent = "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate";
  const own = ["--LabApp.news_url=None", silent, "--IdentityProvider.token=", `--ServerApp.root_dir=${folder}`];
  const env = { ...process.env, JUPYTERLAB_SETTINGS_DIR: join(folder, "settings") };
  const log = { stdio: "ignore", env };
  const server = spawn("jupyter", ["lab", ...options, ...own], log);
  const site = `http://127.0.0.1:${port}`;
  for (let i = 0; i < 120; i++) {
    if (await fetch(`${site}/api`).then((answer) => answer.ok, () => false)) break;
    await new Promise((wait) => setTimeout(wait, 500));
  }
  return { site, server };
}

async function run(page, site, folder, name) {
  const before = codes(read(join(folder, name)));
  await page.goto(`${site}/lab/tree/${name}?reset`);
  await page.waitForSelector(".jp-Notebook .jp-CodeCell", { timeout: MINUTES });
  await page.waitForSelector(":text('| Idle')", { timeout: MINUTES }); // in the status bar
  await page.waitForTimeout(3000);
  const select = page.locator(".jp-Dialog button:has-text('Select')");
  if (await select.isVisible()) await select.click(); // which kernel? the one that is proposed
  await page.click('.lm-MenuBar-item:has-text("Run")');
  await page.click('.lm-Menu-item:has-text("Run All Cells"):visible');
  const shoot = (label) =>
    page.screenshot({ path: join(folder, "shots", `${name.replace(".ipynb", "")}-${label}.png`) });
  await page.waitForTimeout(6000);
  const bar = page.locator(".jp-Notebook .widget-hprogress").first();
  if (await bar.count()) await bar.scrollIntoViewIfNeeded(); // that of a training, if one comes first
  await shoot("running");
  const done = (cell) => cell.execution_count || !source(cell).trim();
  for (let left = 9 * MINUTES; left > 0; left -= 3000) {
    await page.waitForTimeout(3000);
    await page.keyboard.press("Control+s"); // a running cell is saved without a number
    const saved = codes(read(join(folder, name)));
    if (saved.every(done) || saved.some((c) => c.outputs.some((o) => o.output_type === "error"))) break;
  }
  const output = ".jp-Notebook .jp-OutputArea-output";
  const views = page.locator(`${output} img`);
  for (const [i, view] of (await views.all()).slice(0, 8).entries()) {
    await view.scrollIntoViewIfNeeded();
    await shoot(i);
  }

  const faults = [];
  const after = codes(read(join(folder, name)));
  for (const [i, cell] of after.entries()) {
    const where = `${name}, code cell ${i}: `;
    if (!done(cell)) faults.push(`${where}has not run`);
    for (const output of cell.outputs) {
      if (output.output_type === "error") faults.push(`${where}${output.ename}: ${output.evalue}`);
      if (output.name === "stderr") faults.push(`${where}stderr: ${output.text}`);
    }
    if (pictures(cell) !== pictures(before[i])) faults.push(`${where}other pictures than stored`);
  }
  const broken = page.locator(".jp-Notebook :text('Error displaying widget')");
  if (await broken.count()) faults.push(`${name}: a bar that is not shown`);
  const bars = await page.locator(".jp-Notebook .widget-hprogress").count();
  const shown = await page.locator(`${output} img`).count();
  console.log(`${name}: ${after.length} code cells, ${shown} pictures, ${bars} bars`);
  return faults;
}

async function main(folder, names) {
  mkdirSync(join(folder, "shots"), { recursive: true });
  const { site, server } = await start(folder);
  const browser = await open();
  const faults = [];
  try {
    for (const name of names) {
      const page = await browser.newPage({ viewport: { width: 1200, height: 1000 } });
      faults.push(...(await run(page, site, folder, name)));
      await page.close();
    }
  } finally {
    await browser.close();
    server.kill();
  }
  for (const fault of faults) console.log(fault);
  process.exit(faults.length ? 1 : 0);
}

main(process.argv[2], process.argv.slice(3));
