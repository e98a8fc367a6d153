"use strict";
// A canvas that is turned: by dragging (mouse, pen, finger) and by the arrow keys. The page draws;
// this only knows which view is in front. The report of nnUNetv2_mip_report carries a copy of this
// file within itself.

// canvas: the element. count(): number of views. draw(): called after every turn.
// wraps(): whether the views cover 180°, so that half a turn further the same views come again,
// seen from behind (mirrored); else turning ends at the first and the last view.
// Gives at() → { view, behind }, turn(steps) and reset().
function turntable(canvas, { count, draw, wraps = () => true }) {
  let position = 0; // in views; two half turns are 2 × count
  let from = null;

  function place() {
    const views = count();
    if (!wraps()) return Math.min(views - 1, Math.max(0, Math.round(position)));
    return ((Math.round(position) % (2 * views)) + 2 * views) % (2 * views);
  }

  function go(to) {
    position = wraps() ? to : Math.min(count() - 1, Math.max(0, to));
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => {
    from = { x: event.clientX, position };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!from || count() < 2) return;
    // A drag over the width of the picture is half a turn.
    go(from.position + ((event.clientX - from.x) / canvas.clientWidth) * count());
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      from = null;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || count() < 2) return;
    event.preventDefault();
    go(Math.round(position) + step);
  });

  return {
    at() {
      const there = place();
      return { view: there % count(), behind: there >= count(), position: there };
    },
    turn(steps) {
      go(position + steps);
    },
    reset() {
      position = 0;
    },
  };
}
