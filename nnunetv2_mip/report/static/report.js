// The report's own script: pictures that turn, masks over them, a table that sorts. Everything it
// shows is in the page; it asks for nothing.

// Truth is a surface, the prediction an outline: where they agree both are seen.
const MASKS = {
  truth: { bit: 1, colour: [0, 153, 51], inside: 0.55, border: 1.2 },
  prediction: { bit: 2, colour: [255, 102, 0], inside: 0.25, border: 1.4 },
};
// The picture is drawn this many times finer than it is stored: smooth when it is enlarged.
const FINER = 2;
const TURN_SECONDS = 6;
const SIDES = ["from the front", "from the left side", "from the back", "from the right side"];
const turns = JSON.parse(document.getElementById("turns").textContent);
const viewers = [];
const choice = { opacity: 0.7, darkness: 1, invert: false, truth: true, prediction: true };

async function values(url, columns, rows, across, views) {
  // One channel of a sheet, view after view.
  const image = new Image();
  image.src = url;
  await image.decode();
  const sheet = document.createElement("canvas");
  sheet.width = image.naturalWidth;
  sheet.height = image.naturalHeight;
  const context = sheet.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const size = columns * rows;
  const out = new Uint8Array(views * size);
  for (let view = 0; view < views; view++) {
    const left = (view % across) * columns;
    const top = Math.floor(view / across) * rows;
    const data = context.getImageData(left, top, columns, rows).data;
    for (let i = 0; i < size; i++) out[view * size + i] = data[4 * i];
  }
  return out;
}

function viewer(canvas) {
  const page = turns[canvas.dataset.turn];
  const { columns, rows, views } = page;
  const size = columns * rows;
  const angle = canvas.parentElement.querySelector(".angle");
  const [rowMm, columnMm] = page.pixel_mm;
  // Square millimetres.
  canvas.width = FINER * columns;
  canvas.height = Math.round((FINER * rows * rowMm) / columnMm);
  canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  const scratch = document.createElement("canvas");
  const own = scratch.getContext("2d");
  let image = null;
  let overlay = null;
  let loading = null;

  function load() {
    loading ??= (async () => {
      const sizes = [columns, rows, page.across, views];
      [image, overlay] = await Promise.all([values(page.image, ...sizes), values(page.overlay, ...sizes)]);
      draw();
    })();
    return loading;
  }

  function layer(context, finer, fill) {
    scratch.width = finer * columns;
    scratch.height = finer * rows;
    const picture = own.createImageData(scratch.width, scratch.height);
    fill(picture.data);
    own.putImageData(picture, 0, 0);
    context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
  }

  // Outlines are half a pixel wide.
  function mark(data, first, { bit, colour, inside, border }) {
    const [wide, high] = [FINER * columns, FINER * rows];
    const within = (x, y) =>
      x >= 0 && y >= 0 && x < wide && y < high &&
      (Math.round(overlay[first + Math.floor(y / FINER) * columns + Math.floor(x / FINER)] / 85) & bit) !== 0;
    let marked = 0;
    for (let y = 0; y < high; y++) {
      for (let x = 0; x < wide; x++) {
        if (!within(x, y)) continue;
        marked++;
        const whole = within(x - 1, y) && within(x + 1, y) && within(x, y - 1) && within(x, y + 1);
        const at = 4 * (y * wide + x);
        data.set(colour, at);
        data[at + 3] = 255 * Math.min(1, choice.opacity * (whole ? inside : border));
      }
    }
    return marked / FINER ** 2;
  }

  function draw() {
    if (!image) return;
    const { view, behind, position } = stage.at();
    const first = view * size;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.setTransform(behind ? -1 : 1, 0, 0, 1, behind ? canvas.width : 0, 0);
    layer(context, 1, (data) => {
      for (let i = 0; i < size; i++) {
        const uptake = Math.min(255, image[first + i] * choice.darkness);
        const grey = choice.invert ? uptake : 255 - uptake;
        data[4 * i] = data[4 * i + 1] = data[4 * i + 2] = grey;
        data[4 * i + 3] = 255;
      }
    });
    let marked = 0;
    for (const [name, mask] of Object.entries(MASKS)) {
      if (!choice[name] || choice.opacity === 0) continue;
      layer(context, FINER, (data) => {
        marked += mark(data, first, mask);
      });
    }
    const degrees = Math.round((page.angles_deg[view] + (behind ? 180 : 0)) * 10) / 10;
    canvas.dataset.view = position;
    canvas.dataset.marked = marked;
    canvas.classList.toggle("inverted", choice.invert);
    if (angle) {
      const near = ((degrees % 360) + 360) % 360;
      const side = near % 90 === 0 ? `, ${SIDES[near / 90]}` : "";
      angle.textContent = `${degrees}°${side}`;
      canvas.setAttribute("aria-valuenow", Math.round(near));
      canvas.setAttribute("aria-valuetext", angle.textContent);
    }
  }

  const stage = turntable(canvas, { count: () => views, draw, wraps: () => page.wraps });
  return { canvas, views, load, draw, turn: stage.turn, visible: false };
}

function listenToPictures() {
  // Only what is looked at is unpacked.
  const watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const found = viewers.find((item) => item.canvas === entry.target);
        found.visible = entry.isIntersecting;
        if (entry.isIntersecting) found.load();
      }
    },
    { rootMargin: "300px" },
  );
  for (const canvas of document.querySelectorAll("canvas[data-turn]")) {
    const made = viewer(canvas);
    viewers.push(made);
    watch.observe(canvas);
  }
  const redraw = () => viewers.forEach((item) => item.visible && item.draw());
  const read = () => {
    for (const name of Object.keys(MASKS)) {
      const box = document.getElementById(`show-${name}`);
      choice[name] = Boolean(box && box.checked);
    }
    choice.opacity = document.getElementById("opacity").value / 100;
    choice.darkness = document.getElementById("darkness").value / 100;
    choice.invert = document.getElementById("invert").checked;
    const size = document.getElementById("size").value / 100;
    document.documentElement.style.setProperty("--size", size);
    redraw();
  };
  // What is printed is not scrolled to.
  window.addEventListener("beforeprint", () => viewers.forEach((item) => item.load()));
  const toolbar = document.querySelector(".toolbar");
  if (!toolbar) return;
  toolbar.addEventListener("input", read);
  // Browsers keep what was chosen before a reload.
  read();
  const play = document.getElementById("play");
  let timer = null;
  play?.addEventListener("click", () => {
    play.setAttribute("aria-pressed", String(timer === null));
    play.textContent = timer === null ? "Stop" : "Turn all";
    if (timer !== null) {
      clearInterval(timer);
      timer = null;
      return;
    }
    const most = Math.max(...viewers.map((item) => item.views));
    timer = setInterval(
      () => viewers.forEach((item) => item.visible && item.views > 1 && item.turn(item.views / most)),
      (1000 * TURN_SECONDS) / (2 * most),
    );
  });
}

function listenToTable() {
  const table = document.querySelector("table.cases");
  if (!table) return;
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent;
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((one, two) => {
        const [a, b] = [value(one, column), value(two, column)];
        // What has no value comes last, whichever way.
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
}

listenToPictures();
listenToTable();
