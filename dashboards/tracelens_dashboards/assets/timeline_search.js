// The search: which names fit, where they stand in view, and walking from one to the next.
"use strict";

(function (timeline) {
  const WAIT_MS = 150;

  timeline.Search = class Search {
    /** @param {Timeline} page */
    constructor(page) {
      this.page = page;
      this.timer = null;
      this.sequence = 0;
      this.asked = "";
      this.clear();
    }

    clear() {
      /** What the picture shows of it: names found, and per row where. */
      this.hits = null;
      this.count = 0;
      this.found = [];
      this.problem = "";
    }

    stop() {
      clearTimeout(this.timer);
      this.timer = null;
    }

    /** Have the hits of the window in view looked for, where they are not known. */
    want() {
      const { axis, state } = this.page;
      const key = state.q ? [state.q, state.regex, axis.from, axis.to, axis.px].join("\n") : "";
      if (key === this.asked) return;
      this.asked = key;
      this.stop();
      if (!state.q) {
        this.sequence += 1;
        this.clear();
        this.page.searched();
        return;
      }
      if (state.regex && !isRegex(state.q)) this.fail("This is no regular expression yet.");
      else this.timer = setTimeout(() => this.fetch(), WAIT_MS);
    }

    fail(message) {
      this.sequence += 1;
      this.clear();
      this.problem = message;
      this.page.searched();
    }

    query() {
      const { state } = this.page;
      return { q: state.q, regex: state.regex ? 1 : 0 };
    }

    async fetch() {
      this.timer = null;
      const sequence = (this.sequence += 1);
      const { axis } = this.page;
      const window = {
        from: Math.floor(axis.from),
        to: Math.ceil(axis.to),
        px: Math.max(1, Math.round(axis.px)),
      };
      try {
        const reply = await this.page.server.json("search", { ...this.query(), ...window });
        if (sequence !== this.sequence) return;
        this.keep(reply, window);
      } catch (error) {
        if (error.name !== "AbortError" && sequence === this.sequence) this.fail(error.message);
      }
    }

    keep(reply, window) {
      const bins = Object.entries(reply.bins).map(([row, text]) => [row, bytes(text)]);
      const names = reply.more ? null : new Set(reply.names.map((name) => name.name_id));
      this.hits = { ...window, names, bins: new Map(bins) };
      this.count = reply.count;
      this.found = reply.names;
      this.problem = "";
      this.page.searched();
    }

    /** Go to the next (1) or last (-1) thing that was found, from the picked one or the view. */
    async walk(direction) {
      const { page } = this;
      if (!page.state.q) return;
      const { picked, axis } = page;
      const ns = picked ? picked.start_ns : direction > 0 ? axis.from - 1 : axis.to;
      const rows = page.shown().join(",");
      const from = picked ? { row: picked.row, item: picked.item } : {};
      await page.goTo({ ns: Math.round(ns), direction, rows, ...this.query(), ...from });
    }
  };

  function isRegex(text) {
    try {
      return Boolean(new RegExp(text));
    } catch {
      return false;
    }
  }

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  }
})(window.tracelens.timeline);
