"use strict";
// The Transformer of this series: its forward pass in plain JavaScript, with the library's names.
// A row is a list of numbers, a matrix a list of rows. One text at a time, so there is no padding.

// ---- numbers ----

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function add(x, y) { // two matrices of one shape
  return x.map((row, i) => row.map((value, j) => value + y[i][j]));
}

function linear(x, { weight, bias }) { // as nn.Linear: weight has a row for each output
  return x.map((row) => weight.map((w, i) => dot(row, w) + (bias ? bias[i] : 0)));
}

function layerNorm(x, { weight, bias }) { // as nn.LayerNorm
  return x.map((row) => {
    const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
    const scale = 1 / Math.sqrt(variance + 1e-5);
    return row.map((value, i) => (value - mean) * scale * weight[i] + bias[i]);
  });
}

function softmax(row) {
  const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = row.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
}

// ---- attention: notebook 02 ----

function maskedSoftmax(scores, mask) { // mask[query][key]: true = may attend
  return scores.map((row, i) => {
    if (!mask) return softmax(row);
    return softmax(row.map((score, j) => (mask[i][j] ? score : -Infinity)));
  });
}

function scaledDotProductAttention(query, key, value, mask) {
  const scale = 1 / Math.sqrt(query[0].length);
  const scores = query.map((q) => key.map((k) => dot(q, k) * scale));
  const weights = maskedSoftmax(scores, mask);
  const columns = value[0].map((_, d) => value.map((row) => row[d]));
  const attended = weights.map((row) => columns.map((column) => dot(row, column)));
  return [attended, weights];
}

function causalMask(length) {
  return Array.from({ length }, (_, i) => Array.from({ length }, (_, j) => j <= i));
}

function splitHeads(x, nHeads) { // a matrix for each head
  const dHead = x[0].length / nHeads;
  return Array.from({ length: nHeads }, (_, head) =>
    x.map((row) => row.slice(head * dHead, (head + 1) * dHead)));
}

function mergeHeads(heads) {
  return heads[0].map((_, i) => heads.flatMap((head) => head[i]));
}

// standIns[head], if there is one, is a row that takes the place of all that the head found.
function multiHeadAttention(attention, query, memory, mask, standIns = []) {
  const { nHeads } = attention;
  const queries = splitHeads(linear(query, attention.query), nHeads);
  const keys = splitHeads(linear(memory, attention.key), nHeads);
  const values = splitHeads(linear(memory, attention.value), nHeads);
  const pairs = queries.map((q, head) =>
    scaledDotProductAttention(q, keys[head], values[head], mask));
  const found = pairs.map(([attended], head) =>
    standIns[head] ? attended.map(() => standIns[head]) : attended);
  const merged = mergeHeads(found);
  return [linear(merged, attention.output), pairs.map(([, weights]) => weights), merged];
}

// ---- positions: notebook 03 ----

function sinusoids(position, dModel) { // one row: sines in even places, cosines in odd ones
  return Array.from({ length: dModel }, (_, i) => {
    const angle = position * 10000 ** (-(i - (i % 2)) / dModel);
    return i % 2 ? Math.cos(angle) : Math.sin(angle);
  });
}

// ---- encoder and decoder: notebook 04 ----

function feedForward(x, { up, down }) {
  const hidden = linear(x, up).map((row) => row.map((value) => Math.max(0, value)));
  return linear(hidden, down);
}

function encoderLayer(layer, x, standIns) {
  const h = layerNorm(x, layer.norm1);
  const [attended, weights, found] = multiHeadAttention(
    layer.self_attention, h, h, null, standIns);
  x = add(x, attended);
  x = add(x, feedForward(layerNorm(x, layer.norm2), layer.feed_forward));
  return [x, { weights, found }];
}

function decoderLayer(layer, x, memory, mask, ownStandIns, crossStandIns) {
  let h = layerNorm(x, layer.norm1);
  const [own, ownWeights, ownFound] = multiHeadAttention(
    layer.self_attention, h, h, mask, ownStandIns);
  x = add(x, own);
  h = layerNorm(x, layer.norm2);
  const [read, crossWeights, crossFound] = multiHeadAttention(
    layer.cross_attention, h, memory, null, crossStandIns);
  x = add(x, read);
  x = add(x, feedForward(layerNorm(x, layer.norm3), layer.feed_forward));
  return [x, { weights: ownWeights, found: ownFound },
    { weights: crossWeights, found: crossFound }];
}

function embed(model, ids) {
  const { config, weights } = model;
  return ids.map((id, position) => {
    const place = config.positions === "learned"
      ? Array.from(weights.positions.table[position]) : sinusoids(position, config.d_model);
    const symbol = weights.embedding.weight[id];
    return place.map((value, i) => symbol[i] * Math.sqrt(config.d_model) + value);
  });
}

function unembed(model, x) { // the logits
  const { config, weights } = model;
  return linear(x, config.tied ? weights.embedding : weights.unembedding);
}

// off.encoder[layer][head] is the stand-in of a head that is switched off; so for the other kinds.
const NOTHING_OFF = { encoder: [], decoder: [], cross: [] };

function encode(model, source, off = NOTHING_OFF) {
  let x = embed(model, source);
  const layers = model.weights.encoder.layers.map((layer, i) => {
    const [next, own] = encoderLayer(layer, x, off.encoder[i]);
    x = next;
    return own;
  });
  return [layerNorm(x, model.weights.encoder.norm), layers];
}

function decode(model, decoderInput, memory, off = NOTHING_OFF, masked = true) {
  let x = embed(model, decoderInput);
  const mask = masked ? causalMask(decoderInput.length) : null;
  const decoder = [], cross = [];
  model.weights.decoder.layers.forEach((layer, i) => {
    const [next, own, read] = decoderLayer(layer, x, memory, mask, off.decoder[i], off.cross[i]);
    x = next;
    decoder.push(own);
    cross.push(read);
  });
  return { logits: unembed(model, layerNorm(x, model.weights.decoder.norm)), decoder, cross };
}

// ---- decoding: notebook 06 ----

const PAD = 0, BOS = 1, EOS = 2, N_SPECIAL = 3;

function argmax(row) {
  return row.reduce((best, value, i) => (value > row[best] ? i : best), 0);
}

function pick(logits, temperature, random) { // the likeliest; above temperature 0, one by chance
  if (temperature === 0) return argmax(logits);
  let left = random();
  const p = softmax(logits.map((logit) => logit / temperature));
  const found = p.findIndex((share) => (left -= share) < 0);
  return found < 0 ? argmax(logits) : found;
}

// Yields one id after the other, up to eos. Each step computes all positions again.
function* write(model, source, { off, masked, temperature = 0, random } = {}) {
  const [memory] = encode(model, source, off);
  const written = [BOS];
  while (written.length < model.config.max_length + 2 && written.at(-1) !== EOS) {
    const { logits } = decode(model, written, memory, off, masked);
    written.push(pick(logits.at(-1), temperature, random));
    yield written.at(-1);
  }
}

// What each head finds on the whole, side by side, for each kind and layer; see notebook 07.
function meanResults(model, pairs) { // pairs of ids: [source, target]
  const sums = { encoder: [], decoder: [], cross: [] };
  for (const [source, target] of pairs) {
    const [memory, encoder] = encode(model, source);
    const { decoder, cross } = decode(model, [BOS, ...target], memory);
    for (const [kind, layers] of Object.entries({ encoder, decoder, cross })) {
      layers.forEach(({ found }, i) => (sums[kind][i] ??= []).push(...found));
    }
  }
  const mean = (rows) => rows[0].map((_, d) =>
    rows.reduce((sum, row) => sum + row[d], 0) / rows.length);
  return Object.fromEntries(Object.entries(sums).map(([kind, layers]) => [kind, layers.map(mean)]));
}

// ---- a model in a page ----

function halfToNumber(bits) { // IEEE 754, 16 bits: sign, 5 of exponent, 10 of fraction
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function unpack({ config, shapes, halves }) { // halves: base64 of all weights, one after the other
  const bytes = Uint8Array.from(atob(halves), (letter) => letter.charCodeAt(0));
  const numbers = Float32Array.from(new Uint16Array(bytes.buffer), halfToNumber);
  const weights = {};
  let start = 0;
  for (const [name, [rows, columns]] of Object.entries(shapes)) {
    const take = (n) => numbers.subarray(start, (start += n));
    const value = columns ? Array.from({ length: rows }, () => take(columns)) : take(rows);
    const path = name.split("."), last = path.pop();
    path.reduce((part, key) => (part[key] ??= {}), weights)[last] = value;
  }
  for (const side of ["encoder", "decoder"]) {
    weights[side].layers = Object.values(weights[side].layers);
    for (const { self_attention: own, cross_attention: cross } of weights[side].layers) {
      for (const attention of [own, cross]) if (attention) attention.nHeads = config.n_heads;
    }
  }
  return { config, symbols: Array.from(config.symbols), weights };
}

function idsOf(model, text) { // -1 for what is not in the alphabet
  return Array.from(text.normalize("NFC"), (symbol) => {
    const index = model.symbols.indexOf(symbol);
    return index < 0 ? -1 : index + N_SPECIAL;
  });
}
