// What rows look like, kept for three windows around the one in view, and asked for in time.
"use strict";

(function (timeline) {
  const WAIT_MS = 80;
  const MARGIN = 1;
  /** Items stay sharp while zooming in on their tile: they come to the 64th of a pixel. */
  const DEEPEST = 8;

  /**
   * @typedef {Object} Tile one row's picture
   * @property {number} from ns
   * @property {number} to ns
   * @property {number} nsPerPx
   * @property {"items"|"bins"|"curve"} mode
   */

  timeline.Tiles = class Tiles {
    /**
     * @param {Server} server
     * @param {function(): void} arrived
     * @param {function(string): void} failed
     */
    constructor(server, arrived, failed) {
      this.server = server;
      this.arrived = arrived;
      this.failed = failed;
      /** @type {Map<string, Tile>} */
      this.tiles = new Map();
      this.sequence = 0;
      this.timer = null;
      this.asked = "";
      this.underway = new AbortController();
    }

    stop() {
      clearTimeout(this.timer);
      this.timer = null;
      this.underway.abort();
    }

    /** @param {string} row @returns {Tile|undefined} perhaps of another window */
    get(row) {
      return this.tiles.get(row);
    }

    /** Return whether all rows show just this window. */
    isComplete(axis, rows) {
      return rows.every((row) => fits(this.tiles.get(row), axis, 0));
    }

    /** Have the rows' pictures of this window fetched where they are missing or stale. */
    want(axis, rows) {
      const missing = rows.filter((row) => !fits(this.tiles.get(row), axis, 0.25));
      const key = missing.length ? [axis.from, axis.to, axis.px, ...missing].join() : "";
      if (key === this.asked) return;
      this.asked = key;
      clearTimeout(this.timer);
      this.timer = null;
      if (!missing.length) return;
      const wait = this.tiles.size ? WAIT_MS : 0;
      this.timer = setTimeout(() => this.fetch(wider(axis), missing), wait);
    }

    async fetch(window, rows) {
      this.timer = null;
      this.underway.abort();
      this.underway = new AbortController();
      const sequence = (this.sequence += 1);
      try {
        const query = { ...window, rows: rows.join(",") };
        const reply = await this.server.view(query, this.underway.signal);
        if (sequence !== this.sequence) return;
        this.keep(reply);
        this.arrived();
      } catch (error) {
        if (error.name !== "AbortError") this.failed(error.message);
      }
    }

    keep({ header, rows }) {
      const { from, to, px } = header;
      for (const [id, row] of rows) {
        this.tiles.set(id, { ...row, from, to, px, nsPerPx: (to - from) / px });
      }
    }
  };

  /** Return the window with margins on both sides, inside the recording, at the same scale. */
  function wider(axis) {
    const margin = axis.span * MARGIN;
    const from = Math.floor(Math.max(axis.start, axis.from - margin));
    const to = Math.ceil(Math.min(axis.end, axis.to + margin));
    return { from, to, px: Math.max(1, Math.round((to - from) / axis.nsPerPx)) };
  }

  /** Return whether a tile is sharp in this window, with part of a window to spare. */
  function fits(tile, axis, spare) {
    if (!tile) return false;
    const margin = axis.span * spare;
    if (tile.from > Math.max(axis.from - margin, axis.start) + 1) return false;
    if (tile.to < Math.min(axis.to + margin, axis.end) - 1) return false;
    const zoom = tile.nsPerPx / axis.nsPerPx;
    return tile.mode === "items" ? zoom > 0.3 && zoom < DEEPEST : zoom > 0.97 && zoom < 1.03;
  }
})(window.tracelens.timeline);
