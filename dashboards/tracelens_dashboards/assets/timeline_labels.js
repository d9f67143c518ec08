// The names of rows and groups beside the picture: real elements, for keyboards and screen readers.
"use strict";

(function (timeline) {
  timeline.Labels = class Labels {
    /** @param {Timeline} page */
    constructor(page) {
      const { el } = timeline;
      this.page = page;
      this.fixed = el("div", { class: "tl-fixed" });
      this.moving = el("div", { class: "tl-moving" });
      this.base = el("span", { class: "tl-base" });
      this.root = el("div", { class: "tl-labels" }, this.fixed, this.moving);
    }

    /** Write all labels anew, where the rows now stand. */
    show() {
      const { rows } = this.page;
      const ruler = timeline.RULER;
      const focused = this.focused();
      this.fixed.style.height = `${ruler + rows.fixed}px`;
      this.root.style.height = `${ruler + rows.height}px`;
      this.fixed.replaceChildren(this.corner());
      this.moving.replaceChildren();
      for (const place of rows.places) {
        const made = place.row ? this.label(place) : this.heading(place);
        made.style.top = `${place.y + (place.pinned ? ruler : -rows.fixed)}px`;
        made.style.height = `${place.height}px`;
        (place.pinned ? this.fixed : this.moving).append(made);
      }
      if (focused) this.refocus(focused);
    }

    /** Say from when on the ticks count. */
    showBase(base) {
      this.base.textContent = base ? `${base} and` : "";
    }

    corner() {
      const { el } = timeline;
      const { hidden } = this.page.state;
      const show = () => this.page.change({ hidden: new Set() });
      const text = `Show ${hidden.size} hidden ${hidden.size === 1 ? "row" : "rows"}`;
      const button = hidden.size ? el("button", { onclick: show }, text) : null;
      return el("div", { class: "tl-corner" }, button, this.base);
    }

    heading({ group }) {
      const { el } = timeline;
      const isClosed = this.page.state.closed.has(group);
      const turn = () => this.page.turn("closed", group);
      return el(
        "div",
        { class: "tl-heading" },
        el(
          "button",
          { onclick: turn, "aria-expanded": String(!isClosed), "data-key": `g ${group}` },
          `${isClosed ? "▸" : "▾"} ${group}`,
        ),
      );
    }

    label(place) {
      const { el } = timeline;
      const { row, pinned } = place;
      const { page } = this;
      const pin = pinned ? "Unpin" : "Pin";
      const name = pinned ? `${row.label} · ${row.group}` : row.label;
      const title = `${row.label}, ${row.group}: ${timeline.format.count(row.count)} in all`;
      const folds = row.lanes > 1;
      const isFolded = page.rows.isFolded(row, page.state);
      const fold = isFolded ? "Unfold" : "Fold";
      return el(
        "div",
        { class: "tl-label", "data-row": row.id },
        folds
          ? this.button(isFolded ? "▸" : "▾", `${fold} ${name}`, "turned", row)
          : null,
        el("span", { class: "tl-name", title }, name),
        el(
          "span",
          { class: "tl-acts" },
          this.button(pin, `${pin} ${name}`, "pinned", row),
          this.button("Hide", `Hide ${name}`, "hidden", row),
        ),
      );
    }

    button(text, says, set, row) {
      const act = () => this.page.turn(set, row.id);
      const key = `${set} ${row.id}`;
      const attributes = { onclick: act, "aria-label": says, title: says, "data-key": key };
      return timeline.el("button", { class: `tl-${set}`, ...attributes }, text);
    }

    focused() {
      const now = document.activeElement;
      return now && this.root.contains(now) ? now.dataset.key : null;
    }

    refocus(key) {
      for (const button of this.root.querySelectorAll("button")) {
        if (button.dataset.key === key) button.focus({ preventScroll: true });
      }
    }
  };
})(window.tracelens.timeline);
