// node page_in_node.js PAGE.html CASES.json OUT: runs the page's own script on all cases.
// A case is [source, decoder input, switches]; OUT gets all logits as 32-bit floats, and the
// answers, as JSON, go to standard output.
"use strict";
const fs = require("fs");
const vm = require("vm");

const [pagePath, casesPath, out] = process.argv.slice(2);
const page = fs.readFileSync(pagePath, "utf-8");
const part = (id) => page.match(new RegExp(`<script[^>]* id="${id}">([^]*?)</script>`))[1];
vm.runInThisContext(part("transformer"));

const { learned, byHand } = JSON.parse(part("data"));
const models = [...learned.map(({ model }) => model), byHand].filter(Boolean).map(unpack);
const logits = [], answers = [];
for (const { model: index, source, input, off, masked, write: writes } of
  JSON.parse(fs.readFileSync(casesPath, "utf-8"))) {
  const model = models[index], ids = idsOf(model, source);
  const [memory] = encode(model, ids, off);
  logits.push(...decode(model, input, memory, off, masked).logits.flat());
  if (writes) answers.push([...write(model, ids, { off, masked })]);
}
fs.writeFileSync(out, Float32Array.from(logits));
console.log(JSON.stringify(answers));
