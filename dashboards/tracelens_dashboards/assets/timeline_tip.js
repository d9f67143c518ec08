// What the pointer is over: a name and how long, or how many stand in one pixel.
"use strict";

(function (timeline) {
  const REST_MS = 60;
  const KEPT = 2000;
  const THINGS = { stream: "pieces of GPU work", api: "API calls", ranges: "ranges", ops: "ops" };

  timeline.Tip = class Tip {
    /** @param {Timeline} page */
    constructor(page) {
      this.page = page;
      this.root = timeline.el("div", { class: "tl-tip", role: "tooltip", hidden: true });
      this.timer = null;
      this.details = new Map();
    }

    stop() {
      clearTimeout(this.timer);
      this.timer = null;
    }

    /** @param {Found|null} found @param {{x: number, y: number}} at in the picture */
    show(found, at) {
      this.stop();
      const lines = found ? this.lines(found, at) : [];
      this.root.hidden = !lines.length;
      if (!lines.length) return;
      this.root.replaceChildren(...lines.map((line) => timeline.el("div", {}, line)));
      this.put(at);
      if (found.kind === "item") this.timer = setTimeout(() => this.ask(found, at), REST_MS);
    }

    put({ x, y }) {
      const { width, height } = this.page.painter;
      const left = x + 14 + this.root.offsetWidth > width ? x - 14 - this.root.offsetWidth : x + 14;
      const top = Math.min(y + 16, height - this.root.offsetHeight - 4);
      this.root.style.left = `${Math.max(0, left)}px`;
      this.root.style.top = `${Math.max(0, top)}px`;
    }

    lines(found, at) {
      const { format } = timeline;
      const { kind } = found.place.row;
      if (found.kind === "item") return this.item(found);
      if (found.kind === "bin") {
        const things = found.count === 1 ? "piece" : THINGS[kind] || "pieces";
        const busy = `busy ${format.share(Math.min(1, found.busy))} of it`;
        return [`${format.count(found.count)} ${things} in this pixel, ${busy}`, this.most(found)];
      }
      return found.kind === "level" ? this.level(found, at) : [];
    }

    /** Name what takes most of a pixel. */
    most(found) {
      const tile = this.page.tiles.get(found.place.row.id);
      const { phases, families } = this.page.colors;
      const phase = tile.phase && phases[tile.phase[found.index]];
      const family = tile.family && families[tile.family[found.index]];
      const names = [phase, family].filter(Boolean).map((one) => one.name);
      return names.length ? `mostly ${names.join(", ")}` : "";
    }

    level(found) {
      const tile = this.page.tiles.get(found.place.row.id);
      const { size } = timeline.format;
      const lines = [];
      for (const name of ["allocated", "reserved"]) {
        const most = tile[`${name}_max`] && tile[`${name}_max`][found.at];
        if (most !== undefined && !Number.isNaN(most)) lines.push(`${name} ${size(most)}`);
      }
      return lines;
    }

    item(found) {
      const key = `${found.place.row.id}:${found.item}`;
      const known = this.details.get(key);
      const name = this.page.names.get(found.name);
      const lines = [known ? known.short_name : name || "…"];
      if (known) {
        const more = [known.phase, known.family].filter(Boolean);
        const took = timeline.format.time(known.end_ns - known.start_ns);
        lines.push([took, ...more].join(" · "));
      }
      if (found.count > 1) lines.push(`${found.count} pieces in this pixel`);
      return lines;
    }

    /** Ask for the details of what the pointer rests on, once. */
    async ask(found, at) {
      this.timer = null;
      const row = found.place.row.id;
      const key = `${row}:${found.item}`;
      if (this.details.has(key)) return;
      try {
        const known = await this.page.server.json("item", { row, item: found.item });
        if (this.details.size > KEPT) this.details.clear();
        this.details.set(key, known);
        if (this.page.isAt(at)) this.show(found, at);
      } catch {
        // The name alone stays.
      }
    }
  };
})(window.tracelens.timeline);
