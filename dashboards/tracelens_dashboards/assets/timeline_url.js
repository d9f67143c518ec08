// The state of the page, which stands in the URL alone: a link reproduces what is seen.
"use strict";

(function (timeline) {
  const WAIT_MS = 150;
  const SETS = ["hidden", "pinned", "closed", "turned"];

  /**
   * @typedef {Object} State
   * @property {?number} from ns; null: the start of the recording
   * @property {?number} to ns
   * @property {?{row: string, item: number}} pick
   * @property {string} color one of COLORINGS
   * @property {string} q what is searched for
   * @property {boolean} regex
   * @property {?{from: number, to: number}} sel the selected span of time
   * @property {number[]} marks ns
   * @property {string} filter of rows
   * @property {Set<string>} hidden rows
   * @property {Set<string>} pinned rows
   * @property {Set<string>} closed groups
   * @property {Set<string>} turned rows that are folded or unfolded unlike others
   */

  timeline.Url = class Url {
    /** @param {function(State): void} changed is called when the user goes back or forth */
    constructor(changed) {
      this.changed = changed;
      this.path = window.location.pathname;
      this.timer = null;
      this.back = () => {
        this.drop();
        if (window.location.pathname === this.path) this.changed(this.read());
      };
      window.addEventListener("popstate", this.back);
    }

    stop() {
      this.drop();
      window.removeEventListener("popstate", this.back);
    }

    drop() {
      clearTimeout(this.timer);
      this.timer = null;
    }

    /** @returns {State} */
    read() {
      const asked = new URLSearchParams(window.location.search);
      const state = {
        from: number(asked.get("from")),
        to: number(asked.get("to")),
        pick: picked(asked.get("pick")),
        color: timeline.COLORINGS.includes(asked.get("color")) ? asked.get("color") : "phase",
        q: asked.get("q") || "",
        regex: asked.get("regex") === "1",
        sel: span(asked.get("sel")),
        marks: list(asked.get("marks")).map(Number).filter(Number.isFinite),
        filter: asked.get("rows") || "",
      };
      for (const name of SETS) state[name] = new Set(asked.getAll(name));
      return state;
    }

    /** Write the state soon, over the entry of the history that is there. */
    write(state) {
      this.drop();
      this.timer = setTimeout(() => this.now(state, "replaceState"), WAIT_MS);
    }

    /** Write the state where a deliberate jump leads, so that the back button undoes it. */
    push(before, state) {
      this.drop();
      this.now(before, "replaceState");
      this.now(state, "pushState");
    }

    now(state, how) {
      this.timer = null;
      const target = `${this.path}${text(state)}${window.location.hash}`;
      if (window.location.pathname !== this.path) return;
      if (target !== window.location.pathname + window.location.search + window.location.hash) {
        window.history[how](window.history.state, "", target);
      }
    }
  };

  function text(state) {
    const says = new URLSearchParams();
    const theme = new URLSearchParams(window.location.search).get("theme"); // the shell's
    if (theme) says.append("theme", theme);
    const add = (name, value) => value !== null && value !== "" && says.append(name, value);
    add("from", state.from === null ? null : Math.floor(state.from));
    add("to", state.to === null ? null : Math.ceil(state.to));
    add("pick", state.pick ? `${state.pick.row}:${state.pick.item}` : null);
    add("color", state.color === "phase" ? null : state.color);
    add("q", state.q);
    add("regex", state.q && state.regex ? "1" : null);
    add("sel", state.sel ? `${Math.round(state.sel.from)}-${Math.round(state.sel.to)}` : null);
    add("marks", state.marks.map(Math.round).join());
    add("rows", state.filter);
    for (const name of SETS) for (const value of state[name]) says.append(name, value);
    const written = String(says).replaceAll("%3A", ":").replaceAll("%2C", ",");
    return written ? `?${written}` : "";
  }

  function number(value) {
    return value !== null && value !== "" && Number.isFinite(Number(value)) ? Number(value) : null;
  }

  function list(value) {
    return value ? value.split(",") : [];
  }

  function picked(value) {
    const found = /^(.+):(\d+)$/.exec(value || "");
    return found ? { row: found[1], item: Number(found[2]) } : null;
  }

  function span(value) {
    const found = /^(-?\d+)-(-?\d+)$/.exec(value || "");
    return found ? { from: Number(found[1]), to: Number(found[2]) } : null;
  }
})(window.tracelens.timeline);
