// Lifetimes of blocks: areas from allocation to end, stacked or by address.
(function () {
  "use strict";
  const kit = window.tracelensMemory;
  const HEIGHT = 420;
  const TOP = 10;
  const BOTTOM = 24;

  // Where blocks lie: [left pixel, right pixel, bytes below] each, by block; y changes in stacks.
  function stacked(data) {
    const count = data.row.length;
    const found = Array.from({ length: count }, () => []);
    const begins = Array.from({ length: data.pixels + 1 }, () => []);
    const changes = new Uint8Array(data.pixels + 1);
    for (let i = 0; i < count; i++) {
      begins[data.first[i]].push(i);
      changes[data.first[i]] = changes[data.last[i]] = 1;
    }
    const sums = new Float64Array(data.pixels);
    let live = [];
    let sum = 0;
    for (let k = 0; k < data.pixels; k++) {
      if (changes[k]) {
        live = live.filter((i) => data.last[i] > k).concat(begins[k]);
        sum = 0;
        for (const i of live) {
          const runs = found[i];
          const last = runs[runs.length - 1];
          if (!last || last[2] !== sum) {
            if (last) last[1] = k;
            runs.push([k, data.last[i], sum]);
          }
          sum += data.size[i];
        }
      }
      sums[k] = sum;
    }
    return { runs: found, sums: sums };
  }

  function byAddress(data) {
    const found = [];
    let top = 0;
    for (let i = 0; i < data.row.length; i++) {
      found.push([[data.first[i], data.last[i], data.offset[i]]]);
      top = Math.max(top, data.offset[i] + data.size[i]);
    }
    return { runs: found, sums: new Float64Array(data.pixels).fill(top) };
  }

  function arranged(data) {
    const layout = data.offset ? byAddress(data) : stacked(data);
    let most = 1;
    const tops = Float64Array.from(layout.sums);
    const bands = [];
    for (const band of data.rest) {
      const below = Float64Array.from(tops);
      for (let k = 0; k < data.pixels; k++) tops[k] += Math.max(0, band.held[k]);
      bands.push({ name: band.name, colour: band.colour, held: band.held, below: below });
    }
    for (const top of tops) most = Math.max(most, top);
    return { runs: layout.runs, bands: bands, most: most };
  }

  function geometry(canvas, data, layout, view) {
    const width = canvas.parentElement.clientWidth;
    const place = kit.scale(view, width);
    const bottom = HEIGHT - BOTTOM;
    const unit = (bottom - TOP) / layout.most;
    const span = data.to - data.from;
    return {
      place: place,
      bottom: bottom,
      unit: unit,
      x: (k) => place.px(data.from + (span * k) / data.pixels),
      y: (size) => bottom - size * unit,
    };
  }

  function drawn(canvas, data, layout, view, chosen) {
    const at = kit.prepare(canvas, HEIGHT);
    const here = geometry(canvas, data, layout, view);
    const draw = at.draw;
    draw.textAlign = "right";
    draw.fillStyle = at.quiet;
    for (const part of [0, 0.5, 1]) {
      const size = layout.most * part;
      draw.fillText(kit.text("bytes", size, layout.most), kit.LEFT - 8, here.y(size) + (part === 1 ? 9 : 4));
    }
    draw.textAlign = "left";
    draw.save();
    draw.beginPath();
    draw.rect(kit.LEFT, 0, here.place.inner, HEIGHT);
    draw.clip();
    for (let i = 0; i < layout.runs.length; i++) block(at, here, data, layout, i);
    for (const band of layout.bands) stripe(at, here, band);
    if (chosen >= 0) {
      draw.strokeStyle = at.ink;
      draw.lineWidth = 2;
      for (const [first, last, below] of layout.runs[chosen]) {
        const height = data.size[chosen] * here.unit;
        draw.strokeRect(here.x(first), here.y(below) - height, here.x(last) - here.x(first), height);
      }
    }
    draw.restore();
    draw.fillStyle = at.quiet;
    const unit = view.axis === "time" ? "ns" : "count";
    draw.textAlign = "center";
    for (const tick of kit.ticks(unit, view.from, view.to, Math.max(2, Math.floor(here.place.inner / 110)))) {
      const x = here.place.px(tick.at);
      if (x > kit.LEFT + 20 && x < at.width - 30) draw.fillText(tick.label, x, HEIGHT - 6);
    }
    draw.textAlign = "left";
  }

  function block(at, here, data, layout, i) {
    const draw = at.draw;
    const height = data.size[i] * here.unit;
    draw.fillStyle = data.colours[data.category[i]];
    for (const [first, last, below] of layout.runs[i]) {
      const x = here.x(first);
      const width = here.x(last) - x;
      const y = here.y(below) - height;
      draw.fillRect(x, y, Math.max(width, 1), Math.max(height, 0.4));
      if (height > 5) {
        draw.fillStyle = at.paper;
        draw.fillRect(x, y, Math.max(width, 1), 0.5);
        draw.fillStyle = data.colours[data.category[i]];
      }
    }
  }

  function stripe(at, here, band) {
    const draw = at.draw;
    draw.fillStyle = band.colour;
    for (let k = 0; k < band.held.length; k++) {
      if (!(band.held[k] > 0)) continue;
      const height = band.held[k] * here.unit;
      const x = here.x(k);
      draw.fillRect(x, here.y(band.below[k]) - height, here.x(k + 1) - x + 0.5, height);
    }
    draw.fillStyle = at.veil;
    for (let k = 0; k < band.held.length; k += 1) {
      if (!(band.held[k] > 0)) continue;
      const x = here.x(k);
      const y = here.y(band.below[k]);
      const height = band.held[k] * here.unit;
      if (Math.floor(x / 3) % 2) draw.fillRect(x, y - height, here.x(k + 1) - x + 0.5, height);
    }
  }

  // What lies under a place: a block, or a stripe, or nothing.
  function found(canvas, data, layout, view, x, y) {
    const here = geometry(canvas, data, layout, view);
    const size = (here.bottom - y) / here.unit;
    const at = here.place.at(x);
    if (at < data.from || at > data.to || x < kit.LEFT || size < 0) return null;
    const k = Math.min(data.pixels - 1, Math.floor(((at - data.from) / (data.to - data.from)) * data.pixels));
    for (let i = 0; i < layout.runs.length; i++) {
      if (k < data.first[i] || k >= data.last[i]) continue;
      for (const [first, last, below] of layout.runs[i]) {
        if (k >= first && k < last && size >= below && size < below + data.size[i]) return { block: i };
      }
    }
    for (const band of layout.bands) {
      if (size >= band.below[k] && size < band.below[k] + band.held[k]) {
        return { band: band, held: band.held[k] };
      }
    }
    return null;
  }

  Object.assign(kit, { arrange: arranged, drawLifetimes: drawn, findLifetime: found });
})();
