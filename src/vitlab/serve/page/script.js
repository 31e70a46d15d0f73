"use strict";

const VIRIDIS = ["#440154", "#481a6c", "#472f7d", "#414487", "#39568c", "#31688e", "#2a788e", "#23888e",
  "#1f988b", "#22a884", "#35b779", "#54c568", "#7ad151", "#a5db36", "#d2e21b", "#fde725"];
const MEAN = -1; // stands for the mean over heads, as on the server
const TRIES = 6; // of a request that a busy server puts off
const CACHED_LAYERS = 24; // of one image and model; the oldest goes

const $ = (selector, root = document) => root.querySelector(selector);
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 2 : 1)}\u00a0%`;
const place = (patch, columns) => `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const isAbort = (error) => error.name === "AbortError";

const state = { models: [], image: null, view: "rollout", opacity: 0.6, panels: [] };

// ---------------------------------------------------------------- the server

/** An error whose message is for the person at the page. */
class Problem extends Error {}

/** Ask the server; one that is busy is asked again when it says so, and whatever goes wrong becomes a Problem in plain words. */
async function ask(path, { body, signal, say = () => {} } = {}) {
  for (let attempt = 1; ; attempt++) {
    const options = body ? { method: "POST", body, headers: { "Content-Type": body.type || "application/octet-stream" } } : {};
    let response;
    try {
      response = await fetch(path, { ...options, signal });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw new Problem("The server does not answer. Is it still running? Then try again.");
    }
    if (response.ok) return response;
    if (response.status !== 503 || attempt === TRIES) throw new Problem(await reasonOf(response));
    const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, 30);
    say(`The server is busy; asking again in ${seconds} s`);
    await pause(1000 * seconds, signal);
  }
}

async function reasonOf(response) {
  const told = await response.json().catch(() => ({}));
  const said = told.error ?? told.detail ?? told;
  if (typeof said === "string") return sentence(said);
  if (said.message || said.what) return sentence([said.message ?? said.what, said.remedy].filter(Boolean).join("; "));
  if (response.status === 413) return "The image is too large for this server.";
  if (response.status === 503) return "The server is too busy. Try again later.";
  return `The server could not do this (status ${response.status}).`;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

const pause = (milliseconds, signal) => new Promise((done, fail) => {
  const timer = setTimeout(done, milliseconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); fail(signal.reason); }, { once: true });
});

function notice(text, isError = false) {
  const line = $("#notice");
  line.hidden = !text;
  line.classList.toggle("error", isError);
  line.textContent = text;
}

/** Run what may fail and show why it did; what was replaced by something newer says nothing. */
async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (!isAbort(error)) {
      notice(error instanceof Problem ? error.message : "The page cannot go on; reload it.", true);
      if (!(error instanceof Problem)) console.error(error);
    }
    return undefined;
  }
}

// ---------------------------------------------------------------- drawing

const COLOURS = (() => {
  const stops = VIRIDIS.map((hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16)));
  return Array.from({ length: 256 }, (_, value) => {
    const at = (value / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    return stops[low].map((part, channel) => Math.round(part + (at - low) * (stops[low + 1][channel] - part)));
  });
})();

/** A canvas divided into patches: draws a picture and a map over it, and tells which patch is pointed at, or held. */
class PatchCanvas {
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed, grid: null, hovered: null, held: null });
    canvas.addEventListener("pointermove", (event) => this.grid && this.point(this.patchAt(event)));
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.point(null));
    canvas.addEventListener("click", (event) => this.grid && this.hold(this.patchAt(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.point(null));
  }

  /** The patch that is asked about: the one pointed at, else the one held. */
  get patch() { return this.hovered ?? this.held; }

  /** Take a grid of `rows` × `columns` cells on an image of `size` = [width, height]; `cell` is [height, width] in its pixels. */
  fit(size, grid) {
    const [width, height] = size;
    const scale = Math.max(1, Math.ceil(720 / Math.max(width, height)));
    Object.assign(this, { size, grid, scale });
    Object.assign(this.canvas, { width: width * scale, height: height * scale });
    if (this.patch !== null && (!grid || this.patch >= grid.rows * grid.columns)) this.hovered = this.held = null;
    this.canvas.classList.toggle("live", Boolean(grid));
  }

  patchAt(event) {
    const bounds = this.canvas.getBoundingClientRect();
    return this.patchOf((event.clientX - bounds.left) / bounds.width, (event.clientY - bounds.top) / bounds.height);
  }

  /** Return the patch at a point given as fractions of the width and height. */
  patchOf(across, down) {
    const { rows, columns, cell } = this.grid;
    const inside = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value)));
    return inside((down * this.size[1]) / cell[0], rows) * columns + inside((across * this.size[0]) / cell[1], columns);
  }

  /** Return the middle of a patch as fractions of the width and height. */
  middleOf(patch) {
    const { columns, cell } = this.grid;
    return [(((patch % columns) + 0.5) * cell[1]) / this.size[0], ((Math.floor(patch / columns) + 0.5) * cell[0]) / this.size[1]];
  }

  point(patch) {
    if (patch === this.hovered) return;
    this.hovered = patch;
    this.changed(this);
  }

  hold(patch) {
    this.held = patch === this.held ? null : patch;
    this.hovered = null;
    this.changed(this);
  }

  key(event) {
    if (!this.grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const { rows, columns } = this.grid;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in moves) {
      const [down, right] = moves[event.key];
      const start = this.patch ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
      const row = Math.max(0, Math.min(rows - 1, Math.floor(start / columns) + (this.patch === null ? 0 : down)));
      const column = Math.max(0, Math.min(columns - 1, (start % columns) + (this.patch === null ? 0 : right)));
      this.point(row * columns + column);
    } else if (event.key === "Enter" || event.key === " ") {
      if (this.patch !== null) this.hold(this.patch);
    } else if (event.key === "Escape") {
      this.hovered = this.held = null;
      this.changed(this);
    } else return;
    event.preventDefault();
  }

  /** Draw `picture` (or nothing), over it `heat` (0–255 a patch, or nothing), and a frame around the patch that is asked about. */
  draw(picture, heat, opacity) {
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.clearRect(0, 0, width, height);
    context.globalAlpha = 1;
    context.imageSmoothingEnabled = this.size[0] > 128;
    if (picture) context.drawImage(picture, 0, 0, width, height);
    if (heat) {
      context.globalCompositeOperation = "saturation"; // a grey picture leaves the colours to the map
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, height);
      context.globalCompositeOperation = "source-over";
      context.globalAlpha = opacity;
      for (let patch = 0; patch < heat.length; patch++) {
        context.fillStyle = `rgb(${COLOURS[heat[patch]].join()})`;
        context.fillRect(...this.box(patch));
      }
      context.globalAlpha = 1;
    }
    if (this.patch !== null) this.frame(context, this.patch, this.patch === this.held ? [] : [10, 6]);
  }

  box(patch) {
    const { columns, cell } = this.grid;
    const [height, width] = cell.map((side) => side * this.scale);
    return [(patch % columns) * width, Math.floor(patch / columns) * height, width, height];
  }

  frame(context, patch, dashes) {
    const [left, top, width, height] = this.box(patch);
    for (const [colour, line, pattern] of [["#000", 7, []], ["#fff", 3.5, dashes]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.setLineDash(pattern);
      context.strokeRect(left + 2, top + 2, width - 4, height - 4);
    }
  }
}

// ---------------------------------------------------------------- one model

/** A model and what it makes of the image. */
class Panel {
  constructor(name) {
    this.root = $("#panel").content.firstElementChild.cloneNode(true);
    this.patches = new PatchCanvas(this.$(".picture"), () => { this.draw(); link(this); });
    this.positions = new PatchCanvas(this.$(".positions"), () => this.drawPositions());
    this.$(".scale").style.backgroundImage = `linear-gradient(90deg, ${VIRIDIS.join()})`;
    for (const model of state.models) this.$(".model").add(new Option(model.name, model.name));
    this.$(".model").addEventListener("change", (event) => { this.choose(event.target.value); offerComparison(); this.look(); });
    this.$(".layer").addEventListener("input", () => this.attend());
    this.$(".head").addEventListener("input", () => this.attend());
    this.$(".learned").addEventListener("toggle", () => this.showLearned());
    this.$(".depth").addEventListener("toggle", () => this.showDepth());
    this.choose(name);
  }

  $(selector) { return $(selector, this.root); }

  choose(name) {
    this.model = state.models.find((model) => model.name === name);
    this.answer = this.learned = null;
    this.$(".layers").replaceChildren();
    this.$(".model").value = name;
    this.$(".title").textContent = this.$(".title").title = `${this.model.title}, ${this.model.classes} classes`;
    this.$(".preparation").replaceChildren(...this.model.preparation.map((text) => element("li", "", text)));
    this.$(".separate").hidden = this.model.probabilities === "softmax";
    this.$(".cannot").hidden = !this.model.cannot.attention;
    this.$(".cannot").textContent = this.model.cannot.attention ?? "";
    this.$(".readout").hidden = Boolean(this.model.cannot.attention);
    const attention = this.model.attention;
    if (attention) {
      Object.assign(this.$(".layer"), { max: attention.layers, value: attention.layers });
      Object.assign(this.$(".head"), { max: attention.heads, value: 0 });
    }
    this.showLearned();
  }

  get layer() { return Number(this.$(".layer").value) - 1; }
  get head() { return Number(this.$(".head").value) - 1; } // 0 on the slider is the mean, which is -1 here

  /** Replace what is under way by `work`, which gets a signal that ends it. */
  async alone(kind, work) {
    this[kind]?.abort();
    const control = (this[kind] = new AbortController());
    try {
      return await work(control.signal);
    } finally {
      if (this[kind] === control) this.busy("");
    }
  }

  busy(text) {
    this.$(".busy").hidden = !text;
    this.$(".busy").textContent = text;
  }

  url(what, parameters = {}) {
    return `page/${what}?${new URLSearchParams({ model: this.model.name, ...parameters })}`;
  }

  /** Ask for the answer to the image. */
  look() {
    if (!state.image) return undefined;
    return attempt(() => this.alone("looking", async (signal) => {
      this.attending?.abort();
      this.busy("Looking…");
      const image = state.image;
      const response = await ask(this.url("look"), { body: image.blob, signal, say: (text) => this.busy(text) });
      const answer = await response.json();
      const prepared = new Blob([bytesOf(answer.prepared)], { type: "image/png" });
      const picture = await createImageBitmap(prepared);
      signal.throwIfAborted();
      this.answer = { ...answer, image, prepared, picture, layers: new Map(), classes: new Map(), heat: answer.rollout && bytesOf(answer.rollout) };
      this.show();
    }));
  }

  show() {
    const { top, picture, image } = this.answer;
    this.$(".body").hidden = false;
    this.patches.fit([picture.width, picture.height], this.model.attention);
    this.$(".top").replaceChildren(...top.map((one) => this.classLine(one)));
    this.pick(top[0].number);
    this.$(".prepared").src = image.address(this.answer.prepared);
    this.$(".prepared").classList.toggle("small", picture.width <= 128);
    this.showGiven(image);
    this.showDepth();
    this.attend();
  }

  /** Return the line of a class in the answer: a button where the patches that spoke for it can be shown. */
  classLine(one) {
    if (!this.model.attention) return element("li", "", ...bar(one));
    const button = element("button", "", ...bar(one));
    button.type = "button";
    button.dataset.number = one.number;
    button.addEventListener("click", () => { this.pick(one.number); setView("relevance"); });
    return element("li", "", button);
  }

  pick(number) {
    this.number = number;
    this.markClass();
  }

  markClass() {
    const shown = state.view === "relevance";
    this.$(".pick").hidden = !shown || !this.model.attention;
    for (const button of this.root.querySelectorAll("[data-number]")) {
      button.setAttribute("aria-pressed", String(shown && Number(button.dataset.number) === this.number));
    }
  }

  /** Show the image as it was given where the browser can, and on it the part that the model sees. */
  showGiven(image) {
    const given = this.$(".original");
    given.closest("figure").hidden = !image.size;
    if (!image.size) return;
    given.src = image.url;
    given.classList.toggle("small", image.size[0] <= 128);
    const { left, top, width, height } = seenPart(this.model, image.size);
    const outline = this.$(".crop i");
    outline.hidden = this.model.fraction === null;
    Object.assign(outline.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
  }

  /** Fetch what the chosen overlay needs unless it is here, and draw. */
  attend() {
    const attention = this.model.attention;
    this.$(".where").hidden = state.view !== "attention" || !attention;
    if (attention) {
      this.$(".layer-value").textContent = `${this.layer + 1} of ${attention.layers}`;
      this.$(".head-value").textContent = this.head === MEAN ? `mean of ${attention.heads}` : `${this.head + 1} of ${attention.heads}`;
      this.$(".layer").setAttribute("aria-valuetext", this.$(".layer-value").textContent);
      this.$(".head").setAttribute("aria-valuetext", this.$(".head-value").textContent);
    }
    this.markClass();
    if (!this.answer) return undefined;
    this.draw();
    this.attending?.abort();
    this.busy("");
    const fetchers = { attention: (signal) => this.fetchMaps(signal), relevance: (signal) => this.fetchRelevance(signal) };
    if (!attention || !(state.view in fetchers) || this.overlay().heat) return undefined;
    return attempt(() => this.alone("attending", async (signal) => {
      await pause(60, signal); // a slider that is still moving asks once
      this.busy("Looking…");
      await fetchers[state.view](signal);
      this.draw();
    }));
  }

  async fetchMaps(signal) {
    const [layer, head, answer] = [this.layer, this.head, this.answer];
    const response = await this.askAgain("attention", { layer, head }, signal);
    keep(answer.layers, layer, readMaps(response.headers.get("Vitlab-Heads"), await response.arrayBuffer(), this.model.attention));
  }

  async fetchRelevance(signal) {
    const [number, answer] = [this.number, this.answer];
    const response = await this.askAgain("relevance", { class: number }, signal);
    answer.classes.set(number, new Uint8Array(await response.arrayBuffer()));
  }

  /** Ask about the image as the model saw it: a server keeps none. */
  askAgain(what, parameters, signal) {
    return ask(this.url(what, parameters), { body: this.answer.prepared, signal, say: (text) => this.busy(text) });
  }

  /** Return the maps of the chosen layer and head where they are here. */
  maps() { return this.answer?.layers.get(this.layer)?.get(this.head); }

  /** Return what is to be drawn over the image: the map, what its peak stands for, and a sentence about it. */
  overlay() {
    const { attention } = this.model;
    const { patch } = this.patches;
    if (!attention || state.view === "picture") return { text: "" };
    if (state.view === "rollout") {
      const heat = this.answer.heat;
      const at = patch === null ? "" : ` ${sentence(place(patch, attention.columns))} ${percent(heat[patch] / 255)} of the peak.`;
      return { heat, peak: "most", text: `How much each patch reaches ${attention.pooled} through all layers.${at}` };
    }
    if (state.view === "relevance") {
      const heat = this.answer.classes.get(this.number);
      const { name } = this.answer.top.find((one) => one.number === this.number);
      const at = patch === null || !heat ? "" : ` ${sentence(place(patch, attention.columns))} ${percent(heat[patch] / 255)} of the peak.`;
      return { heat, peak: "most", text: heat ? `How much each patch spoke for “${name}”: attention × gradient through all layers.${at}` : "" };
    }
    const maps = this.maps();
    const query = patch === null ? 0 : patch + 1;
    const who = patch === null ? sentence(attention.pooled).slice(0, -1) : `The patch in ${place(patch, attention.columns)}`;
    if (!maps) return { text: "" };
    const spare = attention.prefix ? `, and ${percent(maps.prefix[query])} to ${attention.prefix > 1 ? "class token and registers" : "the class token"}` : "";
    const verb = query ? "attends" : attention.pooled.startsWith("all") ? "attend" : "attends";
    return {
      heat: maps.rows(query), peak: percent(maps.peaks[query]),
      text: `${who} ${verb} with at most ${percent(maps.peaks[query])} to one patch${spare}.`,
    };
  }

  draw() {
    if (!this.answer) return;
    const { heat, peak, text } = this.overlay();
    this.patches.draw(this.answer.picture, heat, state.opacity);
    this.$(".legend").hidden = !heat;
    this.$(".peak").textContent = peak ?? "";
    this.$(".readout").textContent = text;
    const keys = this.model.attention ? " Arrow keys move over the patches, Enter holds one, Escape lets go." : "";
    this.$(".picture").setAttribute("aria-label", `${state.image?.name ?? "The image"} as ${this.model.name} sees it. ${text}${keys}`);
  }

  /** Fetch what the head would answer after each layer, while that is looked at. */
  showDepth() {
    const { answer, model } = this;
    if (!this.$(".depth").open || !answer || answer.depth) return;
    answer.depth = true;
    this.$(".layers").replaceChildren();
    explain(this.$(".depth-why"), model.cannot.lens, async () => {
      const { layers, settled } = await (await this.askAgain("depth", {})).json();
      if (this.answer !== answer) return;
      this.$(".layers").replaceChildren(...layers.map((one, layer) => {
        const line = element("li", layer >= settled ? "settled" : "", ...bar(one));
        line.prepend(element("span", "layer-number", layer === 0 ? "before" : `layer ${layer}`));
        return line;
      }));
    });
  }

  /** Fetch positions and filters when they are looked at for the first time. */
  showLearned() {
    if (!this.$(".learned").open || this.learned === this.model) return;
    const model = (this.learned = this.model);
    this.$(".positions").hidden = this.$(".filters").hidden = true;
    this.$(".positions-readout").textContent = "";
    explain(this.$(".positions-why"), model.cannot.positions, async () => {
      const response = await ask(this.url("positions"));
      const [rows, columns] = response.headers.get("Vitlab-Grid").split(",").map(Number);
      const maps = new Uint8Array(await response.arrayBuffer());
      if (this.learned !== model) return;
      this.similarity = maps;
      this.positions.fit([columns, rows], { rows, columns, cell: [1, 1] });
      this.$(".positions").hidden = false;
      this.drawPositions();
    });
    explain(this.$(".filters-why"), model.cannot.filters, async () => {
      await ask(this.url("filters"));
      this.$(".filters").src = this.url("filters");
      this.$(".filters").hidden = false;
    });
  }

  drawPositions() {
    const { rows, columns } = this.positions.grid;
    const cells = rows * columns;
    const patch = this.positions.patch ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    this.positions.draw(null, this.similarity.subarray(patch * cells, (patch + 1) * cells), 1);
    const text = `Shown is the similarity to ${place(patch, columns)}: violet is −1, yellow is 1.`;
    this.$(".positions-readout").textContent = text;
    this.$(".positions").setAttribute("aria-label", `Similarity of positions. ${text} Arrow keys move.`);
  }
}

/** Return the parts of a line about a class. */
function bar({ name, probability }) {
  const drawn = element("span", "bar", element("i", ""));
  drawn.setAttribute("aria-hidden", "true");
  drawn.firstChild.style.setProperty("--share", `${100 * probability}%`);
  return [element("span", "name", name), element("span", "share", percent(probability)), drawn];
}

/** Fetch what is shown below a line, which says why where that is not possible. */
async function explain(line, cannot, work) {
  line.dataset.usual ??= line.textContent;
  line.textContent = cannot ?? line.dataset.usual;
  try {
    if (!cannot) await work();
  } catch (error) {
    line.textContent = error.message;
  }
}

/** One head of a layer: `rows(query)` is the map of a query, the first of which is what is pooled. */
function readMaps(heads, buffer, { rows, columns }) {
  const cells = rows * columns;
  const queries = cells + 1;
  const names = heads.split(",").map(Number);
  const floats = new Float32Array(buffer, 0, 2 * names.length * queries);
  const maps = new Uint8Array(buffer, floats.byteLength);
  return new Map(names.map((name, slice) => [name, {
    peaks: floats.subarray(slice * queries, (slice + 1) * queries),
    prefix: floats.subarray((names.length + slice) * queries, (names.length + slice + 1) * queries),
    rows: (query) => maps.subarray((slice * queries + query) * cells, (slice * queries + query + 1) * cells),
  }]));
}

function keep(layers, layer, heads) {
  const known = layers.get(layer) ?? new Map();
  layers.delete(layer);
  layers.set(layer, new Map([...known, ...heads]));
  if (layers.size > CACHED_LAYERS) layers.delete(layers.keys().next().value);
}

/** Return which part of an image of [width, height] pixels a model sees, as fractions. */
function seenPart(model, [width, height]) {
  if (model.fraction === null) return { left: 0, top: 0, width: 1, height: 1 };
  const scale = Math.min((width * model.fraction) / model.width, (height * model.fraction) / model.height);
  const part = { width: (scale * model.width) / width, height: (scale * model.height) / height };
  return { left: (1 - part.width) / 2, top: (1 - part.height) / 2, ...part };
}

/** Point in every other panel at the same place of the image. */
function link(source) {
  const size = state.image?.size ?? [1, 1];
  for (const panel of state.panels) {
    if (panel === source || !panel.answer || !panel.patches.grid || !source.patches.grid) continue;
    const [from, to] = [seenPart(source.model, size), seenPart(panel.model, size)];
    const move = (patch) => {
      if (patch === null) return null;
      const [across, down] = source.patches.middleOf(patch);
      return panel.patches.patchOf((from.left + across * from.width - to.left) / to.width, (from.top + down * from.height - to.top) / to.height);
    };
    Object.assign(panel.patches, { hovered: move(source.patches.hovered), held: move(source.patches.held) });
    panel.draw();
  }
}

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}

// ---------------------------------------------------------------- the image

/** Take an image: ask every model about it. */
async function take(blob, name) {
  const limit = Math.min(...state.panels.map((panel) => panel.model.max_bytes));
  if (blob.size === 0) return notice(`${name} is empty.`, true);
  if (blob.size > limit) return notice(`${name} is too large: ${megabytes(blob.size)}, and this server takes ${megabytes(limit)}. Shrink it.`, true);
  notice("");
  state.image?.forget();
  state.image = await given(blob, name);
  await Promise.all(state.panels.map((panel) => panel.look()));
  return undefined;
}

const megabytes = (count) => `${(count / 2 ** 20).toFixed(1)} MB`;

/** Return the image with addresses by which the browser can show it; `size` is null where it cannot. */
async function given(blob, name) {
  const urls = [URL.createObjectURL(blob)];
  const probe = new Image();
  probe.src = urls[0];
  const shown = await probe.decode().then(() => true, () => false);
  const address = (made) => urls[urls.push(URL.createObjectURL(made)) - 1];
  const forget = () => urls.forEach((url) => URL.revokeObjectURL(url));
  return { blob, name, url: urls[0], size: shown ? [probe.naturalWidth, probe.naturalHeight] : null, address, forget };
}

function takeFile(file) {
  for (const other of document.querySelectorAll("#examples button")) other.setAttribute("aria-pressed", "false");
  if (file) attempt(() => take(file, file.name || "The image"));
  else notice("That was no image file.", true);
}

async function offerExamples() {
  const examples = await (await ask("page/examples")).json();
  $("#examples").replaceChildren(...examples.map(({ label }, index) => {
    const button = document.createElement("button");
    const picture = new Image();
    Object.assign(picture, { src: `page/examples/${index}`, alt: "", decoding: "async" });
    picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth <= 64));
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Example ${index + 1}${label ? `: ${label}` : ""}`);
    button.append(picture, ...(label ? [element("span", "name", label)] : []));
    button.addEventListener("click", () => attempt(async () => {
      for (const other of document.querySelectorAll("#examples button")) other.setAttribute("aria-pressed", String(other === button));
      await take(await (await ask(`page/examples/${index}`)).blob(), label ? `Example “${label}”` : `Example ${index + 1}`);
    }));
    return element("li", "", button);
  }));
}

// ---------------------------------------------------------------- the controls

function offerComparison() {
  const others = state.models.filter((model) => model !== state.panels[0].model);
  const chosen = state.panels[1]?.model.name ?? "";
  $("#compare-field").hidden = state.models.length < 2;
  $("#compare").replaceChildren(new Option("nothing", ""), ...others.map((model) => new Option(model.name, model.name)));
  if (chosen && !others.some((model) => model.name === chosen)) return compareWith("");
  $("#compare").value = chosen;
  const attends = state.panels.some((panel) => panel.model.attention);
  for (const radio of document.querySelectorAll("input[name=view]")) radio.disabled = radio.value !== "picture" && !attends;
  return undefined;
}

function compareWith(name) {
  state.panels.splice(1).forEach((panel) => { panel.looking?.abort(); panel.attending?.abort(); panel.root.remove(); });
  if (name) {
    const panel = new Panel(name);
    state.panels.push(panel);
    $("#panels").append(panel.root);
    panel.look();
  }
  $("#panels").classList.toggle("two", state.panels.length > 1);
  offerComparison();
}

function setView(view) {
  state.view = view;
  $(`input[name=view][value=${view}]`).checked = true;
  state.panels.forEach((panel) => panel.attend());
}

function listen() {
  const drop = $("#drop");
  for (const [button, input] of [["#choose", "#file"], ["#photo", "#camera"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", (event) => { if (event.target.files.length) takeFile(event.target.files[0]); event.target.value = ""; });
  }
  const dragged = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => { if (dragged(event)) { event.preventDefault(); drop.classList.add("over"); } });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    takeFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) takeFile(event.clipboardData.files[0]); });
  $("#opacity").addEventListener("input", (event) => {
    state.opacity = event.target.value / 100;
    $("#opacity-value").textContent = `${event.target.value} %`;
    state.panels.forEach((panel) => panel.draw());
  });
  for (const radio of document.querySelectorAll("input[name=view]")) {
    radio.addEventListener("change", () => setView(radio.value));
  }
  $("#compare").addEventListener("change", (event) => compareWith(event.target.value));
}

attempt(async () => {
  state.models = await (await ask("page/models", { say: notice })).json();
  notice("");
  state.panels = [new Panel(state.models[0].name)];
  $("#panels").append(state.panels[0].root);
  state.view = $("input[name=view]:checked").value; // which a reload may have kept
  listen();
  offerComparison();
  await offerExamples();
  $("#examples button")?.click(); // a page with something on it explains itself
});
