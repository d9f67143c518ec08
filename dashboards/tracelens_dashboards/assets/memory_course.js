// Memory over time: stacked areas, what was reserved, phases, steps, marks and the cursor.
(function () {
  "use strict";
  const kit = window.tracelensMemory;
  const HEIGHT = 380;
  const TOP = 30;
  const BOTTOM = 62;
  const STRIP = 16;
  const MOST_LISTED = 8;

  // Where an x of the axis stands in the picture, and the other way round.
  function scale(view, width) {
    const inner = width - kit.LEFT - kit.RIGHT;
    const span = view.to - view.from;
    return {
      inner: inner,
      px: (x) => kit.LEFT + ((x - view.from) / span) * inner,
      at: (px) => view.from + ((px - kit.LEFT) / inner) * span,
    };
  }

  function edges(data, place) {
    const count = data.index.length;
    const found = new Float64Array(count + 1);
    for (let k = 0; k <= count; k++) {
      found[k] = place.px(data.from + ((data.to - data.from) * k) / count);
    }
    return found;
  }

  function pixelOf(data, x) {
    const part = (x - data.from) / (data.to - data.from);
    return Math.min(data.index.length - 1, Math.max(0, Math.floor(part * data.index.length)));
  }

  function line(draw, x, values, y) {
    draw.beginPath();
    for (let k = 0; k < values.length; k++) {
      const height = y(values[k]);
      if (k === 0) draw.moveTo(x[0], height);
      else draw.lineTo(x[k], height);
      draw.lineTo(x[k + 1], height);
    }
  }

  function areas(at, data, x, y) {
    const count = data.index.length;
    const below = new Float64Array(count);
    for (const layer of data.layers) {
      const draw = at.draw;
      draw.beginPath();
      for (let k = 0; k < count; k++) {
        const height = y(below[k] + layer.held[k]);
        draw.lineTo(x[k], height);
        draw.lineTo(x[k + 1], height);
      }
      for (let k = count - 1; k >= 0; k--) {
        const height = y(below[k]);
        draw.lineTo(x[k + 1], height);
        draw.lineTo(x[k], height);
        below[k] += layer.held[k];
      }
      draw.fillStyle = layer.colour;
      draw.fill();
    }
    at.draw.fillStyle = at.veil;
    for (let k = 0; k < count; k++) {
      if (data.low[k] < data.active[k]) {
        const top = y(data.active[k]);
        at.draw.fillRect(x[k], top, x[k + 1] - x[k], y(data.low[k]) - top);
      }
    }
  }

  // Runs of equal values: [value, first pixel, pixel after the last].
  function runs(values) {
    const found = [];
    for (let k = 0; k < values.length; k++) {
      const last = found[found.length - 1];
      if (last && last[0] === values[k]) last[2] = k + 1;
      else found.push([values[k], k, k + 1]);
    }
    return found;
  }

  function label(draw, text, left, right, y) {
    if (right - left > draw.measureText(text).width + 6) draw.fillText(text, left + 4, y);
  }

  function tint(at, data, x, bottom) {
    const draw = at.draw;
    draw.globalAlpha = 0.09;
    for (const [code, first, end] of runs(data.phase)) {
      draw.fillStyle = data.phases[code].colour;
      if (code) draw.fillRect(x[first], TOP, x[end] - x[first], bottom - TOP);
    }
    draw.globalAlpha = 1;
  }

  function phases(at, data, x, bottom) {
    const draw = at.draw;
    const top = bottom + 3;
    for (const [code, first, end] of runs(data.phase)) {
      if (!code) continue;
      const phase = data.phases[code];
      draw.fillStyle = phase.colour;
      draw.fillRect(x[first], top, Math.max(1, x[end] - x[first] - 0.5), STRIP);
      draw.fillStyle = "#ffffff";
      label(draw, phase.name, x[first], x[end], top + 12);
    }
    for (const [step, first, end] of runs(data.step)) {
      if (step < 0) continue;
      draw.fillStyle = at.quiet;
      draw.fillRect(x[first], TOP, 1, bottom - TOP + STRIP + 20);
      label(draw, "step " + step, x[first], x[end], bottom + STRIP + 17);
    }
  }

  function axes(at, view, place, y, bottom, most) {
    const draw = at.draw;
    draw.fillStyle = at.quiet;
    draw.textAlign = "right";
    const each = most / 4;
    const power = 2 ** Math.floor(Math.log2(Math.max(each, 1)));
    const gap = [1, 1.5, 2].find((one) => one * power >= each) * power;
    for (let size = 0; size <= most * 1.0001; size += gap) {
      draw.fillStyle = at.line;
      draw.fillRect(kit.LEFT, Math.round(y(size)), place.inner, 1);
      draw.fillStyle = at.quiet;
      draw.fillText(kit.text("bytes", size, most), kit.LEFT - 8, y(size) + 4);
    }
    draw.textAlign = "center";
    const unit = view.axis === "time" ? "ns" : "count";
    const count = Math.max(2, Math.floor(place.inner / 110));
    for (const tick of kit.ticks(unit, view.from, view.to, count)) {
      const x = place.px(tick.at);
      draw.fillStyle = at.line;
      draw.fillRect(x, TOP, 1, bottom - TOP);
      draw.fillStyle = at.quiet;
      if (x > kit.LEFT + 20 && x < at.width - 30) draw.fillText(tick.label, x, HEIGHT - 6);
    }
    draw.textAlign = "left";
    draw.fillText(view.axis === "time" ? "time" : "event", 8, HEIGHT - 6);
  }

  function inside(view, x) {
    return x >= view.from && x <= view.to;
  }

  function marks(at, data, view, place, y, bottom) {
    const draw = at.draw;
    for (const mark of data.marks) {
      if (!inside(view, mark.x)) continue;
      const x = place.px(mark.x);
      const isPeak = mark.kind === "peak";
      draw.fillStyle = isPeak ? at.ink : at.alarm;
      draw.strokeStyle = draw.fillStyle;
      if (!isPeak) draw.fillRect(x, TOP, 1.5, bottom - TOP);
      draw.beginPath();
      draw.arc(x, y(mark.bytes), 3.5, 0, 2 * Math.PI);
      draw.fill();
      const text = isPeak ? "peak " + kit.text("bytes", mark.bytes) : "out of memory";
      const right = x + draw.measureText(text).width + 10 > at.width;
      draw.textAlign = right ? "right" : "left";
      draw.fillText(text, right ? x - 5 : x + 5, isPeak ? TOP - 4 : TOP - 17);
      draw.textAlign = "left";
    }
    if (data.cursor && inside(view, data.cursor.x)) {
      const x = place.px(data.cursor.x);
      draw.fillStyle = at.ink;
      draw.fillRect(x - 0.75, TOP - 2, 1.5, bottom - TOP + 4);
      draw.beginPath();
      draw.moveTo(x - 5, bottom + 3);
      draw.lineTo(x + 5, bottom + 3);
      draw.lineTo(x, bottom - 4);
      draw.fill();
    }
  }

  function drawn(canvas, data, view) {
    const at = kit.prepare(canvas, HEIGHT);
    const place = scale(view, at.width);
    const bottom = HEIGHT - BOTTOM;
    const y = (size) => bottom - (size / (data.most * 1.02)) * (bottom - TOP);
    const draw = at.draw;
    const x = edges(data, place);
    axes(at, view, place, y, bottom, data.most);
    draw.save();
    draw.beginPath();
    draw.rect(kit.LEFT, 0, place.inner, HEIGHT);
    draw.clip();
    tint(at, data, x, bottom);
    areas(at, data, x, y);
    phases(at, data, x, bottom);
    line(draw, x, data.active, y);
    draw.strokeStyle = at.ink;
    draw.lineWidth = 1;
    draw.stroke();
    if (data.reserved) {
      line(draw, x, data.reserved, y);
      draw.setLineDash([4, 3]);
      draw.strokeStyle = at.quiet;
      draw.lineWidth = 1.5;
      draw.stroke();
      draw.setLineDash([]);
    }
    draw.restore();
    marks(at, data, view, place, y, bottom);
  }

  function legend(box, data) {
    box.replaceChildren();
    for (const layer of [...data.layers].reverse()) {
      const entry = kit.element("span", "memory-key");
      entry.append(kit.swatch(layer.colour), layer.name);
      box.append(entry);
    }
    if (data.reserved) box.append(kit.element("span", "memory-key memory-key-line", "reserved"));
  }

  function hovered(data, x) {
    const k = pixelOf(data, x);
    const lines = [[null, "active", kit.text("bytes", data.active[k])]];
    if (Math.abs(data.allocated[k] - data.active[k]) > 1) {
      lines.push([null, "allocated", kit.text("bytes", data.allocated[k])]);
    }
    if (data.reserved) lines.push([null, "reserved", kit.text("bytes", data.reserved[k])]);
    if (data.low[k] < data.active[k]) {
      lines.push([null, "lowest in this pixel", kit.text("bytes", data.low[k])]);
    }
    const held = data.layers.filter((layer) => layer.held[k] > 0);
    held.sort((a, b) => b.held[k] - a.held[k]);
    for (const layer of held.slice(0, MOST_LISTED)) {
      lines.push([layer.colour, layer.name, kit.text("bytes", layer.held[k])]);
    }
    const phase = data.phases[data.phase[k]].name;
    const title = [data.index[k] < 0 ? "before the first event" : "event " + kit.text("count", data.index[k])];
    if (data.axis === "time") title.push(kit.text("ns", x));
    if (phase) title.push(phase);
    if (data.step[k] >= 0) title.push("step " + data.step[k]);
    return { title: title.join(" · "), lines: lines };
  }

  Object.assign(kit, {
    scale: scale,
    pixelOf: pixelOf,
    drawCourse: drawn,
    drawLegend: legend,
    hoverCourse: hovered,
  });
})();
