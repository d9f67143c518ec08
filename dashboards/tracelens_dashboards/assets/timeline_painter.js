// The picture: ruler, rows as heat or rectangles, and what lies over them.
"use strict";

(function (timeline) {
  const RULER = 40;
  /** Between a row's edge and its first lane. */
  const PAD = 2;
  const LABEL_FROM_PX = 26;
  const TEXT_PX = 11;
  /** How strong what the search did not find is drawn, and a pixel that is hardly busy. */
  const FAINT = 0.25;
  const FONT = "11px system-ui, sans-serif";
  const THEME = ["background", "text", "faint", "grid", "step", "select", "hit", "pick", "heading"];

  timeline.RULER = RULER;
  timeline.PAD = PAD;

  /**
   * @typedef {Object} Scene all that a picture shows
   * @property {Axis} axis
   * @property {Rows} rows
   * @property {number} scroll px
   * @property {Tiles} tiles
   * @property {Colors} colors
   * @property {Names} names
   * @property {State} state
   * @property {Object[]} steps
   * @property {?Object} hits of the search
   * @property {?Object} picked details of the picked item
   */

  timeline.Painter = class Painter {
    /** @param {HTMLCanvasElement} canvas */
    constructor(canvas) {
      this.canvas = canvas;
      this.context = canvas.getContext("2d", { alpha: false });
      this.widths = new Map();
      this.levels = new Map();
      this.width = 0;
      this.height = 0;
      this.restyle();
    }

    /** Read the theme's colours anew. */
    restyle() {
      const style = getComputedStyle(this.canvas);
      this.theme = {};
      for (const name of THEME) this.theme[name] = style.getPropertyValue(`--tl-${name}`).trim();
    }

    /** Give the canvas a size in CSS px, and as many pixels as the screen has. */
    resize(width, height) {
      const ratio = window.devicePixelRatio || 1;
      this.width = width;
      this.height = height;
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.height = `${height}px`;
      this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    }

    /** @param {Scene} scene @returns {{base: string}} what the ticks leave out */
    paint(scene) {
      this.scene = scene;
      const { context, theme } = this;
      context.globalAlpha = 1;
      context.fillStyle = theme.background;
      context.fillRect(0, 0, this.width, this.height);
      const ticks = scene.axis.ticks();
      const top = RULER + scene.rows.fixed;
      this.clipped(top, this.height, () => this.part(false, ticks));
      this.clipped(RULER, top, () => this.part(true, ticks));
      this.clipped(RULER, this.height, () => this.over());
      this.ruler(ticks);
      return ticks;
    }

    clipped(top, bottom, draw) {
      if (bottom <= top) return;
      this.context.save();
      this.context.beginPath();
      this.context.rect(0, top, this.width, bottom - top);
      this.context.clip();
      draw();
      this.context.restore();
    }

    /** Draw the pinned rows, or those that scroll. */
    part(pinned, ticks) {
      const { rows, scroll } = this.scene;
      this.context.fillStyle = this.theme.background;
      this.context.fillRect(0, 0, this.width, this.height);
      this.steps();
      this.grid(ticks);
      const seen = rows.seen(scroll, this.height - RULER);
      for (const place of seen) if (place.pinned === pinned) this.place(place);
      if (pinned) this.line(RULER + rows.fixed - 0.5, this.theme.faint);
    }

    line(y, color) {
      this.context.fillStyle = color;
      this.context.fillRect(0, y, this.width, 1);
    }

    steps() {
      const { axis, steps } = this.scene;
      steps.forEach((step, i) => {
        const [a, b] = this.span(step.start_ns, step.end_ns);
        if (b < 0 || a > this.width || b - a < 4) return;
        this.context.fillStyle = this.theme.step;
        if (i % 2 === 0) this.context.fillRect(a, RULER, b - a, this.height);
        this.context.fillStyle = this.theme.faint;
        this.context.fillRect(Math.round(axis.x(step.start_ns)), RULER, 1, this.height);
      });
    }

    grid({ ticks }) {
      this.context.fillStyle = this.theme.grid;
      for (const tick of ticks) this.context.fillRect(Math.round(tick.x), RULER, 1, this.height);
    }

    /** Return where a span begins and ends, cut a little outside of the picture. */
    span(from, to) {
      const { axis } = this.scene;
      return [Math.max(axis.x(from), -4), Math.min(axis.x(to), this.width + 4)];
    }

    /** Return where a place's upper edge is in the picture. */
    top(place) {
      return RULER + place.y - (place.pinned ? 0 : this.scene.scroll);
    }

    place(place) {
      const y = this.top(place);
      if (!place.row) {
        this.context.fillStyle = this.theme.heading;
        this.context.fillRect(0, y, this.width, place.height);
        return;
      }
      const tile = this.scene.tiles.get(place.row.id);
      if (!tile) return;
      this.context.globalAlpha = 1;
      this[tile.mode](tile, place, y + PAD);
      this.context.globalAlpha = 1;
      this.hits(place, y);
    }

    /** Return how a tile's px become those of the picture: x = shift + scale × px. */
    placed(tile) {
      const { axis } = this.scene;
      return [axis.x(tile.from), tile.nsPerPx / axis.nsPerPx];
    }

    /** Draw rectangles; those narrower than a pixel share it, as strong as it is busy. */
    items(tile, place, y) {
      const [shift, scale] = this.placed(tile);
      const { colors, state, hits } = this.scene;
      const color = colors.chooser(state.color, place.row, tile);
      const names = hits && hits.names;
      const isHit = (i) => !names || names.has(tile.name[i]);
      const height = Math.max(1, place.lane - 1);
      const narrow = new Narrow(this.context, height, color, isHit);
      for (let i = 0; i < tile.count; i += 1) {
        const a = Math.max(shift + scale * tile.x0[i], -2);
        const b = Math.min(shift + scale * tile.x1[i], this.width + 2);
        if (b < -1 || a > this.width) continue;
        const top = y + tile.lane[i] * place.lane;
        if (b - a < 1) narrow.add(i, a, b - a, top);
        else this.rectangle(a, b - a, top, height, color(i), isHit(i), tile.name[i]);
      }
      narrow.flush();
    }

    rectangle(a, wide, top, height, color, isHit, name) {
      const { context } = this;
      context.globalAlpha = isHit ? 1 : FAINT;
      context.fillStyle = color;
      context.fillRect(a, top, wide > 3 ? wide - 0.6 : wide, height);
      if (height >= TEXT_PX && wide >= LABEL_FROM_PX) this.label(name, a, wide, top, height);
    }

    /** Write a name into a rectangle, cut to its width. */
    label(id, a, wide, top, height) {
      const name = this.scene.names.get(id);
      if (!name) return;
      const left = Math.max(a, 0) + 4;
      const room = Math.min(a + wide, this.width) - left - 4;
      const text = this.fitted(name, room);
      if (!text) return;
      this.context.font = FONT;
      this.context.textBaseline = "middle";
      this.context.fillStyle = "#ffffff";
      this.context.fillText(text, left, top + height / 2 + 0.5, room);
    }

    fitted(name, room) {
      const text = name.length > 200 ? name.slice(0, 200) : name;
      let full = this.widths.get(text);
      if (full === undefined) {
        if (this.widths.size > 20_000) this.widths.clear();
        this.context.font = FONT;
        full = this.context.measureText(text).width;
        this.widths.set(text, full);
      }
      if (full <= room) return text;
      const kept = Math.floor(((room - 8) / full) * text.length);
      return kept < 2 ? "" : `${text.slice(0, kept)}…`;
    }

    bins(tile, place, y) {
      const [shift, scale] = this.placed(tile);
      const { colors, state, hits } = this.scene;
      const color = colors.chooser(state.color, place.row, tile);
      const first = Math.max(0, Math.floor(-shift / scale));
      const last = Math.min(tile.px, Math.ceil((this.width - shift) / scale));
      const most = hits ? FAINT : 1;
      const deep = (place.lane * place.row.lanes) / tile.lanes;
      const height = Math.max(1, deep - (deep > 3 ? 1 : 0));
      const { context } = this;
      for (let lane = 0; lane < tile.lanes; lane += 1) {
        const top = y + lane * deep;
        for (let column = first; column < last; column += 1) {
          const i = lane * tile.px + column;
          if (!tile.count[i]) continue;
          const a = Math.round(shift + column * scale);
          const b = Math.max(a + 1, Math.round(shift + (column + 1) * scale));
          context.globalAlpha = most * strength(tile.busy[i]);
          context.fillStyle = color(i);
          context.fillRect(a, top, b - a, height);
        }
      }
    }

    curve(tile, place, y) {
      const height = place.height - 2 * PAD - 2;
      const most = this.most(tile, place.row.id);
      const level = (bytes) => y + height * (1 - bytes / most);
      const { context, scene } = this;
      const palette = scene.colors;
      this.band(tile, tile.reserved_max, level, y + height, palette.placed(9), 0.25);
      this.band(tile, tile.allocated_max, level, y + height, palette.placed(0), 0.75);
      context.globalAlpha = 1;
      context.font = FONT;
      context.textBaseline = "middle";
      context.fillStyle = this.theme.text;
      const said = `up to ${timeline.format.size(most)}: allocated below, reserved behind`;
      context.fillText(said, 4, y + 8);
    }

    /** Return the largest value seen in a row so far: its scale does not jump back. */
    most(tile, row) {
      if (!tile.isMeasured) {
        const values = [tile.allocated_max, tile.reserved_max].flatMap((some) => [...some]);
        const most = values.reduce((a, b) => (b > a ? b : a), this.levels.get(row) || 1);
        this.levels.set(row, most);
        tile.isMeasured = true;
      }
      return this.levels.get(row);
    }

    /** Fill what lies between a curve of the largest values and a floor. */
    band(tile, values, level, floor, color, alpha) {
      const [shift, scale] = this.placed(tile);
      const { context } = this;
      context.globalAlpha = alpha;
      context.fillStyle = color;
      const wide = Math.max(1, Math.ceil(scale));
      for (let i = 0; i < values.length; i += 1) {
        const a = Math.round(shift + i * scale);
        if (a + wide < 0 || a > this.width || Number.isNaN(values[i])) continue;
        const b = Math.max(a + 1, Math.round(shift + (i + 1) * scale));
        const top = Math.min(level(values[i]), floor - 1);
        if (values[i] > 0) context.fillRect(a, top, b - a, floor - top);
      }
    }

    /** Mark along a row's upper edge where the search found something. */
    hits(place, y) {
      const { hits, axis } = this.scene;
      const bins = hits && hits.bins.get(place.row.id);
      if (!bins) return;
      const shift = axis.x(hits.from);
      const scale = (hits.to - hits.from) / hits.px / axis.nsPerPx;
      this.context.fillStyle = this.theme.hit;
      for (let i = 0; i < bins.length; i += 1) {
        if (!bins[i]) continue;
        this.context.fillRect(Math.round(shift + i * scale), y - 1, Math.max(2, scale), 4);
      }
    }

    /** Draw what lies over the rows: selection, marks, pick, arrows. */
    over() {
      const { state, picked, axis } = this.scene;
      if (state.sel) this.selection(state.sel);
      for (const mark of state.marks) this.upright(axis.x(mark), this.theme.hit, 1.5);
      if (!picked) return;
      this.outline(picked);
      for (const [from, to] of arrows(picked)) this.arrow(from, to);
    }

    upright(x, color, wide) {
      this.context.fillStyle = color;
      this.context.fillRect(Math.round(x), RULER, wide, this.height);
    }

    selection({ from, to }) {
      const [a, b] = this.span(from, to);
      this.context.globalAlpha = 0.18;
      this.context.fillStyle = this.theme.select;
      this.context.fillRect(a, RULER, b - a, this.height);
      this.context.globalAlpha = 1;
      this.upright(a, this.theme.select, 1);
      this.upright(b, this.theme.select, 1);
    }

    /** Return the rectangle of an item, or null where its row is not shown. */
    box(item) {
      const place = this.scene.rows.placeOf(item.row);
      if (!place) return null;
      const [a, b] = this.span(item.start_ns, item.end_ns);
      const lane = this.laneOf(item);
      const y = this.top(place) + PAD + (lane || 0) * place.lane;
      const height = lane === null ? place.height - 2 * PAD : place.lane;
      return { a, b: Math.max(b, a + 1), y, height: Math.max(2, height - 1) };
    }

    /** Return the lane of an item as far as the picture knows it, else null. */
    laneOf(item) {
      const tile = this.scene.tiles.get(item.row);
      const at = tile && tile.mode === "items" ? tile.item.indexOf(item.item) : -1;
      return at < 0 ? null : tile.lane[at];
    }

    outline(item) {
      const box = this.box(item);
      if (!box) return;
      this.context.strokeStyle = this.theme.pick;
      this.context.lineWidth = 2;
      this.context.strokeRect(box.a - 1.5, box.y - 1.5, box.b - box.a + 3, box.height + 3);
    }

    /** Draw an arrow from the API call to what it launched. */
    arrow(from, to) {
      const start = this.box(from);
      const end = this.box(to);
      if (!start || !end) return;
      const x0 = this.scene.axis.x(from.start_ns);
      const x1 = this.scene.axis.x(to.start_ns);
      if (Math.max(x0, x1) < -5000 || Math.min(x0, x1) > this.width + 5000) return;
      const down = end.y > start.y;
      const y0 = down ? start.y + start.height : start.y;
      const y1 = down ? end.y : end.y + end.height;
      const { context } = this;
      context.strokeStyle = context.fillStyle = this.theme.pick;
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(x0, y0);
      context.bezierCurveTo(x0, (y0 + y1) / 2, x1, (y0 + y1) / 2, x1, y1);
      context.stroke();
      const back = down ? -7 : 7;
      context.beginPath();
      context.moveTo(x1, y1);
      context.lineTo(x1 - 4, y1 + back);
      context.lineTo(x1 + 4, y1 + back);
      context.fill();
    }

    ruler({ ticks }) {
      const { context, theme, scene } = this;
      context.globalAlpha = 1;
      context.fillStyle = theme.heading;
      context.fillRect(0, 0, this.width, RULER);
      context.font = FONT;
      context.textBaseline = "middle";
      this.stepNames();
      context.fillStyle = theme.text;
      for (const tick of ticks) {
        context.fillRect(Math.round(tick.x), RULER - 6, 1, 6);
        context.fillText(tick.label, Math.round(tick.x) + 4, RULER - 10);
      }
      const { sel } = scene.state;
      if (sel) this.measure(sel);
      this.line(RULER - 1, theme.faint);
    }

    /** Write on the ruler's upper half, on a ground of its own. */
    tag(text, x, color) {
      const { context, theme } = this;
      const wide = context.measureText(text).width + 8;
      const left = Math.min(Math.max(0, x - 4), this.width - wide);
      context.fillStyle = theme.heading;
      context.fillRect(left, 0, wide, 18);
      context.fillStyle = color;
      context.fillText(text, left + 4, 10);
    }

    stepNames() {
      const { context, theme, scene } = this;
      for (const step of scene.steps) {
        const [a, b] = this.span(step.start_ns, step.end_ns);
        if (b < 0 || a > this.width || b - a < 12) continue;
        context.fillStyle = theme.step;
        context.fillRect(a, 1, b - a - 1, 17);
        const left = Math.max(a, 0) + 4;
        const room = Math.min(b, this.width) - left - 4;
        const text = this.fitted(step.name || `step ${step.step}`, room);
        context.fillStyle = theme.text;
        if (text) context.fillText(text, left, 10);
      }
    }

    measure({ from, to }) {
      const [a, b] = this.span(from, to);
      this.context.fillStyle = this.theme.select;
      this.context.fillRect(a, RULER - 3, b - a, 3);
      const text = timeline.format.time(Math.round(to - from));
      this.tag(text, (a + b) / 2 - this.context.measureText(text).width / 2, this.theme.select);
    }
  };

  /** Return how strong a pixel is drawn that is busy for a part of it; never invisible. */
  function strength(busy) {
    return FAINT + (1 - FAINT) * Math.min(1, busy);
  }

  /** Gathers items that are narrower than a pixel, pixel by pixel, and draws each pixel once. */
  class Narrow {
    constructor(context, height, color, isHit) {
      Object.assign(this, { context, height, color, isHit, x: null, top: 0 });
    }

    add(i, a, wide, top) {
      const x = Math.floor(a);
      if (x !== this.x || top !== this.top) {
        this.flush();
        Object.assign(this, { x, top, busy: 0, best: i, widest: -1 });
      }
      this.busy += wide;
      const rank = wide + (this.isHit(i) ? 1 : 0);
      if (rank > this.widest) Object.assign(this, { best: i, widest: rank });
    }

    flush() {
      if (this.x === null) return;
      this.context.globalAlpha = strength(this.busy) * (this.isHit(this.best) ? 1 : FAINT);
      this.context.fillStyle = this.color(this.best);
      this.context.fillRect(this.x, this.top, 1, this.height);
      this.x = null;
    }
  }

  /** Return pairs (call, work) of what launched an item, or what the item launched. */
  function arrows(picked) {
    if (picked.launch && picked.launch.row) return [[picked.launch, picked]];
    return (picked.launched || []).filter((work) => work.row).map((work) => [picked, work]);
  }
})(window.tracelens.timeline);
