// What stands where the pointer is, as far as the picture knows it.
"use strict";

(function (timeline) {
  const NEAR_PX = 1;

  /**
   * @typedef {Object} Found
   * @property {Place} place
   * @property {"item"|"bin"|"level"|"nothing"} kind
   * @property {number} [item] number of the item in its row
   * @property {number} [name] of the item
   * @property {number} [count] how many stand in this pixel
   */

  /**
   * Return what is at a point of the rows' part of the picture, or null outside of all rows.
   * @param {Scene} scene
   * @param {number} x px
   * @param {number} y px below the ruler
   * @returns {Found|null}
   */
  timeline.find = function (scene, x, y) {
    const place = scene.rows.at(y, scene.scroll);
    if (!place) return null;
    const tile = scene.tiles.get(place.row.id);
    if (!tile) return { place, kind: "nothing" };
    const inside = y - place.y + (place.pinned ? 0 : scene.scroll) - timeline.PAD;
    const lanes = tile.mode === "bins" ? tile.lanes : place.row.lanes;
    const deep = (place.lane * place.row.lanes) / lanes;
    const lane = Math.min(Math.max(0, Math.floor(inside / deep)), lanes - 1);
    const { axis } = scene;
    const px = (axis.ns(x) - tile.from) / tile.nsPerPx;
    const isItems = tile.mode === "items";
    const found = isItems
      ? item(tile, lane, px, axis.nsPerPx / tile.nsPerPx)
      : column(tile, lane, Math.floor(px));
    return { place, ...found };
  };

  /** Find the item at `px`, else the nearest one within a pixel of the screen. */
  function item(tile, lane, px, screen) {
    const near = NEAR_PX * screen;
    let best = -1;
    let distance = Infinity;
    let count = 0;
    for (let i = 0; i < tile.count; i += 1) {
      if (tile.lane && tile.lane[i] !== lane) continue;
      const away = Math.max(tile.x0[i] - px, px - tile.x1[i], 0);
      if (away > near) continue;
      if (tile.x1[i] - tile.x0[i] < screen && away < screen / 2) count += 1;
      if (away < distance) {
        best = i;
        distance = away;
      }
    }
    if (best < 0) return { kind: "nothing" };
    return { kind: "item", item: tile.item[best], name: tile.name[best], index: best, count };
  }

  function column(tile, lane, at) {
    if (at < 0 || at >= tile.px) return { kind: "nothing" };
    if (tile.mode === "curve") return { kind: "level", at };
    const i = lane * tile.px + at;
    const count = tile.count[i];
    return count ? { kind: "bin", count, busy: tile.busy[i], index: i, lane } : { kind: "nothing" };
  }
})(window.tracelens.timeline);
