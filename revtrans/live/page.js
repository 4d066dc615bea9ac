"use strict";
// What one sees and touches. All numbers come from transformer.js; all words from `texts`.

const { texts, learned, byHand, examples } = JSON.parse(
  document.getElementById("data").textContent);
const KINDS = ["encoder", "decoder", "cross"];
const $ = (id) => document.getElementById(id);
const unpacked = new Map(); // models are unpacked when they are first asked for
const state = {
  language: navigator.language.startsWith("es") ? "es" : "en",
  hand: false, moment: learned.length - 1, temperature: 0, seed: 1, masked: true, mean: false,
  off: new Set(), // heads that are switched off: "cross.1.0"
  chosen: { encoder: [0, 0], decoder: [0, 0], cross: null }, // layer and head of each large map
  cell: {}, // the cell pointed at, [kind, query, key]
  source: [], written: [], plain: null, step: 0, playing: null, run: 0,
};

// ---- words ----

function say(key, values = {}) {
  return texts[state.language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function element(tag, properties = {}, ...children) { // text is always text, never markup
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (share) => share.toLocaleString(state.language, {
  style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

function sign(id) { // how a symbol is drawn
  return ["▢", "⊢", "⊣"][id] ?? model().symbols[id - N_SPECIAL];
}

function spoken(id) { // how it is called in a sentence
  const special = ["padding", "start", "end"][id];
  return special ? say(special) : `“${sign(id)}”`;
}

function translatePage() {
  document.documentElement.lang = state.language;
  $("language").lang = state.language === "en" ? "es" : "en";
  $("language").textContent = say("other");
  document.title = `revtrans: ${say("title")}`;
  for (const e of document.querySelectorAll("[data-say]")) e.textContent = say(e.dataset.say);
  for (const e of document.querySelectorAll("[data-label]")) {
    e.setAttribute("aria-label", say(e.dataset.label));
    e.title = say(e.dataset.label);
  }
  buildChoices();
  buildPanels();
  read();
}

// ---- the model ----

function modelOf(packed) {
  if (!unpacked.has(packed)) unpacked.set(packed, unpack(packed));
  return unpacked.get(packed);
}

const model = () => modelOf(state.hand ? byHand : learned[state.moment].model);

function standIns() { // for the heads that are switched off: zeros, or what they say elsewhere
  const off = { encoder: [], decoder: [], cross: [] };
  if (!state.off.size) return off;
  const { d_model, n_heads } = model().config, width = d_model / n_heads;
  const means = state.mean ? meansOf(model()) : null;
  for (const key of state.off) {
    const [kind, ...place] = key.split("."), [layer, head] = place.map(Number);
    const row = means ? means[kind][layer] : new Array(d_model).fill(0);
    (off[kind][layer] ??= [])[head] = row.slice(head * width, (head + 1) * width);
  }
  return off;
}

function meansOf(model) {
  const length = model.config.max_length;
  return model.means ??= meanResults(model, examples.map((pair) =>
    pair.map((text) => idsOf(model, text).slice(0, length))));
}

function random() { // mulberry32: the same draws for the same seed
  state.draw = (state.draw + 0x6d2b79f5) | 0;
  let t = Math.imul(state.draw ^ (state.draw >>> 15), 1 | state.draw);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

// ---- from the text to the answer ----

function small(symbol) { // a capital that the model does not know, if it knows the small letter
  const lower = symbol.toLowerCase(), knows = (text) => idsOf(model(), text).every((id) => id >= 0);
  return !knows(symbol) && knows(lower) ? lower : symbol;
}

function read() { // what was typed, as far as the model can read it
  const typed = Array.from($("text").value.normalize("NFC")), smaller = typed.map(small);
  const ids = idsOf(model(), smaller.join("")), { max_length } = model().config;
  const unknown = [...new Set(smaller.filter((_, i) => ids[i] < 0))];
  const known = ids.filter((id) => id >= 0), said = [];
  if (smaller.join("") !== typed.join("")) said.push(say("small"));
  if (unknown.length) said.push(say("unknown", {
    symbols: unknown.map((symbol) => `“${symbol}”`).join(" "), alphabet: alphabet() }));
  if (known.length > max_length) said.push(say("long", { n: max_length }));
  if (!known.length) said.push(say("empty"));
  $("message").textContent = said.join(" ");
  const source = known.slice(0, max_length);
  if (source.join() !== state.source.join()) state.step = Infinity; // the last one
  state.source = source;
  answer();
}

function alphabet() {
  const { symbols } = model();
  return symbols.length > 60 ? `${symbols.slice(0, 60).join("")}…` : symbols.join("");
}

async function answer() { // writes the whole answer; a later call ends an earlier one
  const run = ++state.run;
  if (state.written.length && state.step >= state.written.length - 1) state.step = Infinity;
  stop();
  state.written = [];
  state.plain = null;
  state.cell = {};
  if (state.source.length) {
    $("when").textContent = say("computing");
    const { masked, temperature } = state, off = standIns();
    state.draw = state.seed;
    const written = await all(run, write(model(), state.source, {
      off, masked, temperature, random }));
    const edited = state.off.size || !masked || temperature;
    const plain = edited ? await all(run, write(model(), state.source)) : written;
    if (run !== state.run) return;
    Object.assign(state, { written, plain, step: Math.min(state.step, written.length - 1) });
  }
  show();
}

async function all(run, steps) { // of a generator, letting the page breathe now and then
  const found = [];
  let since = performance.now();
  for (const id of steps) {
    found.push(id);
    if (performance.now() - since > 30) {
      await new Promise((go) => setTimeout(go));
      since = performance.now();
    }
    if (run !== state.run) break;
  }
  return found;
}

function look() { // all logits and maps of the step that is shown
  if (!state.source.length) return null;
  const off = standIns();
  const [memory, encoder] = encode(model(), state.source, off);
  const input = [BOS, ...state.written.slice(0, state.step)];
  const { logits, decoder, cross } = decode(model(), input, memory, off, state.masked);
  return { logits: logits.at(-1), encoder, decoder, cross };
}

// ---- the stage: letters above, what is written below ----

function show() {
  if (state.source.length && !state.written.length) return; // it is being computed
  const seen = state.seen = look();
  const n = state.written.length;
  $("time").max = Math.max(0, n - 1);
  $("time").value = state.step;
  $("when").textContent = n ? say("when", { t: state.step, n: n - 1 }) : "";
  $("time").setAttribute("aria-valuetext", $("when").textContent);
  for (const id of ["first", "back"]) $(id).disabled = !n || state.step === 0;
  for (const id of ["step", "last"]) $(id).disabled = !n || state.step === n - 1;
  $("play").disabled = !n;
  state.chosen.cross ??= seen && sharpest(seen.cross);
  showStage(seen);
  showNext(seen);
  for (const kind of KINDS) showPanel(kind, seen);
  showBeside();
}

function sharpest(layers) { // the head by which each letter, on the mean, is read most at some step
  const peak = (map) => map[0].reduce((sum, _, j) => sum + Math.max(...map.map((r) => r[j])), 0);
  let best = [0, 0];
  layers.forEach(({ weights }, layer) => weights.forEach((map, head) => {
    if (peak(map) > peak(layers[best[0]].weights[best[1]])) best = [layer, head];
  }));
  return best;
}

function showStage(seen) {
  const stage = $("stage"), room = stage.parentElement.clientWidth;
  const long = Math.max(state.source.length, state.written.length, 1);
  const pitch = Math.max(20, Math.min(52, Math.floor(room / long)));
  stage.style.width = `${pitch * long}px`;
  const tile = (id, i, top, kind) => {
    const made = element("div", { className: `tile ${kind}`, textContent: sign(id) });
    if (kind !== "source") made.addEventListener("click", () => goTo(i));
    Object.assign(made.style, { left: `${i * pitch + 1}px`, width: `${pitch - 3}px`, top });
    return made;
  };
  const place = (i, top) => {
    const made = element("div", { className: "place", textContent: i });
    Object.assign(made.style, { left: `${i * pitch}px`, width: `${pitch}px`, top });
    return made;
  };
  const written = state.written.slice(0, state.step + 1);
  const plain = state.plain ?? [];
  const about = (id, t) => [t === state.step ? "now" : "written", id !== plain[t] && "other"]
    .filter(Boolean).join(" ");
  stage.setAttribute("aria-hidden", "true"); // `told` says it in words
  stage.replaceChildren(
    links(seen, pitch),
    ...state.source.flatMap((id, i) => [place(i, "0"), tile(id, i, "18px", "source")]),
    ...written.flatMap((id, t) => [tile(id, t, "114px", about(id, t)), place(t, "154px")]));
  const now = state.step * pitch;
  if (stage.scrollWidth > room) stage.parentElement.scrollLeft = now - room / 2;
  tell(seen);
}

function links(seen, pitch) { // from the symbol being written to the letters that it reads
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  if (!seen) return svg;
  svg.classList.toggle("off", isOff("cross"));
  const [layer, head] = state.chosen.cross, row = seen.cross[layer].weights[head].at(-1);
  row.forEach((weight, j) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const from = (state.step + 0.5) * pitch, to = (j + 0.5) * pitch;
    path.setAttribute("d", `M${from} 113C${from} 86 ${to} 86 ${to} 59`);
    path.setAttribute("stroke-width", 1 + 7 * weight);
    path.setAttribute("opacity", weight);
    svg.append(path);
  });
  return svg;
}

function tell(seen) { // the same in a sentence
  if (!seen) return $("told").replaceChildren();
  const [layer, head] = state.chosen.cross, row = seen.cross[layer].weights[head].at(-1);
  const place = argmax(row), before = state.written.slice(0, state.step).map(sign).join("");
  const values = { layer, head, place, most: spoken(state.source[place]),
    share: percent(row[place]), standIn: say(state.mean ? "mean" : "zero") };
  const said = [say("toldStep", {
    t: state.step, before: before ? `“${before}”` : say("nothing"),
    symbol: spoken(state.written[state.step]) })];
  const told = isOff("cross") ? ["toldOff", "toldOffEven"] : ["toldHead", "toldHeadEven"];
  said.push(say(told[Number(isEven(row))], values));
  const atLast = state.step === state.written.length - 1;
  if (atLast && state.written.at(-1) !== EOS) said.push(say("stopped", { n: state.step + 1 }));
  const changed = changes();
  if (state.plain && changed.length) {
    const same = state.plain.join() === state.written.join();
    said.push(say("changes", { changes: changed.join(", ") }));
    said.push(say(same ? "same" : "changed", { answer: `“${text(state.plain)}”` }));
  }
  $("told").textContent = said.join(" ");
}

function changes() { // what is not as it was
  const said = [...state.off].map((key) => {
    const [kind, layer, head] = key.split(".");
    return say("changedOff", { kind: say(kind).toLowerCase(), layer, head });
  });
  if (!state.masked) said.push(say("changedMask"));
  if (state.temperature) said.push(say("temperature").toLowerCase());
  return said;
}

const isOff = (kind) => state.off.has([kind, ...state.chosen[kind]].join("."));
const isEven = (row) => row.length > 1 && Math.max(...row) - Math.min(...row) < 0.1 / row.length;

function text(written) { // without bos, padding and eos
  return written.filter((id) => id >= N_SPECIAL).map(sign).join("");
}

// ---- the next symbol ----

function showNext(seen) {
  const { temperature } = state;
  $("next-about").textContent = temperature
    ? say("nextChance", { temperature: temperature.toLocaleString(state.language) })
    : say("nextAbout");
  if (!seen) return $("next").replaceChildren();
  const p = softmax(seen.logits.map((logit) => logit / (temperature || 1)));
  const best = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, 6);
  $("next").replaceChildren(...best.map((id) => element("tr",
    { className: id === state.written[state.step] ? "picked" : "" },
    element("th", { scope: "row", textContent: sign(id), title: spoken(id) }),
    element("td", {}, element("meter", { value: p[id].toFixed(3), ariaLabel: spoken(id) })),
    element("td", { textContent: percent(p[id]) }))));
}

// ---- maps ----

const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30",
  "fde725"].map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

function colour(weight) {
  const x = weight * (VIRIDIS.length - 1), i = Math.min(Math.floor(x), VIRIDIS.length - 2);
  return VIRIDIS[i].map((low, c) => Math.round(low + (VIRIDIS[i + 1][c] - low) * (x - i)));
}

function paint(canvas, map, rows, columns) { // a pixel for each weight; rows to come stay empty
  Object.assign(canvas, { width: columns, height: rows });
  const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows);
  map.forEach((row, i) => row.forEach((weight, j) =>
    image.data.set([...colour(weight), 255], 4 * (i * columns + j))));
  pen.putImageData(image, 0, 0);
  return canvas;
}

function drawMap(canvas, map, queries, keys, pointed) { // large, with its letters
  const room = canvas.parentElement.clientWidth, margin = 22, ratio = window.devicePixelRatio || 1;
  const cell = Math.max(3, Math.min(30, Math.floor((Math.min(room, 420) - margin) / keys.length)));
  const width = margin + cell * keys.length, height = margin + cell * queries.length;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  canvas.layout = { cell, margin };
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(`--${name}`);
  pen.scale(ratio, ratio);
  pen.imageSmoothingEnabled = false;
  pen.fillStyle = ink("tile");
  pen.fillRect(margin, margin, width, height);
  const small = paint(document.createElement("canvas"), map, queries.length, keys.length);
  pen.drawImage(small, margin, margin, width - margin, height - margin);
  if (cell >= 9) {
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const label = (letter, on, x, y) => {
      pen.font = `${on ? "bold " : ""}${Math.min(15, cell)}px ui-monospace, monospace`;
      pen.fillStyle = ink(on ? "warm" : "soft");
      pen.fillText(letter, x, y);
    };
    const middle = (i) => margin + (i + 0.5) * cell;
    keys.forEach((letter, j) => label(letter, pointed?.[1] === j, middle(j), margin / 2));
    queries.forEach((letter, i) => label(letter, pointed?.[0] === i, margin / 2, middle(i)));
  }
  const frame = (i, j, columns, name) => {
    pen.strokeStyle = name;
    pen.lineWidth = 2;
    pen.strokeRect(margin + j * cell, margin + i * cell, columns * cell, cell);
  };
  if (canvas.kind !== "encoder") frame(map.length - 1, 0, keys.length, "white");
  if (pointed) frame(...pointed, 1, ink("warm"));
}

function letters(kind) { // ids of the rows and columns of a map
  const input = [BOS, ...state.written.slice(0, -1)];
  return { encoder: [state.source, state.source], decoder: [input, input],
    cross: [state.written, state.source] }[kind];
}

function inWords(kind, map, i) {
  const [queries, keys] = letters(kind), j = argmax(map[i]);
  const sentence = kind !== "cross" ? "row" : isEven(map[i]) ? "rowEven" : "rowCross";
  return say(sentence, {
    query: spoken(queries[i]), i, key: spoken(keys[j]), j, share: percent(map[i][j]) });
}

const headName = (layer, head) => say("headName", { layer, head });

function showPanel(kind, seen) {
  const { canvas, readout, list, title, heads } = panels[kind];
  for (const part of [canvas, readout, list.parentElement]) part.hidden = !seen;
  if (!seen) return;
  const [layer, head] = state.chosen[kind], map = seen[kind][layer].weights[head];
  const [queries, keys] = letters(kind);
  const pointed = state.cell.kind === kind && state.cell.i < map.length ? state.cell : null;
  drawMap(canvas, map, queries.map(sign), keys.map(sign), pointed && [pointed.i, pointed.j]);
  const off = isOff(kind);
  title.textContent = `${say(kind)} · ${headName(layer, head)}${off ? ` (${say("off")})` : ""}`;
  canvas.classList.toggle("off", off);
  canvas.setAttribute("aria-label", say("mapName", {
    kind: say(kind), head: headName(layer, head), now: inWords(kind, map, map.length - 1) }));
  readout.textContent = pointed ? say(kind === "cross" ? "cellCross" : "cell", {
    query: spoken(queries[pointed.i]), i: pointed.i, key: spoken(keys[pointed.j]), j: pointed.j,
    share: percent(map[pointed.i][pointed.j]) }) : say("hint");
  list.replaceChildren(...map.map((_, i) => element("li", { textContent: inWords(kind, map, i) })));
  for (const { button, box, layer: l, head: h } of heads) {
    paint(button.firstChild, seen[kind][l].weights[h], queries.length, keys.length);
    button.setAttribute("aria-pressed", l === layer && h === head);
    box.checked = !state.off.has(`${kind}.${l}.${h}`);
    button.parentElement.classList.toggle("off", !box.checked);
  }
  tieToTiles();
}

function tieToTiles() { // the letters of the cell pointed at, on the stage
  const { kind, i, j } = state.cell;
  const source = [...document.querySelectorAll(".tile.source")];
  const written = [...document.querySelectorAll(".tile:not(.source)")];
  for (const tile of [...source, ...written]) tile.classList.remove("pointed");
  const [of, places] = {
    encoder: [source, [i, j]], decoder: [written, [i - 1, j - 1]] }[kind] ?? [[], []];
  for (const place of places) of[place]?.classList.add("pointed");
  if (kind === "cross") for (const tile of [written[i], source[j]]) tile?.classList.add("pointed");
}

function point(kind, i, j) {
  const [layer, head] = state.chosen[kind], map = state.seen[kind][layer].weights[head];
  const within = (value, n) => Math.max(0, Math.min(n - 1, value));
  const cell = { kind, i: within(i, map.length), j: within(j, map[0].length) };
  if (kind === state.cell.kind && cell.i === state.cell.i && cell.j === state.cell.j) return;
  const before = state.cell.kind;
  state.cell = cell;
  showPanel(kind, state.seen);
  if (before && before !== kind) showPanel(before, state.seen);
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
let panels = {};

function buildPanels() {
  panels = Object.fromEntries(KINDS.map((kind) => [kind, buildPanel(kind)]));
  $("panels").replaceChildren(...KINDS.map((kind) => panels[kind].panel));
}

function buildPanel(kind) {
  const canvas = element("canvas", { tabIndex: 0, kind });
  canvas.setAttribute("role", "application");
  canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
    const { cell, margin } = canvas.layout;
    point(kind, Math.floor((offsetY - margin) / cell), Math.floor((offsetX - margin) / cell));
  });
  canvas.addEventListener("click", () => {
    if (kind !== "encoder" && state.cell.kind === kind) goTo(state.cell.i);
  });
  canvas.addEventListener("focus", () => {
    if (state.cell.kind !== kind) point(kind, kind === "encoder" ? 0 : state.step, 0);
  });
  canvas.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (event.key === "Escape") {
      state.cell = {};
      showPanel(kind, state.seen);
    }
    if (event.key === "Enter" && kind !== "encoder" && state.cell.kind === kind) goTo(state.cell.i);
    if (!arrow) return;
    event.preventDefault();
    if (state.cell.kind !== kind) return point(kind, kind === "encoder" ? 0 : state.step, 0);
    point(kind, state.cell.i + arrow[0], state.cell.j + arrow[1]);
  });
  const title = element("h3"), list = element("ul");
  const readout = element("p", { className: "readout", role: "status" });
  const { n_layers, n_heads } = model().config, heads = [];
  const group = element("div");
  for (let layer = 0; layer < n_layers; layer++) {
    const row = Array.from({ length: n_heads }, (_, head) => buildHead(kind, layer, head));
    heads.push(...row);
    group.append(element("div", { className: "heads" }, ...row.map(({ part }) => part)));
  }
  const words = element("details", {}, element("summary", { textContent: say("words") }), list);
  const about = element("p", { className: "about", textContent: say(`${kind}About`) });
  const panel = element("div", { className: "panel" },
    title, about, group, canvas, readout, words);
  return { panel, canvas, title, readout, list, heads };
}

function buildHead(kind, layer, head) { // a small map to choose it, a box to switch it off
  const name = `${say(kind)}, ${headName(layer, head)}`;
  const button = element("button", { type: "button", title: name, ariaLabel: name },
    element("canvas"));
  button.addEventListener("click", () => {
    state.chosen[kind] = [layer, head];
    show();
  });
  const box = element("input", { type: "checkbox", checked: true });
  box.setAttribute("aria-label", say("onName", { kind: say(kind), head: headName(layer, head) }));
  box.addEventListener("change", () => {
    const key = `${kind}.${layer}.${head}`;
    if (box.checked) state.off.delete(key); else state.off.add(key);
    answer();
  });
  const caption = element("label", {}, box, ` ${layer}·${head}`);
  return { part: element("div", { className: "head" }, button, caption), button, box, layer, head };
}

// ---- beside it, the model made by hand ----

async function showBeside() {
  $("beside").hidden = !byHand || !state.source.length;
  if ($("beside").hidden) return;
  const [layer, head] = state.hand ? [null] : state.chosen.cross;
  const sides = [[learned[state.moment].model, layer, head, "learned"],
    [byHand, null, null, "hand"]];
  const run = state.beside = `${state.run} ${layer} ${head} ${state.language}`;
  const pieces = [];
  for (const [packed, layer, head, name] of sides) {
    const one = modelOf(packed), source = state.source.slice(0, one.config.max_length);
    const [memory] = encode(one, source), written = await all(state.run, write(one, source));
    if (run !== state.beside) return;
    const { cross } = decode(one, [BOS, ...written.slice(0, -1)], memory);
    const [l, h] = layer === null ? sharpest(cross) : [layer, head];
    const canvas = element("canvas"), map = cross[l].weights[h];
    canvas.setAttribute("role", "img");
    const inWords = (row, i) => say(isEven(row) ? "rowEven" : "rowCross", {
      query: spoken(written[i]), i, key: spoken(source[argmax(row)]), j: argmax(row),
      share: percent(Math.max(...row)) });
    canvas.setAttribute("aria-label", map.map(inWords).join("; "));
    pieces.push([canvas, map, written.map(sign), source.map(sign), element("div",
      { className: "panel" }, element("h3", { textContent: `${say(name)} · ${headName(l, h)}` }),
      element("p", { className: "answer", textContent: text(written) }), canvas)]);
  }
  $("pair").replaceChildren(...pieces.map(([, , , , panel]) => panel));
  for (const [canvas, map, queries, keys] of pieces) {
    canvas.kind = "encoder"; // no row is the present one
    drawMap(canvas, map, queries, keys, null);
  }
}

// ---- controls ----

function goTo(step) {
  if (!state.written.length) return;
  state.step = Math.max(0, Math.min(state.written.length - 1, step));
  show();
}

function stop() {
  clearInterval(state.playing);
  state.playing = null;
  $("play").textContent = say("play");
}

function play() {
  if (state.playing) return stop();
  if (state.step === state.written.length - 1) goTo(0);
  $("play").textContent = say("pause");
  state.playing = setInterval(() => {
    if (state.step < state.written.length - 1) goTo(state.step + 1); else stop();
  }, 700);
}

function chooseModel(hand) {
  Object.assign(state, { hand, off: new Set(), cell: {}, step: Infinity });
  state.chosen = { encoder: [0, 0], decoder: [0, 0], cross: null };
  buildChoices();
  buildPanels();
  read();
}

function buildChoices() {
  const choice = (hand) => {
    const button = element("button", {
      type: "button", textContent: say(hand ? "hand" : "learned"),
      onclick: () => chooseModel(hand) });
    button.setAttribute("aria-pressed", state.hand === hand);
    return button;
  };
  $("which").replaceChildren(say("model"), choice(false), choice(true));
  $("which").hidden = !byHand;
  const backwards = examples.find(([text, answer]) =>
    text !== answer && answer === Array.from(text).reverse().join(""));
  $("task").hidden = !backwards;
  if (backwards) $("task").textContent = say("task", {
    text: backwards[0], answer: backwards[1] });
  $("moments").hidden = learned.length < 2 || state.hand;
  $("moment").max = learned.length - 1;
  $("moment").value = state.moment;
  nameMoment();
  $("temperature").value = state.temperature;
  nameTemperature();
  const { config, weights } = model();
  const count = (part) => typeof part === "number" ? 0 : part instanceof Float32Array
    ? part.length : Object.values(part).reduce((sum, inner) => sum + count(inner), 0);
  $("sizes").textContent = say("sizes", {
    weights: count(weights).toLocaleString(state.language), layers: config.n_layers,
    heads: config.n_heads, width: config.d_model, length: config.max_length,
    alphabet: alphabet() });
}

function nameMoment() {
  const { step } = learned[state.moment];
  $("moment-name").textContent = step === null ? say("trained") : say("after", { n: step });
  $("moment").setAttribute("aria-valuetext", $("moment-name").textContent);
}

function nameTemperature() {
  $("temperature-value").textContent = state.temperature.toLocaleString(state.language);
  $("again").hidden = !state.temperature;
}

function reset() {
  Object.assign(state, {
    moment: learned.length - 1, temperature: 0, masked: true, mean: false });
  $("mask").checked = document.querySelector('[value="zero"]').checked = true;
  chooseModel(false);
}

const on = (id, kind, act) => $(id).addEventListener(kind, (event) => act(event.target));
on("language", "click", () => {
  state.language = state.language === "en" ? "es" : "en";
  translatePage();
});
on("text", "input", read);
on("first", "click", () => goTo(0));
on("back", "click", () => goTo(state.step - 1));
on("step", "click", () => goTo(state.step + 1));
on("last", "click", () => goTo(state.written.length - 1));
on("play", "click", play);
on("time", "input", ({ value }) => goTo(Number(value)));
on("moment", "input", ({ value }) => {
  state.moment = Number(value);
  nameMoment();
  answer();
});
on("temperature", "input", ({ value }) => {
  state.temperature = Number(value);
  nameTemperature();
  answer();
});
on("again", "click", () => {
  state.seed += 1;
  answer();
});
on("mask", "change", ({ checked }) => {
  state.masked = checked;
  answer();
});
for (const radio of document.getElementsByName("stand-in")) {
  radio.addEventListener("change", () => {
    state.mean = radio.value === "mean";
    answer();
  });
}
on("reset", "click", reset);
window.addEventListener("resize", show);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);

for (const [word] of examples.slice(0, 4)) {
  $("examples").append(element("button", { type: "button", textContent: word, onclick: () => {
    $("text").value = word;
    read();
  } }));
}
$("text").value = examples[0]?.[0] ?? "";
document.querySelector("main").hidden = false;
paint($("scale"), [Array.from({ length: 256 }, (_, i) => i / 255)], 1, 256);
translatePage();
