// Puts maps that answer in the place of a still picture. Called with the id of its element and the
// maps, by their kind: { weights: [layer][head][query][key] in thousandths, queries, keys }.
(function (id, kinds) {
  "use strict";
  const box = document.getElementById(id), size = 15, margin = 18;
  if (!box) return;
  const make = (tag, attributes = {}, text = "") => {
    const name = "http://www.w3.org/2000/svg", svg = ["svg", "g", "rect", "text"].includes(tag);
    const made = svg ? document.createElementNS(name, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const viridis = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const colour = (weight) => {
    const place = Math.min(weight * 4, 3.999), i = Math.floor(place);
    return viridis[i].map((low, c) => low + (viridis[i + 1][c] - low) * (place - i));
  };
  const about = make("p", { role: "status", style: "min-height: 1.5em; margin: 6px 0" });

  function draw(name, layer, head, weights, queries, keys) {
    const title = `${name}, layer ${layer}, head ${head}`;
    const width = margin + size * keys.length, height = margin + size * queries.length;
    const most = weights.map((row) => row.indexOf(Math.max(...row)));
    const words = weights.map((_, i) =>
      `row ${i} ${queries[i]}: column ${most[i]} ${keys[most[i]]}`);
    const svg = make("svg", { width, height, tabindex: 0, role: "img",
      "aria-label": `${title}. Where each row looks most: ${words.join("; ")}` });
    const label = (text, x, y) => svg.appendChild(make("text", { x, y, fill: "currentColor",
      "font-size": 11, "font-family": "monospace", "text-anchor": "middle" }, text));
    const across = keys.map((key, j) => label(key, margin + (j + 0.5) * size, margin - 6));
    const down = queries.map((query, i) => label(query, margin / 2, margin + (i + 0.7) * size));
    const frame = make("rect", { width: size, height: size, fill: "none", stroke: "#d1495b",
      "stroke-width": 2, visibility: "hidden" });
    weights.forEach((row, i) => row.forEach((thousandths, j) => {
      const weight = thousandths / 1000;
      const cell = make("rect", { x: margin + j * size, y: margin + i * size, width: size,
        height: size, fill: `rgb(${colour(weight)})` });
      cell.addEventListener("pointerenter", () => point(i, j));
      svg.append(cell);
    }));
    svg.append(frame);
    let at = [0, 0];
    function point(i, j) {
      at = [i, j].map((place, axis) =>
        Math.max(0, Math.min(place, (axis ? keys : queries).length - 1)));
      frame.setAttribute("x", margin + at[1] * size);
      frame.setAttribute("y", margin + at[0] * size);
      frame.setAttribute("visibility", "visible");
      down.forEach((text, k) => text.setAttribute("font-weight", k === at[0] ? 900 : 400));
      across.forEach((text, k) => text.setAttribute("font-weight", k === at[1] ? 900 : 400));
      about.textContent = `${title}: row ${at[0]} “${queries[at[0]]}” looks at column ${at[1]} `
        + `“${keys[at[1]]}” with weight ${(weights[at[0]][at[1]] / 1000).toFixed(3)}`;
    }
    const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    svg.addEventListener("focus", () => point(...at));
    svg.addEventListener("keydown", (event) => {
      const arrow = arrows[event.key];
      if (!arrow) return;
      event.preventDefault();
      event.stopPropagation(); // a notebook's own keys
      point(at[0] + arrow[0], at[1] + arrow[1]);
    });
    const part = make("figure", { style: "display: inline-block; margin: 0 14px 8px 0" });
    const caption = `layer ${layer}, head ${head}`;
    part.append(make("figcaption", { style: "font-size: 12px" }, caption), svg);
    return part;
  }

  const choices = make("div"), maps = make("div");
  function show(name) {
    const { weights, queries, keys } = kinds[name];
    for (const button of choices.children) {
      button.setAttribute("aria-pressed", button.textContent === name);
      button.style.fontWeight = button.textContent === name ? 700 : 400;
    }
    about.textContent = "Point at a cell, or reach a map with Tab and move with the arrows.";
    maps.replaceChildren(...weights.flatMap((heads, layer) => [...heads.map((one, head) =>
      draw(name, layer, head, one, queries, keys)), make("br")]));
  }
  for (const name of Object.keys(kinds)) {
    const button = make("button", { type: "button", style: "margin-right: 6px" }, name);
    button.addEventListener("click", () => show(name));
    choices.append(button);
  }
  box.replaceChildren(choices, about, maps);
  show(Object.keys(kinds)[0]);
})
