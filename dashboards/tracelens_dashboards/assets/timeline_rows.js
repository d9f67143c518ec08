// Which rows are shown, in which order, how high, and where: groups, pins, filters.
"use strict";

(function (timeline) {
  const HEADING = 22;
  const GAP = 4;
  const FOLDED_LANE = 4;
  const MANY_LANES = 8;
  const LANE = { stream: 24, api: 17, ranges: 14, ops: 14, memory: 56 };

  /**
   * @typedef {Object} Place where something stands, in px from the top of all rows
   * @property {Object|null} row null: a group's heading
   * @property {string} group
   * @property {number} y
   * @property {number} height
   * @property {number} lane height of one lane
   * @property {boolean} pinned
   */

  timeline.Rows = class Rows {
    /** @param {Object[]} rows as the server lists them */
    constructor(rows) {
      this.all = rows.map((row, place) => ({ lanes: 1, ...row, place }));
      this.byId = new Map(this.all.map((row) => [row.id, row]));
      /** @type {Place[]} */
      this.places = [];
      /** Height of the pinned rows, which do not scroll. */
      this.fixed = 0;
      this.height = 0;
    }

    /**
     * Lay the rows out.
     * @param {{hidden: Set<string>, pinned: Set<string>, closed: Set<string>, turned: Set<string>,
     *   filter: string}} state
     */
    arrange(state) {
      const wanted = state.filter.toLowerCase();
      const fits = (row) => `${row.group} ${row.label}`.toLowerCase().includes(wanted);
      const shown = this.all.filter((row) => !state.hidden.has(row.id) && fits(row));
      this.places = [];
      this.y = 0;
      const pinned = shown.filter((row) => state.pinned.has(row.id));
      for (const row of pinned) this.add(row, state, true);
      this.fixed = pinned.length ? this.y + GAP : 0;
      this.y = this.fixed;
      let group = null;
      for (const row of shown) {
        if (row.group !== group) this.addHeading((group = row.group));
        if (!state.pinned.has(row.id) && !state.closed.has(group)) this.add(row, state, false);
      }
      this.height = this.y + GAP;
    }

    addHeading(group) {
      const place = { row: null, group, y: this.y, height: HEADING, lane: 0, pinned: false };
      this.places.push(place);
      this.y += HEADING;
    }

    add(row, state, pinned) {
      const lane = this.isFolded(row, state) ? FOLDED_LANE : LANE[row.kind] || LANE.ranges;
      const height = lane * Math.max(1, row.lanes) + GAP;
      this.places.push({ row, group: row.group, y: this.y, height, lane, pinned });
      this.y += height;
    }

    /** Rows of many lanes are folded until they are unfolded, others the other way round. */
    isFolded(row, state) {
      return row.lanes > 1 && row.lanes > MANY_LANES !== state.turned.has(row.id);
    }

    /** @param {string} id @returns {Place|undefined} */
    placeOf(id) {
      return this.places.find((place) => place.row && place.row.id === id);
    }

    /** Return the row at a height, as seen when scrolled by `scroll` px. */
    at(y, scroll) {
      const isFixed = y < this.fixed;
      const inside = isFixed ? y : y + scroll;
      return this.places.find(
        (place) =>
          place.row &&
          place.pinned === isFixed &&
          inside >= place.y &&
          inside < place.y + place.height
      );
    }

    /** Return places that are seen in a window of `height` px scrolled by `scroll` px. */
    seen(scroll, height) {
      return this.places.filter(
        (place) =>
          place.pinned ||
          (place.y + place.height > scroll + this.fixed && place.y < scroll + height)
      );
    }
  };
})(window.tracelens.timeline);
