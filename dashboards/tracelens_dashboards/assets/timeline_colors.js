// Which colour a rectangle has: by phase, kind of work, row or name.
"use strict";

(function (timeline) {
  const NO_CODE = 255;

  timeline.COLORINGS = ["phase", "family", "stream", "name"];

  timeline.Colors = class Colors {
    /** @param {{phases: {name: string}[], families: {name: string}[]}} known by their codes */
    constructor(known) {
      const { colour, palette } = window.tracelens;
      const colored = (kind) => (one) => ({ name: one.name, color: colour(kind, one.name) });
      this.none = palette().none;
      this.spare = palette().spare;
      this.phases = known.phases.map(colored("phase"));
      this.families = known.families.map(colored("family"));
    }

    /** Return the colour of a place in a list, neighbours far apart. */
    placed(index) {
      return this.spare[index % this.spare.length];
    }

    /**
     * Return what gives the colour of a row's item or bin by its number.
     * @param {string} by one of COLORINGS
     * @returns {function(number): string}
     */
    chooser(by, row, tile) {
      const named = (i) => (tile.name ? this.placed(scattered(tile.name[i])) : this.none);
      if (by === "stream") return () => this.placed(row.place);
      if (by === "name" && tile.name) return named;
      const unknown = row.kind === "stream" ? () => this.none : named;
      const [of, colors] =
        by === "phase" ? [tile.phase, this.phases] : [tile.family, this.families];
      return (i) => (colors[of[i]] ? colors[of[i]].color : unknown(i));
    }

    /**
     * Return what the colours of some pictures mean.
     * @param {string} by one of COLORINGS
     * @param {Tile[]} tiles
     */
    legend(by, tiles) {
      if (by !== "phase" && by !== "family") return [];
      const colors = by === "phase" ? this.phases : this.families;
      const codes = new Set(tiles.flatMap((tile) => [...this.codes(tile, by)]));
      const known = colors.filter((_, code) => codes.has(code));
      const isNone = by === "phase" && codes.has(NO_CODE);
      return isNone ? [...known, { name: "no phase", color: this.none }] : known;
    }

    /** Return which codes a picture holds, looked for once. */
    codes(tile, by) {
      const key = `${by}Codes`;
      if (!tile[key]) tile[key] = new Set(tile[by] ? seen(tile, tile[by]) : []);
      return tile[key];
    }
  };

  /** Return codes of items, and of pixels that are not empty. */
  function seen(tile, codes) {
    return tile.mode === "bins" ? codes.filter((_, i) => tile.count[i]) : codes;
  }

  /** Spread neighbouring numbers. */
  function scattered(number) {
    return Math.imul(number, 2654435761) >>> 8;
  }
})(window.tracelens.timeline);
