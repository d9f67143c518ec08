// Below the picture: what is picked, the statistics of the selection, and the view as a table.
"use strict";

(function (timeline) {
  const MOST_ROWS = 300;
  const WAIT_MS = 300;
  const HINT =
    "Click for details, shift and drag for the statistics of a range, ctrl and wheel to zoom; " +
    "? lists all keys.";
  const TABS = { item: "Picked", range: "Statistics", view: "In view" };

  timeline.Panel = class Panel {
    /** @param {Timeline} page */
    constructor(page) {
      this.page = page;
      this.tab = null;
      this.sequence = 0;
      this.timer = null;
      /** What statistics were last asked for. */
      this.counted = "";
      this.body = timeline.el("div", { class: "tl-body", tabindex: "0" });
      this.tabs = timeline.el("div", { class: "tl-tabs" });
      this.root = timeline.el(
        "section",
        { class: "tl-panel", "aria-label": "Details and tables" },
        this.tabs,
        this.body,
      );
      this.showTabs();
    }

    showTabs() {
      const { el } = timeline;
      const tabs = Object.entries(TABS).map(([name, title]) =>
        el(
          "button",
          {
            onclick: () => this.open(this.tab === name ? null : name),
            "aria-pressed": String(this.tab === name),
            "data-tab": name,
          },
          title,
        ),
      );
      const close = el("button", { onclick: () => this.open(null), "aria-label": "Close" }, "×");
      const hint = el("span", { class: "tl-hint" }, HINT);
      this.tabs.replaceChildren(...tabs, this.tab ? close : hint);
      this.root.classList.toggle("tl-open", this.tab !== null);
    }

    /** @param {"item"|"range"|"view"|null} tab null: closed */
    open(tab) {
      const changed = this.tab !== tab;
      this.tab = tab;
      this.showTabs();
      this.show();
      if (changed) this.page.resized();
    }

    /** Show the open tab anew. */
    show() {
      this.stop();
      this.sequence += 1;
      if (this.tab === "item") this.showItem();
      else if (this.tab === "range") this.showCounting();
      else if (this.tab === "view") this.showView();
      else this.body.replaceChildren();
    }

    /** What is in view has changed. */
    moved() {
      if (this.tab === "view") this.showView();
      if (this.tab !== "range" || this.counted === this.question().join()) return;
      this.stop();
      this.timer = setTimeout(() => this.showRange(), WAIT_MS);
    }

    stop() {
      clearTimeout(this.timer);
      this.timer = null;
    }

    say(text) {
      this.body.replaceChildren(timeline.el("p", { class: "nothing" }, text));
    }

    showItem() {
      const { picked } = this.page;
      if (!picked) return this.say("Nothing is picked: click on something, or press an arrow key.");
      return this.body.replaceChildren(timeline.details(this.page, picked));
    }

    showCounting() {
      this.say("Counting …");
      this.showRange();
    }

    /** Return what statistics are asked for: of the selection, else of the view. */
    question() {
      const { axis, state } = this.page;
      const { from, to } = state.sel || axis;
      return [Math.floor(from), Math.ceil(to), this.page.streams()];
    }

    async showRange() {
      this.stop();
      const sequence = (this.sequence += 1);
      const [from, to, rows] = this.question();
      this.counted = [from, to, rows].join();
      try {
        const stats = await this.page.server.json("stats", { from, to, rows: rows.join() });
        if (sequence !== this.sequence) return;
        this.body.replaceChildren(timeline.statistics(this.page, stats));
      } catch (error) {
        if (sequence === this.sequence && error.name !== "AbortError") this.say(error.message);
      }
    }

    showView() {
      const items = this.page.itemsInView(MOST_ROWS);
      if (items === null) {
        return this.say(
          "There is more GPU work in view than a table holds. Zoom in until single kernels show, " +
            "or select a range for its statistics.",
        );
      }
      if (!items.length) return this.say("There is no GPU work in view.");
      return this.body.replaceChildren(timeline.listed(this.page, items, MOST_ROWS));
    }
  };
})(window.tracelens.timeline);
