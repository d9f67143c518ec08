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
      for (const part of [this.url, this.tiles, this.input, this.search, this.tip, this.panel]) {
        if (part) part.stop();
      }
      if (this.watch) this.watch.disconnect();
    }

    fail(message) {
      this.place.replaceChildren(timeline.el("p", { class: "nothing", role: "alert" }, message));
    }

    build(known) {
      const redraw = () => this.draw();
      const [first] = known.steps;
      this.steps = known.steps.filter((step) => step.pid === first.pid);
      this.axis = new timeline.Axis(known.start_ns, known.end_ns);
      this.rows = new timeline.Rows(known.rows);
      this.colors = new timeline.Colors(known);
      this.names = new timeline.Names(this.server, redraw);
      this.tiles = new timeline.Tiles(this.server, redraw, (problem) => this.say(problem));
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
        "aria-label": "Timeline. Arrow keys step from kernel to kernel; tables below say the same.",
      });
      this.cursor = el("div", { class: "tl-cursor", hidden: true });
      this.labels = new timeline.Labels(this);
      this.tip = new timeline.Tip(this);
      this.toolbar = new timeline.Toolbar(this);
      this.panel = new timeline.Panel(this);
      this.view = el("div", { class: "tl-view" }, this.canvas, this.cursor, this.tip.root);
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

    /** Tell readers, and tests, whether something is still under way: once nothing follows. */
    stirred() {
      if (this.isBusy()) this.place.setAttribute("aria-busy", "true");
      else requestAnimationFrame(() => this.rest());
    }

    rest() {
      if (!this.isBusy()) this.place.setAttribute("aria-busy", "false");
    }

    isBusy() {
      if (!this.search) return true;
      const waits = timeline.pending > 0 || this.frame !== null || !this.isComplete;
      return waits || this.tiles.timer !== null || this.search.timer !== null;
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
      if (state.pick) this.load(state.pick, !state.sel);
      else this.setPicked(null);
      if (state.sel) this.panel.open("range");
      else if (this.panel.tab === "range") this.panel.show();
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
      this.say("");
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

    /** Ask for the details of what is picked; `shows`: open the panel on them. */
    async load({ row, item }, shows = true) {
      try {
        const details = await this.server.json("item", { row, item });
        const { pick } = this.state;
        if (pick && pick.row === row && pick.item === item) this.setPicked(details, shows);
      } catch (error) {
        if (error.name !== "AbortError") this.say(error.message);
      }
    }

    setPicked(details, shows = true) {
      this.picked = details;
      if (details && shows && this.panel.tab !== "item") this.panel.open("item");
      else if (this.panel.tab === "item") this.panel.show();
      if (details) this.scrollTo(details.row);
      this.draw();
    }

    /** Pick an item, or null for none. */
    pick(pick) {
      this.say("");
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
        else this.say(`There is none ${query.direction > 0 ? "after" : "before"} this.`);
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
      const isBelow = place.y + place.lane > scrollTop + height;
      if (!isBelow && place.y >= scrollTop + this.rows.fixed) return;
      this.stage.scrollTop = Math.max(0, place.y - height / 2);
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
      const row = found && found.place.row.id;
      if (found && found.kind === "item") return this.pick({ row, item: found.item });
      if (found && found.kind === "bin") {
        const ns = Math.floor(this.axis.ns(Math.floor(x))) - 1;
        return this.goTo({ row, ns, direction: 1 });
      }
      return this.pick(null);
    }

    // Ranges, marks, the whole

    /** Show what is picked, else what is selected; where that is in view, or neither, all. */
    fit() {
      const { picked, state, axis } = this;
      const { sel } = state;
      const span = picked ? { from: picked.start_ns, to: picked.end_ns } : sel;
      if (!span) return this.jump(() => axis.fit());
      const margin = Math.max((span.to - span.from) * 0.25, 50);
      const from = Math.max(axis.start, span.from - margin);
      const to = Math.min(axis.end, span.to + margin);
      const isThere = Math.abs(axis.from - from) < 2 && Math.abs(axis.to - to) < 2;
      return this.jump(() => (isThere ? axis.fit() : axis.show(from, to)));
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
      else this.selectByDrag();
    }

    selectByDrag() {
      this.input.setSelects(!this.input.selects);
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
        return this.picked ? this.panel.open("item") : this.panel.show();
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
      this.cursor.hidden = !at;
      if (at) this.cursor.style.transform = `translateX(${Math.round(at.x)}px)`;
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
        steps: this.steps,
        hits: this.search.hits,
        picked: this.picked,
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
      for (const id of this.rowsInView()) {
        const tile = this.tiles.get(id);
        if (!tile || this.rows.byId.get(id).kind !== "stream") continue;
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
