// The timeline as a whole: its state, its parts, and what each of them asks of the others.
"use strict";

(function (timeline) {
  const LAYOUT = ["hidden", "pinned", "closed", "turned", "filter"];

  timeline.Timeline = class Timeline {
    /** @param {HTMLElement} place the container on the page */
    constructor(place) {
      this.place = place;
      this.run = place.dataset.runId;
      this.server = new timeline.Server(this.run, () => this.stirred());
      this.leaving = new AbortController();
      this.frame = null;
      this.picked = null;
      this.pointer = null;
      this.isComplete = false;
      this.needsLabels = false;
    }

    async start() {
      try {
        const known = await this.server.json("rows");
        if (!this.leaving.signal.aborted) this.build(known);
      } catch (error) {
        if (error.name !== "AbortError") this.fail(error.message);
      }
    }

    stop() {
      this.leaving.abort();
      this.server.stop();
      cancelAnimationFrame(this.frame);
      for (const part of [this.url, this.tiles, this.input, this.search, this.tip]) {
        if (part) part.stop();
      }
      if (this.watch) this.watch.disconnect();
    }

    fail(message) {
      this.place.replaceChildren(timeline.el("p", { class: "nothing", role: "alert" }, message));
    }

    build(known) {
      const redraw = () => this.draw();
      this.known = known;
      this.axis = new timeline.Axis(known.start_ns, known.end_ns);
      this.rows = new timeline.Rows(known.rows);
      this.colors = new timeline.Colors(known);
      this.names = new timeline.Names(this.server, redraw);
      this.tiles = new timeline.Tiles(this.server, redraw, (message) => this.say(message));
      this.url = new timeline.Url((state) => this.restore(state));
      this.search = new timeline.Search(this);
      this.buildView();
      this.input = new timeline.Input(this);
      this.input.start();
      this.listen();
      this.restore(this.url.read());
    }

    buildView() {
      const { el } = timeline;
      this.canvas = el("canvas", {
        class: "tl-canvas",
        tabindex: "0",
        role: "img",
        "aria-label": "Timeline. Arrow keys step from kernel to kernel; the tables below say the same.",
      });
      this.labels = new timeline.Labels(this);
      this.tip = new timeline.Tip(this);
      this.toolbar = new timeline.Toolbar(this);
      this.panel = new timeline.Panel(this);
      this.view = el("div", { class: "tl-view" }, this.canvas, this.tip.root);
      this.stage = el("div", { class: "tl-stage" }, this.labels.root, this.view);
      this.status = el("p", { class: "tl-status", role: "alert", hidden: true });
      const parts = [this.toolbar.root, this.status, this.stage, this.panel.root];
      this.place.replaceChildren(...parts);
      this.painter = new timeline.Painter(this.canvas);
    }

    listen() {
      const { signal } = this.leaving;
      this.stage.addEventListener("scroll", () => this.draw(), { signal });
      window.addEventListener("tracelens:scheme", () => this.restyle(), { signal });
      this.watch = new ResizeObserver(() => this.resized());
      this.watch.observe(this.stage);
    }

    say(message) {
      this.status.textContent = message;
      this.status.hidden = !message;
    }

    /** Tell readers, and tests, whether something is still under way. */
    stirred() {
      if (!this.search) return;
      const waits = timeline.pending > 0 || this.frame !== null || !this.isComplete;
      const isBusy = waits || this.tiles.timer !== null || this.search.timer !== null;
      this.place.setAttribute("aria-busy", String(isBusy));
    }

    // State

    /** Take over a state out of the URL. */
    restore(state) {
      this.state = state;
      const { axis } = this;
      axis.show(state.from ?? axis.start, state.to ?? axis.end);
      this.arrange();
      this.toolbar.show();
      this.resized();
      if (state.pick) this.load(state.pick);
      else this.setPicked(null);
      if (state.sel) this.panel.open("range");
      else if (this.panel.tab === "range") this.panel.open(null);
    }

    /** Change the state, and write it into the URL. */
    change(changes) {
      Object.assign(this.state, changes);
      if (LAYOUT.some((name) => name in changes)) this.arrange();
      this.toolbar.show();
      this.url.write(this.state);
      this.draw();
    }

    /** Put something into one of the state's sets, or take it out. */
    turn(name, value) {
      const set = new Set(this.state[name]);
      if (!set.delete(value)) set.add(value);
      this.change({ [name]: set });
    }

    /** Move the window in view. */
    move(act) {
      act(this.axis);
      this.sync();
      this.url.write(this.state);
      this.draw();
    }

    /** Move the window in view deliberately: the back button undoes it. */
    jump(act, changes) {
      const before = { ...this.state };
      act(this.axis);
      Object.assign(this.state, changes || {});
      this.sync();
      this.url.push(before, this.state);
      this.draw();
    }

    sync() {
      const { axis, state } = this;
      state.from = axis.isWhole ? null : axis.from;
      state.to = axis.isWhole ? null : axis.to;
    }

    arrange() {
      this.rows.arrange(this.state);
      // The stage is as high as its rows where there is room for them.
      this.stage.style.flexBasis = `${this.rows.height + timeline.RULER + 2}px`;
      this.needsLabels = true;
    }

    // Picking

    async load({ row, item }) {
      try {
        const details = await this.server.json("item", { row, item });
        const { pick } = this.state;
        if (pick && pick.row === row && pick.item === item) this.setPicked(details);
      } catch (error) {
        if (error.name !== "AbortError") this.say(error.message);
      }
    }

    setPicked(details) {
      this.picked = details;
      if (details && this.panel.tab !== "item") this.panel.open("item");
      else if (this.panel.tab === "item") this.panel.show();
      if (details) this.scrollTo(details.row);
      this.draw();
    }

    /** Pick an item, or null for none. */
    pick(pick) {
      this.change({ pick });
      if (pick) this.load(pick);
      else this.setPicked(null);
    }

    /** Pick what comes next, and bring it into view. */
    async goTo(query) {
      try {
        this.say("");
        const details = await this.server.json("next", query);
        if (details.row) this.visit(details, !query.q);
        else this.say(query.direction > 0 ? "There is none after this." : "There is none before this.");
      } catch (error) {
        if (error.name !== "AbortError") this.say(error.message);
      }
    }

    /** Show an item; a step to the next one is no jump. */
    visit(details, isStep) {
      const pick = { row: details.row, item: details.item };
      const show = (axis) => axis.reveal(details.start_ns, details.end_ns);
      if (isStep) {
        this.state.pick = pick;
        this.move(show);
      } else this.jump(show, { pick });
      this.load(pick);
    }

    scrollTo(row) {
      const place = this.rows.placeOf(row);
      if (!place || place.pinned) return;
      const height = this.stage.clientHeight - timeline.RULER;
      const { scrollTop } = this.stage;
      const isSeen = place.y >= scrollTop + this.rows.fixed && place.y + place.lane < scrollTop + height;
      if (!isSeen) this.stage.scrollTop = Math.max(0, place.y - height / 2);
    }

    /** Step to the next (1) or last (-1) item of the picked row, or of the first GPU row. */
    step(direction) {
      const { picked, axis } = this;
      if (picked) {
        const { row, item, start_ns: ns } = picked;
        return this.goTo({ row, item, ns, direction });
      }
      const [row] = this.streams();
      const ns = Math.round(direction > 0 ? axis.from - 1 : axis.to);
      return row === undefined ? undefined : this.goTo({ row, ns, direction });
    }

    /** Return the ids of all rows that are shown, folded groups included. */
    shown() {
      return this.rows.all.map((row) => row.id).filter((id) => !this.state.hidden.has(id));
    }

    /** Return the ids of the GPU rows that are shown. */
    streams() {
      const shown = this.rows.all.filter((row) => row.kind === "stream");
      return shown.filter((row) => !this.state.hidden.has(row.id)).map((row) => row.id);
    }

    click(x, y) {
      const found = y < timeline.RULER ? null : timeline.find(this.scene(), x, y - timeline.RULER);
      if (found && found.kind === "item") return this.pick({ row: found.place.row.id, item: found.item });
      if (found && found.kind === "bin") {
        const ns = Math.floor(this.axis.ns(Math.floor(x))) - 1;
        return this.goTo({ row: found.place.row.id, ns, direction: 1 });
      }
      return this.pick(null);
    }

    // Ranges, marks, the whole

    fit() {
      const { picked, state, axis } = this;
      const span = picked ? [picked.start_ns, picked.end_ns] : state.sel && [state.sel.from, state.sel.to];
      const margin = span ? Math.max((span[1] - span[0]) * 0.25, 50) : 0;
      const isThere = span && Math.abs(axis.span - (span[1] - span[0] + 2 * margin)) < 2;
      if (!span || isThere) this.jump((whole) => whole.fit());
      else this.jump((part) => part.show(span[0] - margin, span[1] + margin));
    }

    /** Select a span of time; `done` once the pointer lets go. */
    select(a, b, done) {
      const { axis } = this;
      const from = Math.max(axis.start, Math.round(Math.min(a, b)));
      const to = Math.min(axis.end, Math.round(Math.max(a, b)));
      this.change({ sel: { from, to } });
      if (done) this.panel.open("range");
    }

    /** Select the span of what is picked; otherwise the next drag selects. */
    selectPick() {
      const { picked } = this;
      if (picked) this.select(picked.start_ns, picked.end_ns, true);
      else this.input.setSelects(!this.input.selects);
    }

    mark() {
      const x = this.pointer ? this.pointer.x : this.axis.px / 2;
      const near = 4 * this.axis.nsPerPx;
      const ns = this.axis.ns(x);
      const kept = this.state.marks.filter((mark) => Math.abs(mark - ns) > near);
      const marks = kept.length < this.state.marks.length ? kept : [...kept, ns];
      this.change({ marks });
    }

    /** Take back one thing after the other: the drag's mode, the range, the pick, the search. */
    escape() {
      const { state, input } = this;
      if (input.selects) return input.setSelects(false);
      if (state.sel) {
        this.change({ sel: null });
        return this.panel.open(this.picked ? "item" : null);
      }
      if (state.pick) {
        this.pick(null);
        return this.panel.open(null);
      }
      return this.change({ q: "" });
    }

    // The picture

    get overflows() {
      return this.stage.scrollHeight > this.stage.clientHeight + 1;
    }

    get pointerX() {
      return this.pointer ? this.pointer.x : null;
    }

    isAt(at) {
      return this.pointer === at;
    }

    hover(at) {
      this.pointer = at;
      const found = at && at.y >= timeline.RULER ? this.findAt(at) : null;
      this.tip.show(found, at);
      this.canvas.classList.toggle("tl-over", Boolean(found && found.kind === "item"));
      this.draw();
    }

    findAt({ x, y }) {
      return timeline.find(this.scene(), x, y - timeline.RULER);
    }

    searched() {
      this.toolbar.showFound();
      this.draw();
    }

    restyle() {
      this.painter.restyle();
      this.draw();
    }

    resized() {
      const width = this.view.clientWidth;
      const height = this.stage.clientHeight;
      if (!width || !height) return;
      if (width !== this.painter.width || height !== this.painter.height) {
        this.painter.resize(width, height);
        this.axis.px = width;
      }
      this.draw();
    }

    scene() {
      return {
        axis: this.axis,
        rows: this.rows,
        scroll: this.stage.scrollTop,
        tiles: this.tiles,
        colors: this.colors,
        names: this.names,
        state: this.state,
        steps: this.known.steps,
        hits: this.search.hits,
        picked: this.picked,
        cursor: this.pointerX,
      };
    }

    /** Draw in the next frame. */
    draw() {
      if (this.frame !== null || this.leaving.signal.aborted) return;
      this.frame = requestAnimationFrame(() => {
        this.frame = null;
        this.paint();
        this.stirred();
      });
      this.stirred();
    }

    paint() {
      if (this.needsLabels) {
        this.needsLabels = false;
        this.labels.show();
      }
      if (!this.painter.width) return;
      this.labels.showBase(this.painter.paint(this.scene()).base);
      const rows = this.rowsInView();
      this.tiles.want(this.axis, rows);
      this.search.want();
      this.names.fetch();
      this.toolbar.showWhere();
      this.toolbar.showLegend(rows.map((row) => this.tiles.get(row)).filter(Boolean));
      const isComplete = this.tiles.isComplete(this.axis, rows);
      if (isComplete) timeline.drawn += 1;
      if (isComplete) this.panel.moved();
      this.isComplete = isComplete;
    }

    rowsInView() {
      const height = this.stage.clientHeight;
      const seen = this.rows.seen(this.stage.scrollTop - height / 2, height * 2);
      return seen.filter((place) => place.row).map((place) => place.row.id);
    }

    /** Return up to `most` items of GPU rows in view, by start; null where only sums are known. */
    itemsInView(most) {
      const items = [];
      for (const id of this.streams()) {
        const tile = this.tiles.get(id);
        if (!tile) continue;
        if (tile.mode !== "items") return null;
        items.push(...this.itemsOf(tile, id));
      }
      return items.sort((a, b) => a.x0 - b.x0).slice(0, most + 1);
    }

    itemsOf(tile, row) {
      const { axis } = this;
      const items = [];
      for (let i = 0; i < tile.count; i += 1) {
        const x0 = axis.x(tile.from + tile.x0[i] * tile.nsPerPx);
        const x1 = axis.x(tile.from + tile.x1[i] * tile.nsPerPx);
        if (x1 < 0 || x0 > axis.px) continue;
        items.push({ row, tile, i, x0, x1 });
      }
      return items;
    }
  };
})(window.tracelens.timeline);
