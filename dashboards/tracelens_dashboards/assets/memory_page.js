// The memory page: what its URL says is asked of the server, drawn, and linked with one another.
(function () {
  "use strict";
  const STATE = ["x", "from", "to", "by", "group", "lives", "at"];
  const WAIT_MS = 70;
  const HOVER_MS = 150;
  const CLICK_PX = 4;
  const MOST_EVENTS = 100;
  let page = null;

  class Page {
    constructor(root) {
      this.kit = window.tracelensMemory;
      this.root = root;
      this.api = "/api/memory/" + root.dataset.recording + "/";
      this.ends = new AbortController();
      this.ask = Object.fromEntries(
        ["course", "lifetimes", "segments"].map((name) => [name, this.kit.asker()]),
      );
      this.course = this.lives = this.segments = null;
      this.chosen = { lives: -1, segments: -1 };
      this.facts = new Map();
      this.told = new Map();
      this.timer = this.hovering = 0;
      this.read();
      this.listen();
      this.load(true);
    }

    part(name) {
      return document.getElementById("memory-" + name);
    }

    end() {
      this.ends.abort();
      this.resized.disconnect();
      window.clearTimeout(this.timer);
      window.clearTimeout(this.hovering);
    }

    // The address

    read() {
      const said = window.tracelens.url.read();
      this.state = Object.fromEntries(STATE.map((name) => [name, said[name] || null]));
      this.view = null;
    }

    write(changes, push) {
      Object.assign(this.state, changes);
      window.tracelens.url.write(changes, push);
    }

    query() {
      const width = this.root.clientWidth - this.kit.LEFT - this.kit.RIGHT;
      const asked = { device: this.root.dataset.device, width: Math.max(100, width) };
      for (const name of STATE) if (this.state[name] !== null) asked[name] = this.state[name];
      return asked;
    }

    // Asking and drawing

    async load(all) {
      const canvas = this.part("course");
      const asked = this.query();
      asked.width = canvas.parentElement.clientWidth - this.kit.LEFT - this.kit.RIGHT;
      const waiting = [this.loadCourse(asked)];
      if (this.part("lifetimes")) waiting.push(this.loadLives(asked));
      if (all && this.part("segments")) waiting.push(this.loadSegments(asked));
      await Promise.all(waiting);
    }

    async loadCourse(asked) {
      const data = await this.ask.course(this.api + "course", asked);
      if (!data || data.error) return;
      this.course = data;
      if (!this.moving) this.view = { axis: data.axis, from: data.from, to: data.to };
      this.drawCourse();
      this.drawLives();
      this.kit.drawLegend(this.part("legend"), data);
      this.part("range").textContent = this.rangeText();
      this.count("course");
    }

    async loadLives(asked) {
      const data = await this.ask.lifetimes(this.api + "lifetimes", asked);
      if (!data || data.error) return;
      this.lives = data;
      this.layout = this.kit.arrange(data);
      this.chosen.lives = data.row.indexOf(this.row);
      this.drawLives();
      const shown = this.kit.text("count", data.row.length);
      const rest = data.blocks - data.row.length;
      this.part("lifetimes-said").textContent = rest
        ? `The ${shown} largest blocks of this part one by one; ` +
          `${this.kit.text("count", rest)} smaller ones (up to ` +
          `${this.kit.text("bytes", data.smallest)}) together, by category, in stripes on top.`
        : `All ${shown} blocks of this part, one by one.`;
      this.count("lifetimes");
    }

    async loadSegments(asked) {
      const data = await this.ask.segments(this.api + "segments", asked);
      if (!data || data.error) return;
      this.segments = data;
      this.drawSegments();
      const text = this.kit.text;
      this.part("segments-said").textContent =
        `${text("count", data.begin.length)} segments of ${text("bytes", data.reserved)}; ` +
        `${text("count", data.blocks)} live blocks of ${text("bytes", data.active)}; ` +
        `a line is ${text("bytes", this.map.scale * this.part("segments").clientWidth)}.`;
      this.count("segments");
    }

    drawCourse() {
      if (this.course && this.view) this.kit.drawCourse(this.part("course"), this.course, this.view);
    }

    drawLives() {
      if (!this.lives || !this.view) return;
      this.kit.drawLifetimes(
        this.part("lifetimes"), this.lives, this.layout, this.view, this.chosen.lives,
      );
    }

    drawSegments() {
      const canvas = this.part("segments");
      if (!this.segments || !canvas) return;
      this.map = this.kit.arrangeSegments(this.segments, canvas.parentElement.clientWidth);
      this.kit.drawSegments(canvas, this.segments, this.map, this.chosen.segments);
    }

    redraw() {
      this.drawCourse();
      this.drawLives();
      this.drawSegments();
    }

    count(name) {
      const key = name + "Drawn";
      this.root.dataset[key] = String(Number(this.root.dataset[key] || 0) + 1);
    }

    rangeText() {
      const { from, to, axis } = this.view;
      const unit = axis === "time" ? "ns" : "count";
      const length = axis === "time" ? to - from : Math.round(to - from);
      const what = axis === "time" ? "" : " events";
      return this.kit.text(unit, length) + what + " shown";
    }

    // Moving along the axis

    moved() {
      this.moving = true;
      this.drawCourse();
      this.drawLives();
      this.kit.untip(this.part("tip"));
      window.clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.settle(false), WAIT_MS);
    }

    settle(push) {
      const [first, last] = this.course.extent;
      const whole = this.view.from <= first && this.view.to >= last;
      const digits = this.view.axis === "time" ? 0 : 2;
      this.moving = false;
      this.write(
        {
          from: whole ? null : this.view.from.toFixed(digits),
          to: whole ? null : this.view.to.toFixed(digits),
        },
        push,
      );
      this.load(false);
    }

    // Zoom by a factor around a place; tells whether anything changed.
    zoom(factor, middle) {
      const [first, last] = this.course.extent;
      const span = this.view.to - this.view.from;
      const wanted = Math.min(last - first, Math.max(10, span * factor));
      if (Math.abs(wanted - span) < 1e-6) return false;
      const from = middle - ((middle - this.view.from) / span) * wanted;
      this.show(from, from + wanted);
      return true;
    }

    show(from, to) {
      const [first, last] = this.course.extent;
      const span = Math.min(to - from, last - first);
      const begin = Math.min(Math.max(from, first), last - span);
      this.view = { axis: this.view.axis, from: begin, to: begin + span };
      this.moved();
    }

    shift(part) {
      const by = (this.view.to - this.view.from) * part;
      this.show(this.view.from + by, this.view.to + by);
    }

    // The moment

    moveTo(at) {
      this.write({ at: at }, true);
      window.dash_clientside.set_props("memory-moment", { data: this.query() });
      const asked = this.query();
      asked.width = this.part("course").parentElement.clientWidth - this.kit.LEFT - this.kit.RIGHT;
      this.loadCourse(asked);
      this.chosen.segments = -1;
      if (this.part("segments")) this.loadSegments(asked);
    }

    step(by) {
      if (!this.course) return;
      const last = Number(this.root.dataset.events) - 1;
      const index = Math.min(last, this.course.cursor.index + by);
      this.moveTo(index < 0 ? "start" : String(index));
    }

    // Blocks

    // Asked once, whether the pointer rests on a block or clicks it.
    details(row) {
      if (!this.told.has(row)) {
        const ask = this.kit.asker();
        const coming = ask(this.api + "block/" + row, { device: this.root.dataset.device });
        this.told.set(row, coming.then((told) => {
          if (!told || told.error) return null;
          this.facts.set(row, told);
          return told;
        }));
      }
      return this.told.get(row);
    }

    async tell(box, row) {
      const told = await this.details(row);
      if (!told || !box) return;
      const element = this.kit.element;
      const list = element("dl", "memory-facts");
      for (const [name, value] of told.facts) {
        list.append(element("dt", "", name), element("dd", "", value));
      }
      const stack = element("pre", "", told.stack.join("\n") || "No call stack was recorded for it.");
      const go = element("button", "memory-button", "What was live when it was allocated");
      go.addEventListener("click", () => this.moveTo(told.begun < 0 ? "start" : String(told.begun)));
      box.replaceChildren(list, stack, go);
    }

    // Listening

    listen() {
      const on = (target, name, does, more) =>
        target.addEventListener(name, does.bind(this), { signal: this.ends.signal, ...more });
      for (const name of ["course", "lifetimes"]) {
        const canvas = this.part(name);
        if (!canvas) continue;
        on(canvas, "wheel", this.onWheel, { passive: false });
        on(canvas, "pointerdown", this.onDown);
        on(canvas, "pointermove", name === "course" ? this.onCourse : this.onLives);
        on(canvas, "pointerleave", () => this.leave());
      }
      const segments = this.part("segments");
      if (segments) {
        on(segments, "pointermove", this.onSegments);
        on(segments, "pointerleave", () => this.leave());
        on(segments, "click", this.onSegmentClick);
      }
      on(this.part("fit"), "click", () => this.fit());
      on(this.root, "click", this.onClick);
      on(this.root, "pointerover", this.onOver);
      on(this.root, "keydown", this.onTileKey);
      on(document, "keydown", this.onKey);
      on(window, "tracelens:scheme", () => this.redraw());
      on(window, "tracelens:url", () => this.back());
      let width = this.root.clientWidth;
      this.resized = new ResizeObserver(() => {
        if (Math.abs(this.root.clientWidth - width) < 2) return;
        width = this.root.clientWidth;
        this.redraw();
        this.load(false);
      });
      this.resized.observe(this.root);
    }

    place(event) {
      const box = event.currentTarget.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    }

    at(event) {
      const canvas = event.currentTarget;
      return this.kit.scale(this.view, canvas.parentElement.clientWidth).at(this.place(event)[0]);
    }

    onWheel(event) {
      if (!this.course || !this.view) return;
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
        this.shift(((event.deltaX || event.deltaY) / 1000) * 0.8);
        event.preventDefault();
        return;
      }
      const turns = event.deltaY / (event.deltaMode === 1 ? 3 : 100);
      // Where there is nothing to zoom out of, the page scrolls.
      if (this.zoom(1.25 ** Math.max(-4, Math.min(4, turns)), this.at(event))) event.preventDefault();
    }

    onDown(event) {
      if (event.button !== 0 || !this.course) return;
      const canvas = event.currentTarget;
      const isCourse = canvas.id === "memory-course";
      const begun = event.clientX;
      const view = this.view;
      const inner = canvas.parentElement.clientWidth - this.kit.LEFT - this.kit.RIGHT;
      const ends = new AbortController();
      let far = false;
      canvas.setPointerCapture(event.pointerId);
      const move = (later) => {
        far = far || Math.abs(later.clientX - begun) > CLICK_PX;
        if (!far) return;
        const by = ((begun - later.clientX) / inner) * (view.to - view.from);
        this.show(view.from + by, view.to + by);
      };
      const up = (later) => {
        ends.abort();
        if (!far && later.type === "pointerup") {
          if (isCourse) this.clickCourse(later);
          else this.clickLives(later);
        }
      };
      canvas.addEventListener("pointermove", move, { signal: ends.signal });
      canvas.addEventListener("pointerup", up, { signal: ends.signal });
      canvas.addEventListener("pointercancel", up, { signal: ends.signal });
    }

    clickCourse(event) {
      const x = this.at(event);
      if (x < this.view.from || x > this.view.to) return;
      const index = this.course.index[this.kit.pixelOf(this.course, x)];
      this.moveTo(index < 0 ? "start" : String(index));
    }

    clickLives(event) {
      const hit = this.under(event);
      this.chosen.lives = hit && hit.block >= 0 ? hit.block : -1;
      this.row = this.chosen.lives < 0 ? null : this.lives.row[this.chosen.lives];
      this.drawLives();
      if (this.row === null) this.part("block").replaceChildren();
      else this.tell(this.part("block"), this.row);
    }

    onCourse(event) {
      if (!this.course || event.buttons) return;
      const x = this.at(event);
      if (x < this.view.from || x > this.view.to) return this.leave();
      const told = this.kit.hoverCourse(this.course, x);
      this.kit.tip(this.part("tip"), event, told.title, told.lines);
    }

    under(event) {
      const [x, y] = this.place(event);
      return this.lives && this.kit.findLifetime(this.part("lifetimes"), this.lives, this.layout, this.view, x, y);
    }

    onLives(event) {
      if (!this.lives || event.buttons) return;
      const hit = this.under(event);
      if (!hit) return this.leave();
      const tip = this.part("tip");
      if (hit.band) {
        const size = this.kit.text("bytes", hit.held);
        this.kit.tip(tip, event, size, [[hit.band.colour, hit.band.name + ", smaller blocks together", ""]]);
        return;
      }
      this.hoverBlock(tip, event, this.lives, hit.block, this.lives.row[hit.block], this.lives.size[hit.block]);
    }

    onSegments(event) {
      if (!this.segments || !this.map) return;
      const hit = this.kit.findSegment(this.segments, this.map, ...this.place(event));
      if (!hit) return this.leave();
      const tip = this.part("tip");
      const text = this.kit.text;
      const segment = [null, "segment", text("bytes", this.segments.size[hit.segment])];
      if (hit.block < 0) {
        this.kit.tip(tip, event, "free", [segment]);
        return;
      }
      const size = this.segments.length[hit.block];
      this.hoverBlock(tip, event, this.segments, hit.block, this.segments.row[hit.block], size, [segment]);
    }

    // What is known at once, and, where the pointer rests, what the server knows.
    hoverBlock(tip, event, data, block, row, size, more) {
      const code = data.category[block];
      const title = this.kit.text("bytes", size);
      const lines = [[data.colours[code], data.names[code], ""], ...(more || [])];
      const known = this.facts.get(row);
      const rest = (told) => [
        ...told.facts.filter(([name]) => name !== "Size" && name !== "Category").map(([name, value]) => [null, name, value]),
        ...told.stack.slice(0, 3).map((frame) => [null, frame, ""]),
      ];
      this.kit.tip(tip, event, title, known ? [...lines, ...rest(known)] : lines);
      window.clearTimeout(this.hovering);
      if (known || row < 0) return;
      const { clientX, clientY } = event;
      this.hovering = window.setTimeout(async () => {
        const told = await this.details(row);
        if (told && tip.style.display === "block") {
          this.kit.tip(tip, { clientX, clientY }, title, [...lines, ...rest(told)]);
        }
      }, HOVER_MS);
    }

    onSegmentClick(event) {
      if (!this.segments || !this.map) return;
      const hit = this.kit.findSegment(this.segments, this.map, ...this.place(event));
      this.chosen.segments = hit ? hit.block : -1;
      this.drawSegments();
      const row = this.chosen.segments < 0 ? -1 : this.segments.row[this.chosen.segments];
      if (row < 0) this.part("segment-block").replaceChildren();
      else this.tell(this.part("segment-block"), row);
    }

    leave() {
      window.clearTimeout(this.hovering);
      this.kit.untip(this.part("tip"));
    }

    fit() {
      if (!this.course) return;
      const [first, last] = this.course.extent;
      this.show(first, last);
    }

    onKey(event) {
      if (event.defaultPrevented || !this.course || window.tracelens.isTyping(event)) return;
      if (event.target instanceof Element && event.target.closest("[role=radiogroup]")) return;
      const middle = (this.view.from + this.view.to) / 2;
      const many = event.shiftKey ? MOST_EVENTS : 1;
      const keys = {
        w: () => this.zoom(0.7, middle),
        s: () => this.zoom(1 / 0.7, middle),
        a: () => this.shift(-0.25),
        d: () => this.shift(0.25),
        f: () => this.fit(),
        p: () => this.moveTo("peak"),
        ArrowLeft: () => this.step(-many),
        ArrowRight: () => this.step(many),
      };
      if (!Object.hasOwn(keys, event.key)) return;
      keys[event.key]();
      event.preventDefault();
    }

    // Tiles and rows

    rows() {
      return [...this.root.querySelectorAll("#memory-table tbody tr")];
    }

    mark(row, name) {
      for (const one of this.root.querySelectorAll("#memory-held ." + name)) one.classList.remove(name);
      if (row === null) return null;
      const tile = this.root.querySelector(`.memory-tile[data-row="${row}"]`);
      const line = this.rows()[row];
      for (const one of [tile, line]) if (one) one.classList.add(name);
      return line;
    }

    rowOf(target) {
      const tile = target.closest(".memory-tile");
      if (tile) return tile.dataset.row === undefined ? null : Number(tile.dataset.row);
      const line = target.closest("#memory-table tbody tr");
      return line ? this.rows().indexOf(line) : null;
    }

    onOver(event) {
      if (event.target instanceof Element) this.mark(this.rowOf(event.target), "over");
    }

    onClick(event) {
      if (!(event.target instanceof Element)) return;
      const button = event.target.closest("[data-at], [data-step]");
      if (button && button.tagName === "BUTTON") {
        if (button.dataset.at) this.moveTo(button.dataset.at);
        else this.step(Number(button.dataset.step) * (event.shiftKey ? MOST_EVENTS : 1));
        return;
      }
      this.choose(event.target);
    }

    onTileKey(event) {
      if (event.key !== "Enter" || !event.target.classList.contains("memory-tile")) return;
      this.choose(event.target);
    }

    choose(target) {
      const row = this.rowOf(target);
      if (row === null) return;
      const line = this.mark(row, "chosen");
      if (!line || !target.closest(".memory-tile")) return;
      const stack = line.querySelector("details");
      if (stack) stack.open = true;
      line.scrollIntoView({ block: "nearest" });
    }

    // Choices

    set(changes) {
      const different = Object.entries(changes).filter(([name, value]) => value && value !== this.shown(name));
      if (!different.length) return;
      const asked = Object.fromEntries(different);
      if ("x" in asked) Object.assign(asked, { from: null, to: null });
      this.write(asked, true);
      if ("group" in asked) {
        window.dash_clientside.set_props("memory-moment", { data: this.query() });
      }
      if ("x" in asked || "by" in asked || "lives" in asked) this.load(false);
    }

    shown(name) {
      const first = { x: this.root.dataset.axis, by: "category", group: "stack", lives: "stacked" };
      return this.state[name] || first[name];
    }

    back() {
      this.read();
      for (const name of ["x", "by", "group", "lives"]) {
        window.dash_clientside.set_props("memory-" + name, { value: this.shown(name) });
      }
      window.dash_clientside.set_props("memory-moment", { data: this.query() });
      this.load(true);
    }
  }

  function look() {
    const root = document.getElementById("memory-page");
    if (page && page.root !== root) {
      page.end();
      page = null;
    }
    if (root && !page && document.getElementById("memory-course")) page = new Page(root);
  }

  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.memory = {
    choose: function (x, by, group) {
      if (page) page.set({ x: x, by: by, group: group });
      return window.dash_clientside.no_update;
    },
    chooseLives: function (lives) {
      if (page) page.set({ lives: lives });
      return window.dash_clientside.no_update;
    },
  };
})();
