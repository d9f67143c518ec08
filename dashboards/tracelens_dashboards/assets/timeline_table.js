// Tables in the markup of `parts.table`, so that they look alike and the copy buttons work on them.
"use strict";

(function (timeline) {
  /**
   * @typedef {Object} Heading
   * @property {string} name in the CSV
   * @property {string} title
   * @property {"text"|"name"|"number"} kind
   *
   * @typedef {Object} Cell
   * @property {string} text as shown
   * @property {string|number|null} value as copied
   * @property {string} [color] of the square before it
   * @property {function} [act] what a click does
   */

  /**
   * Return a table with copy buttons.
   * @param {Heading[]} headings
   * @param {Cell[][]} rows
   * @param {string} [note]
   */
  timeline.table = function (headings, rows, note) {
    const { el } = timeline;
    const head = headings.map((one) =>
      el("th", { class: one.kind, "data-name": one.name, scope: "col" }, one.title),
    );
    const body = rows.map((row) =>
      el("tr", {}, ...row.map((cell, i) => cellOf(cell, headings[i].kind))),
    );
    const table = el(
      "table",
      { class: "table" },
      el("thead", {}, el("tr", {}, ...head)),
      el("tbody", {}, ...body),
    );
    return el(
      "div",
      { class: "tabled" },
      el("div", { class: "table-scroll" }, table),
      note ? el("p", { class: "note" }, note) : null,
      el("div", { class: "copy-buttons" }, copyAs("csv", "CSV"), copyAs("markdown", "Markdown")),
    );
  };

  function cellOf(cell, kind) {
    const { el } = timeline;
    const value = cell.value === null || cell.value === undefined ? "" : cell.value;
    const made = el("td", { class: kind, "data-value": inert(value) });
    if (cell.color) {
      const square = el("span", { class: "square" });
      square.style.backgroundColor = cell.color;
      made.append(square);
    }
    const { act, text } = cell;
    made.append(act ? el("button", { class: "tl-link", onclick: act }, text) : text);
    return made;
  }

  /** Return a text that no spreadsheet takes for a formula; numbers stay. */
  function inert(value) {
    return typeof value === "string" && /^[=+\-@\t]/.test(value) ? `'${value}` : String(value);
  }

  function copyAs(format, title) {
    const attributes = { class: "copy-table", "data-format": format };
    return timeline.el("button", attributes, `Copy as ${title}`);
  }
})(window.tracelens.timeline);
