"use strict";
// One case at a time: upload, wait, show. Pictures come as sheets of all views, grey PNGs; the mask
// is drawn over the view in the browser, so that turning and fading ask the server for nothing.

const $ = (id) => document.getElementById(id);
const MARK = [255, 102, 0];
let key = null; // of the case that is shown or worked on
let info = null; // what the server says of it
let sheet = null; // views, bright is uptake
let overlay = null; // mask of the views
let stage = null; // which view is in front
let asked = 0; // number of the latest request for another threshold
let run = 0; // number of the latest file; what is known of an earlier one comes too late
let sending = null; // stops the upload
let recipe = null; // the slider's text at the model's own threshold

function show(id, visible) {
  $(id).hidden = !visible;
}

function say(text) {
  $("message").textContent = text;
  show("message", Boolean(text));
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!answer.ok) {
    let reason = `The server says ${answer.status}.`;
    try {
      reason = (await answer.json()).detail || reason;
    } catch {
      // It said it otherwise.
    }
    throw new Error(reason);
  }
  return answer;
}

// File name, and what the user says of a zip with DICOM.
function query(file) {
  const said = new URLSearchParams({ name: file.name });
  for (const id of ["series", "weight_kg", "dose_mbq", "injection_time"]) {
    const text = $(id).value.trim();
    if (text) said.set(id, text);
  }
  return said;
}

async function start(file) {
  reset();
  const own = run;
  sending = new AbortController();
  show("drop", false);
  show("working", true);
  $("step").textContent = `Sending ${file.name}`;
  $("progress").removeAttribute("value");
  try {
    const answer = await ask(`cases?${query(file)}`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
      signal: sending.signal,
    });
    const found = (await answer.json()).key;
    if (own !== run) return forget(found);
    key = found;
    await wait(own);
  } catch (error) {
    if (own !== run) return;
    say(error.message);
    show("drop", true);
  } finally {
    if (own === run) show("working", false);
  }
}

function forget(found) {
  fetch(`cases/${found}`, { method: "DELETE" }).catch(() => {});
}

async function wait(own) {
  while (own === run) {
    const found = await (await ask(`cases/${key}`)).json();
    if (own !== run) return;
    info = found;
    if (info.state === "failed") throw new Error(info.reason);
    if (info.state === "done") return open(own);
    $("step").textContent = info.state === "waiting" ? "Waiting" : `Working on ${info.name}`;
    if (info.progress > 0) $("progress").value = info.progress;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function picture(path) {
  const blob = await (await ask(path)).blob();
  return createImageBitmap(blob);
}

// Whether the views are spread over half a turn, so that the other half is the same mirrored.
function isHalfTurn() {
  const angles = info ? info.angles_deg : [0];
  const step = 180 / angles.length;
  return angles.every((angle, k) => Math.abs(angle - angles[0] - k * step) < step / 2);
}

async function open(own) {
  const picked = await picture(`cases/${key}/views.png`);
  if (own !== run) return;
  sheet = picked;
  stage.reset();
  $("name").textContent = info.name;
  $("warnings").replaceChildren(
    ...info.warnings.map((line) => Object.assign(document.createElement("li"), { textContent: line })),
  );
  const slider = $("threshold");
  // A recipe's own threshold need not lie on a step of the slider, nor within its ends.
  const steps = 20 * info.threshold;
  slider.min = Math.min(0.05, info.threshold);
  slider.max = Math.max(0.95, info.threshold);
  slider.step = slider.min === "0.05" && Math.abs(steps - Math.round(steps)) < 1e-9 ? 0.05 : "any";
  slider.value = info.threshold;
  recipe = slider.value;
  const canvas = $("canvas");
  canvas.width = info.columns;
  canvas.height = info.rows;
  // Square millimetres, as large as the window allows.
  const [row, column] = info.pixel_mm;
  canvas.style.aspectRatio = `${info.columns * column} / ${info.rows * row}`;
  canvas.style.height = `${Math.min(0.82 * window.innerHeight, 1.6 * info.rows * (row / column))}px`;
  canvas.classList.toggle("turns", info.views > 1);
  show("turn", info.views > 1);
  await mark();
  if (own !== run) return;
  show("result", true);
  draw();
}

async function mark() {
  const number = ++asked;
  const threshold = $("threshold").value;
  // The model's own is the server's to know: as /predict has it.
  const query = threshold === recipe ? "" : `?threshold=${threshold}`;
  const [picked, table] = await Promise.all([
    picture(`cases/${key}/overlay.png${query}`),
    ask(`cases/${key}/table${query}`).then((answer) => answer.json()),
  ]);
  if (number !== asked) return; // a later one is on its way
  overlay = picked;
  $("mask").href = `cases/${key}/mask${query}`;
  $("report").href = `cases/${key}/report${query}`;
  fill(table);
  draw();
  $("canvas").dataset.threshold = threshold;
}

function fill({ titles, rows }) {
  const cells = (tag, values) => {
    const line = document.createElement("tr");
    line.append(...values.map((value) => Object.assign(document.createElement(tag), { textContent: value ?? "" })));
    return line;
  };
  $("table").tHead.replaceChildren(...(rows.length ? [cells("th", Object.values(titles))] : []));
  $("table").tBodies[0].replaceChildren(...rows.map((row) => cells("td", Object.values(row))));
  const sum = (name) => rows.reduce((all, row) => all + row[name], 0).toFixed(1);
  const counted = (noun) => `${rows.length} ${noun}${rows.length === 1 ? "" : "s"}`;
  $("total").textContent = !rows.length
    ? "Nothing is marked at this threshold."
    : info.volume
      ? `${counted("lesion")}, ${sum("volume_ml")} ml`
      : `${counted("region")}, ${sum("area_cm2")} cm² (pixels taken as 2 mm)`;
}

function pixels(source, view) {
  const { columns, rows, across } = info;
  const scratch = new OffscreenCanvas(columns, rows);
  const context = scratch.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, (view % across) * columns, Math.floor(view / across) * rows, columns, rows, 0, 0, columns, rows);
  return context.getImageData(0, 0, columns, rows);
}

function draw() {
  if (!sheet || !overlay) return;
  // Half a turn further the same view is seen from behind: mirrored.
  const { view, behind, position } = stage.at();
  const grey = pixels(sheet, view);
  const mask = pixels(overlay, view).data;
  const share = Number($("opacity").value);
  const white = Number($("window").value);
  const out = grey.data;
  let marked = 0;
  for (let i = 0; i < out.length; i += 4) {
    const dark = 255 - Math.min(255, out[i] / white);
    const on = mask[i] > 127;
    marked += on;
    for (let c = 0; c < 3; c++) out[i + c] = on ? dark * (1 - share) + MARK[c] * share : dark;
    out[i + 3] = 255;
  }
  const canvas = $("canvas");
  const context = canvas.getContext("2d");
  const scratch = new OffscreenCanvas(info.columns, info.rows);
  scratch.getContext("2d").putImageData(grey, 0, 0);
  context.setTransform(behind ? -1 : 1, 0, 0, 1, behind ? info.columns : 0, 0);
  context.drawImage(scratch, 0, 0);
  canvas.dataset.marked = marked;
  canvas.dataset.view = position;
  $("angle").textContent = `${Math.round(info.angles_deg[view] + (behind ? 180 : 0))}°`;
  $("opacity-value").textContent = `${Math.round(100 * share)} %`;
  $("threshold-value").textContent = Number($("threshold").value).toFixed(2);
  $("window-value").textContent = `${Math.round(100 / white)} %`;
}

function reset() {
  run++;
  asked++;
  if (sending) sending.abort();
  if (key) forget(key);
  key = info = sheet = overlay = null;
  say("");
  show("result", false);
  show("working", false);
  show("drop", true);
  $("file").value = "";
}

function listen() {
  const drop = $("drop");
  drop.addEventListener("click", () => $("file").click());
  drop.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") $("file").click();
  });
  $("file").addEventListener("click", (event) => event.stopPropagation());
  $("file").addEventListener("change", (event) => {
    if (event.target.files.length) start(event.target.files[0]);
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) start(event.dataTransfer.files[0]);
    });
  }
  for (const name of ["opacity", "window"]) $(name).addEventListener("input", draw);
  let timer;
  $("threshold").addEventListener("input", () => {
    $("threshold-value").textContent = Number($("threshold").value).toFixed(2);
    clearTimeout(timer);
    const own = run;
    timer = setTimeout(() => {
      if (own !== run) return;
      mark().catch((error) => own === run && say(error.message));
    }, 150);
  });
  $("again").addEventListener("click", reset);
  $("stop").addEventListener("click", reset);
  const count = () => (info ? info.views : 1);
  stage = turntable($("canvas"), { count, draw, wraps: isHalfTurn });
}

listen();
