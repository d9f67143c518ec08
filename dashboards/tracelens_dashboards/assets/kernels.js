// The kernels in the browser: filters, and two grids whose rows come from the server by the page.
//
// All state stands in the URL: filter, family, phase and sort of the names, kernel (the chosen one),
// order and where (sorting and column filters of the calls), shapes.
(function () {
  "use strict";
  const SEARCH_MS = 250;
  const ROW_PX = 28;
  const END = 12;
  const USUAL = { names: "total_ns.desc", calls: "took_ns.desc" };
  const SAYS = { names: "sort", calls: "order" };
  // What of the URL makes a grid's rows others.
  const OF = {
    names: ["filter", "family", "phase"],
    calls: ["filter", "family", "phase", "kernel", "shapes"],
  };
  const SHAPES = ["grid", "block", "registers", "shared_bytes"];

  function made(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function pick(state, fields) {
    return Object.fromEntries(fields.filter((f) => state[f]).map((f) => [f, state[f]]));
  }

  function listed(text) {
    return text ? text.split(",") : [];
  }

  class Kernels {
    constructor(holder) {
      this.holder = holder;
      this.recording = holder.dataset.recording;
      this.ends = new AbortController();
      this.apis = {};
      this.asked = {};
      this.build();
      this.open();
    }

    stop() {
      this.ends.abort();
      clearTimeout(this.typing);
    }

    gone() {
      if (this.holder.isConnected) return false;
      this.stop();
      return true;
    }

    // Filters

    build() {
      const bar = made("div", "kernel-filters");
      this.search = made("input");
      this.search.type = "search";
      this.search.placeholder = "Name of a kernel, op, range or module ( / )";
      this.search.setAttribute("aria-label", "Search by name");
      bar.append(this.search);
      this.chips = { phase: [], family: [] };
      for (const [kind, title] of [["phase", "launched in"], ["family", "family"]]) {
        const names = listed(this.holder.dataset[kind === "phase" ? "phases" : "families"]);
        if (names.length < 2) continue;
        const group = made("div", "kernel-chips", title);
        for (const name of names) group.append(this.chip(kind, name));
        bar.append(group);
      }
      this.said = made("p", "kernel-said");
      this.said.setAttribute("role", "status");
      this.holder.replaceChildren(bar, this.said);
      this.title = document.getElementById("kernel-calls-title");
      this.callsSaid = document.getElementById("kernel-calls-said");
      this.shapes = document.getElementById("kernel-shapes");
    }

    chip(kind, name) {
      const button = made("button");
      button.type = "button";
      button.dataset.name = name;
      const square = made("span", "square");
      square.style.backgroundColor = window.tracelens.colour(kind, name);
      button.append(square, name);
      button.addEventListener("click", () => {
        const chosen = new Set(listed(window.tracelens.url.read()[kind]));
        if (!chosen.delete(name)) chosen.add(name);
        this.go({ [kind]: [...chosen].join(",") || null }, true);
      });
      this.chips[kind].push(button);
      return button;
    }

    // Grids

    async open() {
      const grids = { names: "kernel-names", calls: "kernel-calls" };
      for (const [grid, id] of Object.entries(grids)) {
        const api = await window.dash_ag_grid.getApiAsync(id);
        // Dash gives the grid a source of its own when that is ready: ours comes after it.
        while (!this.gone() && !api.isDestroyed() && !api.getGridOption("datasource")) {
          await new Promise((done) => requestAnimationFrame(done));
        }
        if (this.gone() || this.ends.signal.aborted || api.isDestroyed()) return;
        this.apis[grid] = api;
      }
      this.listen();
      this.apply();
      for (const [grid, api] of Object.entries(this.apis)) {
        this.asked[grid] = this.key(grid);
        api.setGridOption("datasource", { getRows: (params) => this.rows(grid, params) });
        api.addEventListener("sortChanged", () => this.sorted(grid));
      }
      this.apis.calls.addEventListener("filterChanged", () => this.filtered());
      this.apis.names.addEventListener("rowClicked", (event) => {
        if (event.data) this.go({ kernel: event.data.id }, true);
      });
      this.apis.calls.addEventListener("rowDoubleClicked", (event) => {
        if (event.data) goTo(this.recording, event.data.id);
      });
      this.detail();
    }

    listen() {
      const signal = { signal: this.ends.signal };
      window.addEventListener("tracelens:url", () => this.gone() || this.sync(), signal);
      document.addEventListener("keydown", (event) => this.press(event), signal);
      this.search.addEventListener("input", () => this.type(), signal);
      this.search.addEventListener(
        "keydown", (event) => event.key === "Escape" && this.search.blur(), signal,
      );
      this.shapes.addEventListener("click", () => this.go({ shapes: 1 }, false), signal);
      for (const button of document.querySelectorAll(".kernel-copy")) {
        button.addEventListener("click", () => this.copy(button), signal);
      }
    }

    key(grid) {
      return JSON.stringify(pick(window.tracelens.url.read(), OF[grid]));
    }

    async rows(grid, params) {
      const state = window.tracelens.url.read();
      const query = new URLSearchParams(pick(state, OF[grid]));
      const [sort] = params.sortModel;
      if (sort) query.set(SAYS[grid], `${sort.colId}.${sort.sort}`);
      const where = Object.keys(params.filterModel || {}).length;
      if (where) query.set("where", JSON.stringify(params.filterModel));
      query.set("first", params.startRow);
      query.set("last", params.endRow);
      let answer;
      try {
        const address = `/api/kernels/${this.recording}/${grid}?${query}`;
        answer = await (await fetch(address, { signal: this.ends.signal })).json();
      } catch (error) {
        if (error.name === "AbortError") return;
        answer = { error: "The explorer does not answer: is it still running?" };
      }
      if (this.gone()) return;
      if (!answer.rows) {
        this.said.textContent = answer.nothing || answer.error;
        params.failCallback();
        return;
      }
      params.successCallback(answer.rows, answer.total);
      this.show(grid, answer);
    }

    show(grid, answer) {
      const api = this.apis[grid];
      if (grid === "names") {
        this.said.textContent = answer.said;
        this.fit("kernel-names", answer.total, 12, 36);
        this.mark();
      } else {
        this.callsSaid.replaceChildren(answer.said);
        const chosen = window.tracelens.url.read().kernel;
        if (chosen) {
          const all = made("button", "", "show those of all kernels");
          all.type = "button";
          all.addEventListener("click", () => this.go({ kernel: null }, true));
          this.callsSaid.append(" · ", all);
        }
        this.fit("kernel-calls", answer.total, 14, 52);
        this.shapes.hidden = answer.shapes;
        api.setColumnsVisible(SHAPES, answer.shapes);
        for (const name of ["op", "range", "module"]) {
          api.setColumnsVisible([name], answer.launchers.includes(name));
        }
      }
      api.setGridOption("loading", false);
      this.holder.dataset[grid] = String(Number(this.holder.dataset[grid] || 0) + 1);
    }

    fit(id, rows, most, more) {
      const height = Math.max(3, Math.min(rows, most)) * ROW_PX + more;
      document.getElementById(id).style.height = `${height}px`;
    }

    mark() {
      const chosen = window.tracelens.url.read().kernel;
      this.apis.names.forEachNode((node) => {
        node.setSelected(Boolean(node.data) && String(node.data.id) === chosen);
      });
    }

    // State

    go(changes, push) {
      window.tracelens.url.write(changes, push);
      this.sync();
    }

    sync() {
      this.apply();
      for (const [grid, api] of Object.entries(this.apis)) {
        const key = this.key(grid);
        if (key === this.asked[grid]) continue;
        this.asked[grid] = key;
        api.purgeInfiniteCache();
      }
      this.mark();
      this.detail();
    }

    /** Show in fields and grids what the URL says. */
    apply() {
      const state = window.tracelens.url.read();
      if (document.activeElement !== this.search) this.search.value = state.filter || "";
      for (const [kind, buttons] of Object.entries(this.chips)) {
        const chosen = listed(state[kind]);
        for (const button of buttons) {
          button.setAttribute("aria-pressed", String(chosen.includes(button.dataset.name)));
        }
      }
      for (const [grid, api] of Object.entries(this.apis)) {
        const [colId, sort] = (state[SAYS[grid]] || USUAL[grid]).split(".");
        const known = api.getColumn(colId) && ["asc", "desc"].includes(sort);
        if (known && this.order(grid) !== `${colId}.${sort}`) {
          api.applyColumnState({ state: [{ colId, sort }], defaultState: { sort: null } });
        }
      }
      const model = parsed(state.where);
      const calls = this.apis.calls;
      if (calls && JSON.stringify(model) !== JSON.stringify(calls.getFilterModel())) {
        calls.setFilterModel(model);
      }
      if (calls) calls.setColumnsVisible(["short_name", "family"], !state.kernel);
      this.links(state);
    }

    links(state) {
      for (const grid of Object.keys(OF)) {
        const query = new URLSearchParams(pick(state, [...OF[grid], SAYS[grid]]));
        if (grid === "calls" && state.where) query.set("where", state.where);
        document.getElementById(`kernel-${grid}-csv`).href =
          `/api/kernels/${this.recording}/${grid}.csv?${query}`;
      }
    }

    order(grid) {
      const sorted = this.apis[grid].getColumnState().find((column) => column.sort);
      return sorted ? `${sorted.colId}.${sorted.sort}` : "";
    }

    sorted(grid) {
      if (this.gone()) return;
      const now = this.order(grid);
      window.tracelens.url.write({ [SAYS[grid]]: now === USUAL[grid] ? null : now }, false);
      this.links(window.tracelens.url.read());
    }

    filtered() {
      if (this.gone()) return;
      const model = this.apis.calls.getFilterModel();
      const where = Object.keys(model).length ? JSON.stringify(model) : null;
      window.tracelens.url.write({ where }, false);
      this.links(window.tracelens.url.read());
    }

    type() {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => {
        if (!this.gone()) this.go({ filter: this.search.value || null }, false);
      }, SEARCH_MS);
    }

    press(event) {
      if (event.defaultPrevented || this.gone() || window.tracelens.isTyping(event)) return;
      if (event.key === "/") this.search.focus();
      else if (event.key === "Escape") this.go({ kernel: null }, true);
      else return;
      event.preventDefault();
    }

    /** Ask for pictures and launchers of the chosen kernel, where it or its phases changed. */
    detail() {
      const state = window.tracelens.url.read();
      const chosen = { recording: this.recording, ...pick(state, ["kernel", "phase"]) };
      const said = JSON.stringify(chosen);
      if (said === this.chosen) return;
      this.chosen = said;
      this.title.textContent = state.kernel ? "Its calls" : "Calls of all kernels";
      window.dash_clientside.set_props("kernel-chosen", { data: chosen });
    }

    async copy(button) {
      const query = new URLSearchParams(pick(window.tracelens.url.read(), [...OF.names, "sort"]));
      const before = button.dataset.title || button.textContent;
      button.dataset.title = before;
      try {
        const address = `/api/kernels/${this.recording}/names.${button.dataset.form}?${query}`;
        await window.tracelens.copy(await (await fetch(address)).text());
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not copied: the browser forbids it";
      }
      setTimeout(() => (button.textContent = before), 1500);
    }
  }

  function parsed(where) {
    try {
      return JSON.parse(where || "{}") || {};
    } catch {
      return {};
    }
  }

  async function goTo(recording, call) {
    const got = await fetch(`/api/kernels/${recording}/place?call=${call}`);
    const { href } = await got.json();
    if (href) window.tracelens.url.go(href);
  }

  // Cells

  const cells = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});

  function coloured(kind) {
    return function (props) {
      if (!props.value) return null;
      const style = { backgroundColor: window.tracelens.colour(kind, props.value) };
      return window.React.createElement(
        "span", null, window.React.createElement("span", { className: "square", style }), props.value,
      );
    };
  }

  /** A name that loses its middle where it has no room: many differ at their ends. */
  cells.TracelensName = function (props) {
    if (!props.value) return null;
    const characters = [...props.value];
    const cut = Math.max(0, characters.length - END);
    const part = (className, text) => window.React.createElement("span", { className }, text);
    return window.React.createElement(
      "span",
      { className: "kernel-elided" },
      part("kernel-head", characters.slice(0, cut).join("")),
      part("kernel-tail", characters.slice(cut).join("")),
    );
  };
  cells.TracelensFamily = coloured("family");
  cells.TracelensPhase = coloured("phase");
  cells.TracelensSplit = function (props) {
    if (!props.value) return null;
    const text = props.value.map(([phase, part]) => `${phase} ${Math.round(part * 100)} %`);
    const strips = props.value.map(([phase, part]) =>
      window.React.createElement("span", {
        key: phase,
        style: { width: `${part * 100}%`, backgroundColor: window.tracelens.colour("phase", phase) },
      }),
    );
    const says = { className: "kernel-split", title: text.join(", "), role: "img" };
    return window.React.createElement("div", { ...says, "aria-label": text.join(", ") }, strips);
  };
  cells.TracelensGo = function (props) {
    if (props.value === undefined || props.value === null) return null;
    const does = {
      type: "button",
      className: "kernel-go",
      title: "See it in the timeline",
      "aria-label": "See it in the timeline",
      onClick: () => goTo(document.getElementById("kernels").dataset.recording, props.value),
    };
    return window.React.createElement("button", does, "→");
  };

  let kernels = null;

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.kernels = {
    start: function (recording) {
      const holder = document.getElementById("kernels");
      if (kernels) kernels.stop();
      kernels = holder && holder.dataset.recording ? new Kernels(holder) : null;
      return recording;
    },
    point: function (clicked, recording) {
      if (clicked && clicked.points.length) goTo(recording, clicked.points[0].customdata);
      return window.dash_clientside.no_update;
    },
  };
})();
