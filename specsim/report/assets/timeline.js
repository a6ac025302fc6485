// Draws each timeline of the page on its canvas: a row per stream, a bar per task, between the times `from` and `to`.
"use strict";
(() => {
  const TIMELINES = JSON.parse(document.getElementById("timelines").textContent);
  const NAMES = 104, SHARES = 52, ROW = 30, BAR = 21, TOP = 8, AXIS = 24; // CSS pixels
  const NEAR = 3; // so far from a task that is thinner than a pixel, a pointer still means it
  const LEGIBLE = 30; // no name fits a bar that is less wide
  const CLOSEST = 1e-6; // of the whole: no view is narrower

  const UNITS = {
    seconds: [[1, "s"], [1e-3, "ms"], [1e-6, "us"]],
    bytes: [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]],
    rate: [[1e9, "GB/s"], [1e6, "MB/s"], [1e3, "kB/s"]],
    flops: [[1e12, "TFLOP"], [1e9, "GFLOP"], [1e6, "MFLOP"], [1, "FLOP"]],
  };

  function show(value, dimension) {
    const units = UNITS[dimension];
    const [size, unit] = units.find(([size]) => value >= size) || units[value ? units.length - 1 : 0];
    return `${Number((value / size).toPrecision(3))} ${unit}`;
  }

  // The step of 1, 2 or 5 times a power of ten that puts at most `most` ticks between two times.
  function tickStep(span, most) {
    const power = 10 ** Math.floor(Math.log10(span / most));
    return power * [1, 2, 5, 10].find((step) => power * step * most >= span);
  }

  // Black or white, whichever is read better on a colour such as "rgb(0, 114, 178)".
  function contrast(colour) {
    const [red, green, blue] = colour.match(/\d+/g).map(Number);
    return 0.299 * red + 0.587 * green + 0.114 * blue > 115 ? "#1a1a1a" : "#ffffff";
  }

  function start(root) {
    const line = TIMELINES[Number(root.dataset.index)];
    const canvas = root.querySelector("canvas");
    const told = root.querySelector("output");
    const swatches = [...root.querySelectorAll(".swatch")];
    const critical = new Set(line.critical);
    const rows = line.rows.map((_, row) => line.row.flatMap((at, i) => (at === row ? [i] : [])));
    const height = TOP + ROW * line.rows.length + AXIS;
    let width = 0, from = 0, to = line.end || 1, hovered = -1;

    const left = () => NAMES, right = () => width - SHARES;
    const x = (time) => left() + ((time - from) / (to - from)) * (right() - left());
    const timeAt = (px) => from + ((px - left()) / (right() - left())) * (to - from);
    const end = (i) => line.start[i] + line.seconds[i];

    function draw() {
      const ratio = window.devicePixelRatio || 1;
      width = canvas.clientWidth;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const theme = getComputedStyle(root);
      const [ink, quiet, grid, lane] = ["--ink", "--quiet", "--grid", "--lane"].map((n) => theme.getPropertyValue(n));
      const colours = swatches.map((swatch) => getComputedStyle(swatch).backgroundColor);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = `12px ${theme.fontFamily}`;
      pen.textBaseline = "middle";
      drawAxis(pen, quiet, grid);
      let shown = 0;
      line.rows.forEach((name, row) => {
        const top = TOP + row * ROW, middle = top + BAR / 2;
        pen.fillStyle = lane;
        pen.fillRect(left(), top, right() - left(), BAR);
        let busy = 0;
        for (const i of rows[row]) {
          const a = Math.max(line.start[i], from), b = Math.min(end(i), to);
          if (b <= a) continue;
          shown += 1;
          busy += b - a;
          const x0 = x(a), wide = x(b) - x0;
          pen.fillStyle = colours[line.kind[i]];
          pen.fillRect(x0, top, wide > 3 ? wide - 0.6 : wide, BAR); // a gap parts bars that can spare it
          if (wide > LEGIBLE) drawName(pen, line.name[i], x0 + wide / 2, middle, wide - 8, contrast(colours[line.kind[i]]));
          if (critical.has(i)) {
            pen.fillStyle = ink;
            pen.fillRect(x0, top + BAR + 2, Math.max(wide, 0.5), 2.5);
          }
          if (i === hovered) {
            pen.strokeStyle = ink;
            pen.lineWidth = 2;
            pen.strokeRect(x0, top, Math.max(wide, 1), BAR);
          }
        }
        pen.fillStyle = ink;
        pen.textAlign = "right";
        pen.fillText(name, left() - 8, middle);
        pen.textAlign = "left";
        pen.fillStyle = quiet;
        pen.fillText(`${Math.round((100 * busy) / (to - from))}%`, right() + 8, middle);
      });
      told.textContent = `${show(from, "seconds")} to ${show(to, "seconds")}`;
      Object.assign(root.dataset, { from, to, shown });
    }

    // A task's name where it fits into `wide`, or the last parts of it that do.
    function drawName(pen, name, centre, middle, wide, colour) {
      for (let text = name; text; text = text.includes("/") ? text.slice(text.indexOf("/") + 1) : "") {
        if (pen.measureText(text).width > wide) continue;
        pen.fillStyle = colour;
        pen.textAlign = "center";
        pen.fillText(text, centre, middle);
        return;
      }
    }

    function drawAxis(pen, quiet, grid) {
      const step = tickStep(to - from, Math.max(2, Math.floor((right() - left()) / 90)));
      const [size, unit] = UNITS.seconds.find(([size]) => to - from >= 2 * size) || UNITS.seconds[2];
      const digits = Math.max(0, -Math.floor(Math.log10(step / size)));
      pen.textAlign = "center";
      for (let tick = Math.ceil(from / step); tick * step <= to * (1 + 1e-12); tick += 1) {
        pen.fillStyle = grid;
        pen.fillRect(x(tick * step) - 0.5, 0, 1, height - AXIS + 4);
        pen.fillStyle = quiet;
        pen.fillText(`${((tick * step) / size).toFixed(digits)} ${unit}`, x(tick * step), height - AXIS / 2 + 2);
      }
    }

    // Show the times from `a` on for `span` seconds, as far as the timeline goes.
    function view(a, span) {
      const whole = line.end || 1;
      span = Math.min(whole, Math.max(span, whole * CLOSEST));
      from = Math.min(Math.max(0, a), whole - span);
      to = from + span;
      draw();
    }
    const zoom = (factor, at) => view(at - (at - from) * factor, (to - from) * factor);
    const pan = (share) => view(from + share * (to - from), to - from);
    const middle = () => (from + to) / 2;
    const actions = {
      in: () => zoom(0.5, middle()),
      out: () => zoom(2, middle()),
      all: () => view(0, Infinity),
    };
    const keys = { "+": actions.in, "=": actions.in, "-": actions.out, 0: actions.all };
    Object.assign(keys, { ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2) });

    // The task under a point of the canvas, or -1.
    function taskAt(px, py) {
      const row = Math.floor((py - TOP) / ROW);
      if (!rows[row] || px < left() || px > right()) return -1;
      const time = timeAt(px), reach = (NEAR * (to - from)) / (right() - left());
      const away = (i) => Math.max(line.start[i] - time, time - end(i), 0);
      const near = rows[row].filter((i) => away(i) <= reach);
      return near.reduce((best, i) => (best < 0 || away(i) < away(best) ? i : best), -1);
    }

    function describe(i) {
      const seconds = line.seconds[i], lines = [
        `${line.kinds[line.kind[i]]} on ${line.rows[line.row[i]]}${critical.has(i) ? ", on the critical path" : ""}`,
        `starts at ${show(line.start[i], "seconds")}, takes ${show(seconds, "seconds")}`,
      ];
      if (line.bytes[i]) lines.push(`${show(line.bytes[i], "bytes")}, ${show(line.bytes[i] / seconds, "rate")}`);
      if (line.flops[i]) lines.push(`${show(line.flops[i], "flops")}, ${show(line.flops[i] / seconds, "flops")}/s`);
      return lines;
    }

    function hover(event) {
      const box = canvas.getBoundingClientRect();
      const i = taskAt(event.clientX - box.left, event.clientY - box.top);
      if (i !== hovered) {
        hovered = i;
        draw();
      }
      tip.hidden = i < 0;
      if (i < 0) return;
      const name = document.createElement("strong");
      name.textContent = line.name[i];
      tip.replaceChildren(name, ...describe(i).map((text) => {
        const element = document.createElement("div");
        element.textContent = text;
        return element;
      }));
      const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, room))}px`;
      tip.style.top = `${event.clientY + 18}px`;
    }

    canvas.style.height = `${height}px`;
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) pan(-event.movementX / (right() - left()));
      hover(event);
    });
    canvas.addEventListener("pointerleave", hover);
    canvas.addEventListener("dblclick", (event) => zoom(0.5, timeAt(event.offsetX)));
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) zoom(2 ** (event.deltaY / 200), timeAt(event.offsetX));
      else if (event.deltaX || event.shiftKey) pan((event.deltaX || event.deltaY) / (right() - left()));
      else return; // the page scrolls
      event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      keys[event.key]();
      event.preventDefault();
    });
    for (const button of root.querySelectorAll("button")) button.addEventListener("click", actions[button.dataset.do]);
    new ResizeObserver(draw).observe(canvas);
    for (const medium of ["print", "(prefers-color-scheme: dark)"]) matchMedia(medium).addEventListener("change", draw);
  }

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  document.querySelectorAll(".timeline").forEach(start);
})();
