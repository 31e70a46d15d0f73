"use strict";
// What the page shows is a function of `state`; everything that a person does changes it and draws anew.
const data = JSON.parse(document.getElementById("data").textContent);
const [rows, columns] = data.grid, [cellHeight, cellWidth] = data.cell;
const state = { image: 0, show: "rollout", layer: data.layers - 1, head: -1, patch: null };
const get = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
let images = [], positions = null;

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const floats = async (text) => new Float32Array((await inflate(text)).buffer);

async function unpack(image) {
  const picture = new Image();
  picture.src = image.uri;
  const [rollout, output, means, single] = await Promise.all([image.rollout, image.output, image.means, image.single].map(inflate));
  const [peaks, meanPeaks, singlePeaks] = await Promise.all([image.peaks, image.meanPeaks, image.singlePeaks].map(floats));
  const relevance = await Promise.all(image.relevance.map(inflate));
  await picture.decode();
  return { ...image, picture, rollout, relevance, output, means, single, peaks, meanPeaks, singlePeaks };
}

// A map is { values: 0 to 255, rows, columns, cell: patches that one value covers, peak: what 255 stands for }.
const whole = (values, peak = null) => ({ values, rows, columns, cell: 1, peak });

function fromOutput(image, layer, head) {
  const size = rows * columns, first = layer * data.heads;
  if (head >= 0) return whole(image.output.subarray((first + head) * size, (first + head + 1) * size), image.peaks[first + head]);
  const sums = new Float32Array(size);
  for (let each = 0; each < data.heads; each++)
    for (let place = 0; place < size; place++)
      sums[place] += image.output[(first + each) * size + place] * image.peaks[first + each] / 255 / data.heads;
  const peak = Math.max(...sums);
  return whole(sums.map((value) => 255 * value / (peak || 1)), peak);
}

function fromPatch(image, layer, head, [row, column]) {
  const cells = head < 0 ? data.means : data.single, heads = head < 0 ? 1 : data.heads;
  const [values, peaks] = head < 0 ? [image.means, image.meanPeaks] : [image.single, image.singlePeaks];
  const queries = cells.queries[0] * cells.queries[1], keys = cells.keys[0] * cells.keys[1];
  const query = Math.floor(row / cells.query) * cells.queries[1] + Math.floor(column / cells.query);
  const place = (layer * heads + Math.max(head, 0)) * queries + query;
  return { values: values.subarray(place * keys, (place + 1) * keys), rows: cells.keys[0], columns: cells.keys[1], cell: cells.key, peak: peaks[place] };
}

const attention = (image, layer, head) =>
  state.patch ? fromPatch(image, layer, head, state.patch) : fromOutput(image, layer, head);

function shown(image) {
  if (state.show === "rollout") return whole(image.rollout);
  if (state.show.startsWith("relevance")) return whole(image.relevance[Number(state.show.slice(9))]);
  return attention(image, state.layer, state.head);
}

/** A canvas with one pixel a value, each coloured by `paint`, which gives red, green, blue, alpha. */
function small(map, paint) {
  const canvas = new OffscreenCanvas(map.columns, map.rows), context = canvas.getContext("2d");
  const pixels = context.createImageData(map.columns, map.rows);
  map.values.forEach((value, place) => pixels.data.set(paint(value), 4 * place));
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function viridis(value) {
  const at = Math.min(Math.max(value, 0), 255) / 255 * (VIRIDIS.length - 1), below = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return [...VIRIDIS[below].map((part, i) => part + (at - below) * (VIRIDIS[below + 1][i] - part)), 255];
}

function drawPicture(image) {
  const canvas = get("picture"), context = canvas.getContext("2d"), { picture } = image;
  const scale = Math.max(1, Math.round(640 / Math.max(picture.naturalWidth, picture.naturalHeight)));
  canvas.width = picture.naturalWidth * scale;
  canvas.height = picture.naturalHeight * scale;
  const map = shown(image), stepX = cellWidth * scale, stepY = cellHeight * scale;
  context.imageSmoothingEnabled = scale < 4;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  context.save();
  context.beginPath();
  context.rect(0, 0, columns * stepX, rows * stepY);
  context.clip();
  context.imageSmoothingEnabled = true;
  context.drawImage(small(map, (value) => [0, 0, 0, 235 * (1 - value / 255)]), 0, 0, map.columns * map.cell * stepX, map.rows * map.cell * stepY);
  context.restore();
  if (state.patch) {
    const [row, column] = state.patch;
    for (const [colour, width] of [["#fff", 5], ["#d55e00", 3]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * canvas.width / 640;
      context.strokeRect(column * stepX, row * stepY, stepX, stepY);
    }
  }
  return map;
}

function drawHeads(image) {
  const one = attention(image, 0, 0), gap = 2, zoom = Math.max(2, Math.min(6, Math.floor(72 / Math.max(one.rows, one.columns))));
  const stepX = one.columns * zoom + gap, stepY = one.rows * zoom + gap, canvas = get("heads"), context = canvas.getContext("2d");
  canvas.width = data.heads * stepX + gap;
  canvas.height = data.layers * stepY + gap;
  context.imageSmoothingEnabled = false;
  for (let layer = 0; layer < data.layers; layer++)
    for (let head = 0; head < data.heads; head++) {
      const chosen = state.show === "attention" && layer === state.layer && (head === state.head || state.head < 0);
      context.fillStyle = chosen ? "#d55e00" : "transparent";
      context.fillRect(head * stepX, layer * stepY, stepX + gap, stepY + gap);
      context.drawImage(small(attention(image, layer, head), viridis), head * stepX + gap, layer * stepY + gap, stepX - gap, stepY - gap);
    }
  canvas.dataset.step = `${stepX} ${stepY}`;
}

function drawPositions() {
  if (!positions) return;
  const [row, column] = state.patch ?? [Math.floor(rows / 2), Math.floor(columns / 2)];
  const query = Math.floor(row / positions.query) * positions.queries[1] + Math.floor(column / positions.query);
  const [down, across] = positions.keys, size = down * across, canvas = get("positions");
  canvas.width = across;
  canvas.height = down;
  const map = { values: positions.values.subarray(query * size, (query + 1) * size), rows: down, columns: across };
  canvas.getContext("2d").drawImage(small(map, viridis), 0, 0);
  canvas.style.aspectRatio = `${across * cellWidth} / ${down * cellHeight}`;
  get("place").textContent = `Row ${row + 1}, column ${column + 1}.`;
}

function say(image, map) {
  const best = map.values.indexOf(Math.max(...map.values)), at = [Math.floor(best / map.columns) * map.cell + 1, best % map.columns * map.cell + 1];
  const where = `row ${at[0]}, column ${at[1]}`;
  if (state.show === "rollout") return `Over all layers most comes from ${where}.`;
  if (state.show !== "attention") return `Most for “${image.classes[Number(state.show.slice(9))][0]}” speaks ${where}.`;
  const who = state.patch ? `The patch in row ${state.patch[0] + 1}, column ${state.patch[1] + 1}` : "The answer";
  const by = state.head < 0 ? "all heads" : `head ${state.head + 1}`;
  return `${who} attends most to ${where} (${percent(map.peak)} of the attention; layer ${state.layer + 1}, ${by}).`;
}

function draw() {
  const image = images[state.image];
  for (const part of document.querySelectorAll("[data-image]")) part.hidden = Number(part.dataset.image) !== state.image;
  for (const pick of document.querySelectorAll("[data-pick]")) pick.setAttribute("aria-pressed", Number(pick.dataset.pick) === state.image);
  const attends = state.show === "attention", names = ["rollout", ...image.classes.map((_, i) => `relevance${i}`), "attention"];
  const words = ["what reaches the answer (rollout)", ...image.classes.map(([name, share]) => `what speaks for ${name} (${percent(share)})`), "what one layer attends to"];
  get("show").replaceChildren(...names.map((name, i) => new Option(words[i], name, false, name === state.show)));
  get("which").hidden = !attends;
  get("answer").hidden = !state.patch;
  get("layer").value = state.layer + 1;
  get("layer-said").textContent = `${state.layer + 1} of ${data.layers}`;
  get("head").value = state.head;
  get("said").textContent = say(image, drawPicture(image));
  drawHeads(image);
  drawPositions();
}

const change = (changes) => { Object.assign(state, changes); draw(); };

/** The row and column of what lies under the pointer, of `down` by `across` steps of the given size on a canvas. */
function under(event, canvas, stepX, stepY, down, across) {
  const box = canvas.getBoundingClientRect();
  const x = (event.clientX - box.left) * canvas.width / box.width, y = (event.clientY - box.top) * canvas.height / box.height;
  return [Math.min(Math.max(Math.floor(y / stepY), 0), down - 1), Math.min(Math.max(Math.floor(x / stepX), 0), across - 1)];
}

function listen() {
  const picture = get("picture"), moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  picture.addEventListener("click", (event) => {
    const scale = picture.width / images[state.image].picture.naturalWidth;
    change({ show: "attention", patch: under(event, picture, cellWidth * scale, cellHeight * scale, rows, columns) });
  });
  picture.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.patch) change({ patch: null });
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [row, column] = state.patch ?? [Math.floor(rows / 2), Math.floor(columns / 2)];
    const [down, across] = state.patch ? moves[event.key] : [0, 0];
    change({ show: "attention", patch: [Math.min(Math.max(row + down, 0), rows - 1), Math.min(Math.max(column + across, 0), columns - 1)] });
  });
  get("heads").addEventListener("click", (event) => {
    const [stepX, stepY] = get("heads").dataset.step.split(" ").map(Number);
    const [layer, head] = under(event, get("heads"), stepX, stepY, data.layers, data.heads);
    change({ show: "attention", layer, head });
  });
  for (const pick of document.querySelectorAll("[data-pick]")) pick.addEventListener("click", () => change({ image: Number(pick.dataset.pick) }));
  get("show").addEventListener("change", (event) => change({ show: event.target.value }));
  get("layer").addEventListener("input", (event) => change({ layer: Number(event.target.value) - 1 }));
  get("head").addEventListener("change", (event) => change({ head: Number(event.target.value) }));
  get("answer").addEventListener("click", () => change({ patch: null }));
}

(async () => {
  images = await Promise.all(data.images.map(unpack));
  if (data.positions) positions = { ...data.positions, values: await inflate(data.positions.values) };
  listen();
  draw();
  document.body.dataset.ready = "";
})();
