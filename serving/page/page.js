import { magma } from "./colormap.js";

const $ = (id) => document.getElementById(id);
// Below this change of the probability a second does not speak for anything.
const LEAST_WEIGHT = 0.005;
const MAX_ATTEMPTS = 4;

let limits = { max_upload_mb: Infinity }; // what /v1/model says
let shown = null; // the prediction on the page
let asking = new AbortController();
let last = null; // the file that was asked about

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const css = (share) => `${100 * share}%`;
const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const duration = (seconds) =>
  `${seconds % 60 ? clock(seconds) : seconds / 60} minutes`;
const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Both places are always there, empty or not, so that a screen reader hears what comes into them. */
function say(status, { error = "", busy = false } = {}) {
  $("status").textContent = status;
  $("status").classList.toggle("busy", busy);
  $("error").textContent = error;
}

// ---- ask

async function take(file) {
  last = file;
  asking.abort();
  asking = new AbortController();
  $("result").hidden = true;
  if ($("player").src) URL.revokeObjectURL($("player").src);
  if (file.size > limits.max_upload_mb * 1e6) {
    return say("", { error: `This file is too large; up to ${limits.max_upload_mb} MB.` });
  }
  try {
    const prediction = await ask(file, asking.signal);
    const { label, probabilities } = prediction;
    say(`The answer for ${file.name}: ${label}, ${percent(probabilities[label])}.`);
    $("player").src = URL.createObjectURL(file);
    show(file.name, prediction);
    // On to the answer, unless whoever waited has gone elsewhere.
    if ([document.body, $("file")].includes(document.activeElement)) $("song").focus();
  } catch (error) {
    if (error.name !== "AbortError") say("", { error: error.message });
  }
}

async function ask(file, signal) {
  for (let attempt = 1; ; attempt++) {
    say(`Listening to ${file.name} …`, { busy: true });
    const body = new FormData();
    body.append("file", file);
    for (const field of $("fields").querySelectorAll("input")) {
      if (field.value.trim()) body.append(field.name, field.value.trim());
    }
    let response;
    try {
      response = await fetch("v1/predict?explain=true", { method: "POST", body, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server can't be reached. Is it still running?");
    }
    if (response.ok) return response.json();
    const wait = Number(response.headers.get("Retry-After"));
    if (wait && attempt < MAX_ATTEMPTS) {
      say(`The server is busy; trying again in ${wait} s …`, { busy: true });
      await sleep(wait);
      if (signal.aborted) throw new DOMException("", "AbortError");
      continue;
    }
    const answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `The server answers with ${response.status}.`);
  }
}

// ---- show

function show(name, prediction) {
  shown = prediction;
  $("song").textContent = name;
  $("label").textContent = prediction.label;
  $("bars").replaceChildren(
    ...Object.entries(prediction.probabilities).flatMap(([label, value], place) => {
      const bar = element("div", "", "bar");
      const part = element("i", "", color(place));
      part.style.width = css(value);
      bar.append(part);
      return [element("dt", label), bar, element("dd", percent(value))];
    }),
  );
  $("result").hidden = false;
  $("again").hidden = false;
  tellWhatAdds();
  drawPicture();
  drawRuler();
  drawWeights();
  tellSeconds();
  drawWindows();
}

/** The answer of the sound alone, and by how much each thing that was told moves the answer. */
function tellWhatAdds() {
  const { label, probabilities, sound_alone, inputs } = shown;
  $("added").hidden = !inputs;
  if (!inputs) return;
  $("alone").textContent =
    `With all of it, “${label}” has ${percent(probabilities[label])}; with the sound alone ` +
    `${percent(sound_alone[label])}. Without one of them it would fall (+) or rise (−) by:`;
  $("adds").replaceChildren(
    ...inputs.flatMap(({ name, value, weight }) => {
      const bar = element("div", "", "bar");
      const part = element("i", "", color(0));
      part.style.width = css(Math.min(1, Math.abs(weight)));
      bar.append(part);
      const sign = weight < 0 ? "−" : "+";
      return [
        element("dt", `${name}: ${value}`),
        bar,
        element("dd", `${sign}${percent(Math.abs(weight))}`),
      ];
    }),
  );
}

/** A field for each thing that the model takes; the values that it knows are suggested. */
function makeFields(inputs) {
  $("told").hidden = !inputs.length;
  $("fields").replaceChildren(
    ...inputs.map(({ name, kind, values }) => {
      const label = element("label", name.replaceAll("_", " "));
      const field = element("input");
      field.name = name;
      field.autocomplete = "off";
      if (kind === "number") field.placeholder = "a number, or a date such as 2015-03-31";
      label.append(field);
      if (values.length) {
        const list = element("datalist");
        list.id = `known-${name}`;
        list.append(...values.map((value) => Object.assign(element("option"), { value })));
        field.setAttribute("list", list.id);
        label.append(list);
      }
      return label;
    }),
  );
}

const color = (place) => `class-${place % 3}`;
const span = () => {
  const { start } = shown.windows[shown.middle];
  return { start, seconds: shown.explanation.at(-1).end - start };
};

/** The part of the picture that holds sound; the rest of a short song's is padding. */
function columns() {
  const { start, end } = shown.windows[shown.middle];
  const full = limits.window_seconds ?? end - start;
  return Math.max(1, Math.round((shown.spectrogram.width * (end - start)) / full));
}

function drawPicture() {
  const { height, width, levels } = shown.spectrogram;
  const bytes = Uint8Array.from(atob(levels), (c) => c.charCodeAt(0));
  const pixels = new ImageData(width, height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      // Row 0 is the lowest band, and stands at the bottom.
      const [red, green, blue] = magma(bytes[(height - 1 - row) * width + column]);
      pixels.data.set([red, green, blue, 255], 4 * (row * width + column));
    }
  }
  const picture = new OffscreenCanvas(width, height);
  picture.getContext("2d").putImageData(pixels, 0, 0);
  const canvas = $("canvas");
  canvas.width = 6 * width;
  canvas.height = 6 * height;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, columns(), height, 0, 0, canvas.width, canvas.height);
  if ($("highlight").checked) drawHighlight(context, canvas);
}

/** What does not speak for the answer is dimmed, what does is framed. */
function drawHighlight(context, canvas) {
  const { start, seconds } = span();
  const x = (time) => (canvas.width * (time - start)) / seconds;
  const strong = spans();
  if (!strong.length) return;
  const most = Math.max(...shown.explanation.map((part) => part.weight));
  for (const part of shown.explanation) {
    const share = Math.max(0, part.weight) / most;
    context.fillStyle = `rgb(0 0 0 / ${0.65 * (1 - share)})`;
    context.fillRect(x(part.start), 0, x(part.end) - x(part.start) + 0.5, canvas.height);
  }
  context.strokeStyle = "#fff";
  context.lineWidth = 4;
  for (const { from, to } of strong) {
    context.strokeRect(x(from) + 2, 2, x(to) - x(from) - 4, canvas.height - 4);
  }
}

/** Runs of the seconds that speak most for the answer. */
function spans() {
  const most = Math.max(...shown.explanation.map((part) => part.weight));
  if (most < LEAST_WEIGHT) return [];
  const runs = [];
  for (const part of shown.explanation.filter((part) => part.weight >= most / 2)) {
    const last = runs.at(-1);
    if (last && Math.abs(last.to - part.start) < 0.01) {
      last.to = part.end;
      last.weight = Math.max(last.weight, part.weight);
    } else {
      runs.push({ from: part.start, to: part.end, weight: part.weight });
    }
  }
  return runs;
}

function drawRuler() {
  const { start, seconds } = span();
  const step = seconds > 12 ? 5 : 1;
  const marks = [start];
  for (let time = Math.ceil((start + step / 2) / step) * step; time < start + seconds - step / 2;
    time += step) marks.push(time);
  marks.push(start + seconds);
  $("ruler").replaceChildren(
    ...marks.map((time) => {
      const mark = element("span", clock(time + 0.001));
      mark.style.left = css((time - start) / seconds);
      return mark;
    }),
  );
}

function drawWeights() {
  const { start, seconds } = span();
  const canvas = $("weights");
  canvas.width = 954;
  canvas.height = 96;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const largest = Math.max(
    LEAST_WEIGHT,
    ...shown.explanation.map((part) => Math.abs(part.weight)),
  );
  const middle = canvas.height / 2;
  for (const part of shown.explanation) {
    const x = (canvas.width * (part.start - start)) / seconds;
    const width = (canvas.width * (part.end - part.start)) / seconds;
    const height = (middle * part.weight) / largest;
    context.fillStyle = style.getPropertyValue(part.weight > 0 ? "--accent" : "--quiet");
    context.fillRect(x + 1, middle - Math.max(0, height), width - 2, Math.abs(height));
  }
  context.fillStyle = style.getPropertyValue("--line");
  context.fillRect(0, middle, canvas.width, 1);
}

function tellSeconds() {
  const found = spans();
  const how =
    "Each second is covered in turn, with its neighbours (occlusion); the bars show how far the " +
    `probability of “${shown.label}” falls by that (up) or rises (down). `;
  $("why").textContent =
    how +
    (found.length
      ? "These speak most for it:"
      : `No second stands out: none changes it by ${percent(LEAST_WEIGHT)}.`);
  $("seconds").replaceChildren(
    ...found.map(({ from, to, weight }) => {
      const button = element("button", `▶ ${clock(from)}–${clock(to)} (${percent(weight)})`);
      button.type = "button";
      button.addEventListener("click", () => playFrom(from));
      const item = element("li");
      item.append(button);
      return item;
    }),
  );
}

function drawWindows() {
  $("along").hidden = shown.windows.length < 2;
  $("windows").setAttribute(
    "aria-label",
    shown.windows.map(({ start, label, probabilities }) =>
      `${clock(start)}: ${label} ${percent(probabilities[label])}`).join(", "),
  );
  $("legend").replaceChildren(
    ...Object.keys(shown.probabilities).map((label, place) => {
      const item = element("li", label);
      item.prepend(element("i", "", color(place)));
      return item;
    }),
  );
  $("windows").replaceChildren(
    ...shown.windows.map(({ start, end, probabilities }, place) => {
      const stack = element("div", "", place === shown.middle ? "stack middle" : "stack");
      const parts = Object.entries(probabilities).map(([label, value], order) => {
        const part = element("div", "", color(order));
        part.style.flexGrow = value;
        part.title = `${clock(start)}–${clock(end)}: ${label} ${percent(value)}`;
        return part;
      });
      stack.append(...parts.reverse());
      const column = element("div");
      column.append(element("small", clock(start)), stack);
      return column;
    }),
  );
}

// ---- listen

function playFrom(time) {
  $("player").currentTime = time;
  $("player").play().catch(() => {});
}

function moveCursor() {
  if (shown) {
    const { start, seconds } = span();
    const share = ($("player").currentTime - start) / seconds;
    $("cursor").hidden = share < 0 || share > 1 || $("player").currentTime === 0;
    $("cursor").style.left = css(share);
  }
  if (!$("player").paused) requestAnimationFrame(moveCursor);
}
for (const event of ["play", "seeked", "timeupdate"]) {
  $("player").addEventListener(event, moveCursor);
}
$("picture").addEventListener("click", (event) => {
  const box = $("picture").getBoundingClientRect();
  const { start, seconds } = span();
  playFrom(start + (seconds * (event.clientX - box.left)) / box.width);
});

// ---- choose

$("file").addEventListener("change", () => {
  if ($("file").files.length) take($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
for (const event of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(event, (drag) => {
    drag.preventDefault();
    $("drop").classList.toggle("over", event === "dragover");
    if (event === "drop" && drag.dataTransfer.files.length) take(drag.dataTransfer.files[0]);
  });
}
$("again").addEventListener("click", () => last && take(last));
$("form").addEventListener("submit", (event) => event.preventDefault());
$("highlight").addEventListener("change", () => shown && drawPicture());

const response = await fetch("v1/model").catch(() => null);
if (response?.ok) {
  const model = await response.json();
  limits = model;
  makeFields(model.inputs);
  $("limits").textContent =
    `mp3, wav, flac or ogg, up to ${model.max_upload_mb} MB and ${duration(model.max_seconds)}`;
  const window = `${Math.round(model.window_seconds)} seconds`;
  $("window").textContent = `, ${window} long`;
  const { evaluation } = model;
  const names = model.class_names;
  const edges = model.thresholds.map((edge) => edge.toLocaleString("en"));
  const meaning = names.map((name, place) =>
    place < edges.length ? `${name}: below ${edges[place]}` : `${name}: from ${edges.at(-1)} on`);
  $("model").textContent =
    `It hears the middle ${window}, and its answers mean, in listens, ${meaning.join(", ")}. ` +
    (evaluation
      ? `Model version ${model.version} is right about ${percent(evaluation.accuracy)} of songs ` +
        "that it was not trained on."
      : `Model version ${model.version}.`);
}
