// What stands above the picture: colours and their legend, search, rows, and where one is.
"use strict";

(function (timeline) {
  const BY = { phase: "phase", family: "kind of work", stream: "row", name: "name" };

  timeline.Toolbar = class Toolbar {
    /** @param {Timeline} page */
    constructor(page) {
      this.page = page;
      this.legend = timeline.el("div", { class: "tl-legend", "aria-label": "Colours" });
      this.found = timeline.el("span", { class: "tl-found", role: "status" });
      this.where = timeline.el("span", { class: "tl-where", role: "status" });
      this.root = this.build();
    }

    build() {
      const { el } = timeline;
      const { page } = this;
      const act = (text, title, onclick) => el("button", { onclick, title }, text);
      this.color = this.choice();
      this.query = el("input", {
        type: "search",
        placeholder: "Search names  ( / )",
        "aria-label": "Search names",
        oninput: () => page.change({ q: this.query.value }),
        onkeydown: (event) => this.inSearch(event),
      });
      this.regex = el("input", {
        type: "checkbox",
        onchange: () => page.change({ regex: this.regex.checked }),
      });
      this.filter = el("input", {
        type: "search",
        placeholder: "Filter rows",
        "aria-label": "Filter rows",
        oninput: () => page.change({ filter: this.filter.value }),
        onkeydown: (event) => event.key === "Escape" && this.filter.blur(),
      });
      return el(
        "div",
        { class: "tl-toolbar", role: "toolbar", "aria-label": "Timeline" },
        el(
          "div",
          { class: "tl-tools" },
          act("Fit", "Show all, or the picked item (F)", () => page.fit()),
          act("+", "Zoom in (W)", () => page.move((axis) => axis.zoom(0.5, axis.px / 2))),
          act("−", "Zoom out (S)", () => page.move((axis) => axis.zoom(2, axis.px / 2))),
          act("Select", "Select by dragging (or drag with shift)", () => page.selectByDrag()),
          el("label", {}, "Colour by ", this.color),
          this.query,
          el("label", { title: "The search is a regular expression" }, this.regex, "regex"),
          act("‹", "The one before (N)", () => page.search.walk(-1)),
          act("›", "The next one (n)", () => page.search.walk(1)),
          this.found,
          this.filter,
          this.where,
        ),
        this.legend,
      );
    }

    choice() {
      const { el } = timeline;
      const options = timeline.COLORINGS.map((by) => el("option", { value: by }, BY[by]));
      let byPointer = false;
      const attributes = {
        "aria-label": "Colour by",
        onpointerdown: () => (byPointer = true),
        onkeydown: () => (byPointer = false),
        onchange: () => {
          this.page.change({ color: this.color.value });
          // A letter would choose from the list: after a click keys belong to the picture again.
          if (byPointer) this.page.canvas.focus({ preventScroll: true });
        },
      };
      return el("select", attributes, ...options);
    }

    inSearch(event) {
      if (event.key === "Enter") this.page.search.walk(event.shiftKey ? -1 : 1);
      else if (event.key === "Escape") {
        this.page.change({ q: "" });
        this.query.blur();
      } else return;
      event.preventDefault();
    }

    focusSearch() {
      this.query.focus();
      this.query.select();
    }

    /** Show the state in the fields, unless one is typing there. */
    show() {
      const { state } = this.page;
      this.color.value = state.color;
      this.regex.checked = state.regex;
      if (this.query.value !== state.q) this.query.value = state.q;
      if (this.filter.value !== state.filter) this.filter.value = state.filter;
    }

    /** Show what the colours in view mean. */
    showLegend(tiles) {
      const { state, colors } = this.page;
      const legend = colors.legend(state.color, tiles);
      const key = legend.map(({ name }) => name).join("\n");
      if (key === this.legendKey) return;
      this.legendKey = key;
      this.legend.replaceChildren(...legend.map(entry));
    }

    showWhere() {
      const { axis } = this.page;
      const { precise, time } = timeline.format;
      const from = precise(Math.round(axis.from - axis.start));
      this.where.textContent = `${time(Math.round(axis.span))} from ${from}`;
    }

    showFound() {
      const { search, state } = this.page;
      const some = `${timeline.format.count(search.count)} in view`;
      this.found.textContent = search.problem || (state.q && search.hits ? some : "");
      this.found.classList.toggle("tl-problem", Boolean(search.problem));
    }
  };

  function entry({ name, color }) {
    const square = timeline.el("span", { class: "square" });
    square.style.backgroundColor = color;
    return timeline.el("span", {}, square, name);
  }
})(window.tracelens.timeline);
