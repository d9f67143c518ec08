// The tree in the browser: a flame graph on a canvas, its toolbar, and the same as a table.
//
// The server says what is drawn (figures/flame.py): bars in order, each before those below it. All
// state stands in the URL; names are shown by fillText and textContent alone.
(function () {
  "use strict";
  const ROW_PX = 20;
  const TALLEST_PX = 16000; // canvases that are taller are not drawn by every browser
  const SEARCH_MS = 200;
  const FIELDS = ["view", "by", "backward", "alike", "root", "q"];
  const CHOICES = {
    view: ["Show", { aggregated: "calls of one name together", ordered: "every call, in order" }],
    by: ["wide by", { gpu: "GPU time", cpu: "CPU time", calls: "calls" }],
    backward: ["backward below", { forward: "its forward op", waiting: "who waited for it" }],
    alike: ["layers and steps", { 1: "alike ones together", 0: "each by itself" }],
    colour: ["coloured by", { phase: "phase", family: "kernel family", kind: "what it is" }],
  };
  // What makes the nodes others: the one that was looked at is no more.
  const OTHER_NODES = ["view", "by", "backward", "alike"];
  const HEADS = [
    ["name", "what", "name"],
    ["share", "share", "number"],
    ["value", "width", "number"],
    ["own", "own", "number"],
    ["gpu_ns", "GPU time", "number"],
    ["cpu_ns", "CPU time", "number"],
    ["calls", "calls", "number"],
    ["kernels", "kernels", "number"],
  ];

  function made(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  class Tree {
    constructor(holder) {
      this.holder = holder;
      this.recording = holder.dataset.recording;
      this.ends = new AbortController();
      this.asked = 0;
      this.answer = null;
      this.cursor = null;
      this.build();
      this.listen();
      this.load();
    }

    stop() {
      this.ends.abort();
      clearTimeout(this.typing);
      if (this.watch) this.watch.disconnect();
      this.tip.remove();
    }

    // The parts

    build() {
      this.bar = made("div", "tree-bar");
      this.selects = {};
      for (const [name, [label, options]] of Object.entries(CHOICES)) {
        const field = made("label", "", label);
        const select = made("select");
        select.dataset.choice = name;
        for (const [value, text] of Object.entries(options)) {
          const option = made("option", "", text);
          option.value = value;
          select.append(option);
        }
        field.append(select);
        this.selects[name] = select;
        this.bar.append(field);
      }
      this.search = made("input");
      this.search.type = "search";
      this.search.placeholder = "Search by name ( / )";
      this.search.setAttribute("aria-label", "Search by name");
      this.found = made("span", "tree-found");
      this.found.setAttribute("role", "status");
      this.bar.append(this.search, this.found);
      this.path = made("nav", "tree-path");
      this.path.setAttribute("aria-label", "What is looked at");
      this.scroll = made("div", "tree-scroll");
      this.canvas = made("canvas");
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.scroll.append(this.canvas);
      this.legend = made("div", "tree-legend");
      this.table = made("details", "tree-table");
      this.table.append(made("summary", "", "The same as a table"), made("div"));
      this.said = made("p", "nothing");
      this.tip = made("div", "tree-tip");
      this.tip.hidden = true;
      document.body.append(this.tip);
      this.said.hidden = true;
      this.holder.replaceChildren(
        this.bar, this.path, this.said, this.scroll, this.legend, this.table,
      );
    }

    listen() {
      const signal = { signal: this.ends.signal };
      for (const [name, select] of Object.entries(this.selects)) {
        select.addEventListener("change", () => this.choose(name, select.value), signal);
      }
      this.search.addEventListener("input", () => this.type(), signal);
      this.search.addEventListener(
        "keydown", (event) => event.key === "Escape" && this.search.blur(), signal,
      );
      this.canvas.addEventListener("mousemove", (event) => this.hover(event), signal);
      this.canvas.addEventListener("mouseleave", () => this.leave(), signal);
      this.canvas.addEventListener("click", (event) => this.pick(this.at(event)), signal);
      this.canvas.addEventListener("keydown", (event) => this.walk(event), signal);
      this.table.addEventListener("toggle", () => this.tabulate(), signal);
      window.addEventListener("tracelens:url", () => this.load(), signal);
      window.addEventListener("tracelens:scheme", () => this.draw(), signal);
      document.addEventListener("keydown", (event) => this.press(event), signal);
      this.watch = new ResizeObserver(() => this.draw());
      this.watch.observe(this.scroll);
    }

    gone() {
      if (this.holder.isConnected) return false;
      this.stop();
      return true;
    }

    // State

    go(changes) {
      window.tracelens.url.write(changes, true);
      this.load();
    }

    choose(name, value) {
      const usual = Object.keys(CHOICES[name][1]);
      const first = name === "alike" ? "1" : usual[0];
      const changes = { [name]: name !== "by" && value === first ? null : value };
      if (OTHER_NODES.includes(name)) changes.root = null;
      if (name === "colour") {
        window.tracelens.url.write(changes, false);
        this.paint();
      } else this.go(changes);
    }

    type() {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => {
        window.tracelens.url.write({ q: this.search.value || null }, false);
        this.load();
      }, SEARCH_MS);
    }

    async load() {
      if (this.gone()) return;
      const state = window.tracelens.url.read();
      const query = new URLSearchParams();
      for (const name of FIELDS) if (state[name]) query.set(name, state[name]);
      const number = ++this.asked;
      let answer;
      try {
        const got = await fetch(`/api/tree/${this.recording}/bars?${query}`, {
          signal: this.ends.signal,
        });
        answer = await got.json();
      } catch (error) {
        if (error.name === "AbortError") return;
        answer = { error: "The explorer does not answer: is it still running?" };
      }
      if (number !== this.asked || this.gone()) return;
      this.show(answer, state);
    }

    show(answer, state) {
      const why = answer.nothing || answer.error;
      for (const part of [this.bar, this.path, this.scroll, this.legend, this.table]) {
        part.hidden = Boolean(why);
      }
      this.said.hidden = !why;
      this.said.textContent = why || "";
      this.answer = why ? null : answer;
      if (why) return;
      this.leave();
      this.cursor = null;
      this.lay();
      this.fields(state);
      this.breadcrumbs();
      this.paint();
      this.tabulate();
      const chosen = { recording: this.recording };
      for (const name of FIELDS) chosen[name] = state[name] || "";
      window.dash_clientside.set_props("tree-chosen", { data: chosen });
      this.holder.dataset.shown = String(this.asked);
    }

    fields(state) {
      const { by, view, hits } = this.answer;
      const now = { ...state, by, view };
      for (const [name, select] of Object.entries(this.selects)) {
        const options = Object.keys(CHOICES[name][1]);
        const usual = name === "alike" ? "1" : options[0];
        select.value = options.includes(now[name]) ? now[name] : usual;
      }
      this.selects.backward.parentElement.hidden = by === "cpu";
      this.selects.alike.parentElement.hidden = view === "ordered";
      if (document.activeElement !== this.search) this.search.value = state.q || "";
      this.found.textContent = hits
        ? `${hits.nodes.toLocaleString("en")} found: ${hits.text}, ${hits.share}`
        : "";
    }

    // Where everything stands: from 0 to 1, by the widths that add up

    lay() {
      const { depth, value } = this.answer.bars;
      const total = value[0] || 1;
      const next = [0];
      this.left = new Float64Array(depth.length);
      this.parent = new Int32Array(depth.length).fill(-1);
      const open = [];
      for (let i = 0; i < depth.length; i++) {
        const level = depth[i];
        this.left[i] = next[level] / total;
        next[level + 1] = next[level];
        next[level] += value[i];
        this.parent[i] = level ? open[level - 1] : -1;
        open[level] = i;
      }
      this.total = total;
      this.levels = Math.max(...depth) + 1;
    }

    name(i) {
      const { bars, names, whole } = this.answer;
      if (bars.more[i]) return `${bars.more[i].toLocaleString("en")} more`;
      return bars.name[i] < 0 ? whole : names[bars.name[i]];
    }

    // Drawing

    colouring() {
      const said = window.tracelens.url.read().colour;
      return Object.hasOwn(CHOICES.colour[1], said || "") ? said : "phase";
    }

    colours() {
      const how = this.colouring();
      const { kinds, phase_names: phases, family_names: families, bars } = this.answer;
      const none = window.tracelens.palette().none;
      const of = {
        kind: kinds,
        phase: phases.map((name) => [name, window.tracelens.colour("phase", name)]),
        family: families.map((name) => [name, window.tracelens.colour("family", name)]),
      }[how];
      const code = bars[how];
      return { of, code, none, at: (i) => (code[i] < 0 ? none : of[code[i]][1]) };
    }

    paint() {
      const { of, code, none } = this.colours();
      const { by } = this.answer;
      const used = [...new Set(code)].sort((a, b) => (a < 0) - (b < 0) || a - b);
      const entries = used.map((one) => (one < 0 ? ["none", none] : of[one]));
      const seen = new Map(entries);
      this.legend.replaceChildren(
        ...[...seen].map(([text, colour]) => {
          const entry = made("span");
          const square = made("span", "square");
          square.style.backgroundColor = colour;
          entry.append(square, text);
          return entry;
        }),
        made("span", "", HOW[this.colouring()]),
      );
      this.canvas.setAttribute(
        "aria-label",
        `Flame graph by ${CHOICES.by[1][by]}: ${this.answer.bars.depth.length} bars; the table below says the same`,
      );
      this.draw();
    }

    draw() {
      if (!this.answer || this.gone()) return;
      const width = this.scroll.clientWidth;
      const height = Math.min(this.levels * ROW_PX, TALLEST_PX);
      const ratio = window.devicePixelRatio || 1;
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
      const pen = this.canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = "12px system-ui, sans-serif";
      pen.textBaseline = "middle";
      const { depth, value } = this.answer.bars;
      const colours = this.colours();
      const fits = this.fitting();
      const ink = getComputedStyle(this.holder).color;
      for (let i = 0; i < depth.length; i++) {
        const top = depth[i] * ROW_PX;
        if (top >= height) continue;
        const left = this.left[i] * width;
        const wide = i ? (value[i] / this.total) * width : width;
        pen.globalAlpha = fits && !fits(i) ? 0.35 : 1;
        pen.fillStyle = colours.at(i);
        pen.fillRect(left, top, Math.max(wide - (wide > 3 ? 1 : 0), 0.5), ROW_PX - 1);
        if (i === this.cursor) {
          pen.strokeStyle = ink;
          pen.lineWidth = 2;
          pen.strokeRect(left + 1, top + 1, Math.max(wide - 3, 1), ROW_PX - 3);
        }
        if (wide > 28) this.write(pen, i, left, top, wide, colours.at(i));
      }
      pen.globalAlpha = 1;
      this.canvas.dataset.drawn = String(Number(this.canvas.dataset.drawn || 0) + 1);
    }

    write(pen, i, left, top, wide, colour) {
      pen.fillStyle = isLight(colour) ? "#000" : "#fff";
      const room = wide - 9;
      let text = this.name(i);
      if (text.length * 4 > room) text = text.slice(0, Math.ceil(room / 4));
      while (text.length > 1 && pen.measureText(text).width > room) {
        text = text.slice(0, Math.max(1, Math.floor(text.length * 0.9))) ;
      }
      if (text !== this.name(i)) text = text.slice(0, -1) + "…";
      pen.fillText(text, left + 4, top + ROW_PX / 2);
    }

    fitting() {
      const wanted = (window.tracelens.url.read().q || "").toLowerCase();
      if (!wanted) return null;
      return (i) => this.answer.bars.name[i] >= 0 && this.name(i).toLowerCase().includes(wanted);
    }

    // Looking, and going elsewhere

    at(event) {
      const box = this.canvas.getBoundingClientRect();
      const level = Math.floor((event.clientY - box.top) / ROW_PX);
      const x = (event.clientX - box.left) / box.width;
      const { depth, value } = this.answer.bars;
      let found = null;
      for (let i = 0; i < depth.length; i++) {
        if (depth[i] === level && this.left[i] <= x) {
          if (i === 0 || x < this.left[i] + value[i] / this.total) found = i;
        }
      }
      return found;
    }

    hover(event) {
      const i = this.at(event);
      if (i === null) return this.leave();
      const { bars, by, kinds, phase_names: phases } = this.answer;
      const lines = [made("b", "", this.name(i))];
      const one = bars.more[i] === 0;
      if (one && bars.kind[i] >= 0) {
        const phase = bars.phase[i] < 0 ? "" : ` · ${phases[bars.phase[i]]}`;
        lines.push(made("div", "", KIND_NAMES[kinds[bars.kind[i]][0]] + phase));
      } else if (!one) lines.push(made("div", "", "too small to be drawn one by one"));
      const rows = [`${CHOICES.by[1][by]} ${bars.text[i]}, ${bars.share[i]} of all`];
      if (one && bars.own[i] !== bars.value[i]) rows.push(`of that its own ${bars.own_text[i]}`);
      if (by !== "gpu") rows.push(`GPU time ${bars.gpu_text[i]}`);
      if (by !== "cpu") rows.push(`CPU time ${bars.cpu_text[i]}`);
      rows.push(`${bars.calls[i].toLocaleString("en")} calls, ${bars.kernels[i].toLocaleString("en")} kernels, with all below`);
      lines.push(...rows.map((text) => made("div", "", text)));
      this.tip.replaceChildren(...lines);
      this.tip.hidden = false;
      const box = this.tip.getBoundingClientRect();
      const right = Math.max(4, Math.min(event.clientX + 14, window.innerWidth - box.width - 4));
      const below = event.clientY + 18;
      const fits = below + box.height < window.innerHeight;
      this.tip.style.left = `${right}px`;
      this.tip.style.top = `${fits ? below : event.clientY - box.height - 10}px`;
    }

    leave() {
      this.tip.hidden = true;
    }

    /** Look at a bar alone; several nodes as one are looked at through the bar above them. */
    pick(i) {
      if (i === null || i === undefined) return;
      const { node, more } = this.answer.bars;
      const target = more[i] ? this.parent[i] : i;
      if (target === 0) return this.up();
      this.go({ root: node[target] });
    }

    up() {
      const { path, bars } = this.answer;
      if (bars.node[0] === null) return;
      this.go({ root: path.length ? path[path.length - 1][0] : null });
    }

    breadcrumbs() {
      const { path, names, bars, whole, whole_text: sum, sum_text: looked } = this.answer;
      const steps = [[null, whole], ...path.map(([node, name]) => [node, names[name]])];
      if (bars.node[0] !== null) steps.push([bars.node[0], this.name(0)]);
      const parts = steps.flatMap(([node, text], place) => {
        const button = made("button", "", text);
        button.type = "button";
        button.title = text;
        if (place === steps.length - 1) button.setAttribute("aria-current", "true");
        else button.addEventListener("click", () => this.go({ root: node }));
        return place ? [made("span", "", "›"), button] : [button];
      });
      const share = bars.node[0] === null ? sum : `${looked}, ${bars.share[0]} of ${sum}`;
      this.path.replaceChildren(...parts, made("span", "sum", share));
    }

    press(event) {
      if (event.defaultPrevented || this.gone() || !this.answer) return;
      if (window.tracelens.isTyping(event)) return;
      if (event.key === "Escape") this.up();
      else if (event.key === "f") this.go({ root: null });
      else if (event.key === "/") this.search.focus();
      else return;
      event.preventDefault();
    }

    walk(event) {
      const { depth } = this.answer.bars;
      const here = this.cursor === null ? 0 : this.cursor;
      const next = {
        ArrowDown: () => (depth[here + 1] === depth[here] + 1 ? here + 1 : here),
        ArrowUp: () => Math.max(this.parent[here], 0),
        ArrowRight: () => this.beside(here, 1),
        ArrowLeft: () => this.beside(here, -1),
      }[event.key];
      if (next) {
        this.cursor = this.cursor === null ? 0 : next();
        this.draw();
      } else if (event.key === "Enter") this.pick(here);
      else return;
      event.preventDefault();
    }

    beside(i, step) {
      const { depth } = this.answer.bars;
      for (let j = i + step; j >= 0 && j < depth.length && depth[j] >= depth[i]; j += step) {
        if (depth[j] === depth[i]) return j;
      }
      return i;
    }

    // The table

    tabulate() {
      if (!this.answer || !this.table.open) return;
      const { bars } = this.answer;
      const head = made("tr");
      for (const [name, text, kind] of HEADS) {
        const cell = made("th", kind, text);
        cell.dataset.name = name;
        head.append(cell);
      }
      const rows = bars.depth.map((_, i) => this.row(i));
      const table = made("table", "table");
      const [top, body] = [made("thead"), made("tbody")];
      top.append(head);
      body.append(...rows);
      table.append(top, body);
      const scroll = made("div", "table-scroll");
      scroll.append(table);
      const buttons = made("div", "copy-buttons");
      for (const [form, title] of [["csv", "CSV"], ["markdown", "Markdown"]]) {
        const button = made("button", "copy-table", `Copy as ${title}`);
        button.dataset.format = form;
        buttons.append(button);
      }
      const whole = made("div", "tabled");
      whole.append(scroll, buttons);
      this.table.lastElementChild.replaceChildren(whole);
    }

    row(i) {
      const { bars } = this.answer;
      const count = (number) => number.toLocaleString("en");
      const texts = {
        share: bars.share[i],
        value: bars.text[i],
        own: bars.own_text[i],
        gpu_ns: (bars.gpu_text || bars.text)[i],
        cpu_ns: (bars.cpu_text || bars.text)[i],
        calls: count(bars.calls[i]),
        kernels: count(bars.kernels[i]),
      };
      const row = made("tr");
      for (const [name, , kind] of HEADS) {
        const cell = made("td", kind, name === "name" ? undefined : texts[name]);
        if (name === "name") {
          const button = made("button", "", "· ".repeat(bars.depth[i]) + this.name(i));
          button.type = "button";
          button.addEventListener("click", () => this.pick(i));
          cell.append(button);
          cell.dataset.value = defused("· ".repeat(bars.depth[i]) + this.name(i));
        } else if (name === "share") cell.dataset.value = String(bars.value[i] / this.total);
        else cell.dataset.value = String(bars[name][i]);
        row.append(cell);
      }
      return row;
    }
  }

  const HOW = {
    phase: "by when it began",
    family: "by what most of its GPU time is spent on",
    kind: "",
  };
  const KIND_NAMES = {
    range: "named range",
    module: "nn.Module",
    op: "PyTorch op",
    thread: "thread",
    none: "launched in nothing that was recorded",
  };

  /** Make a text that a spreadsheet would take for a formula plain text. */
  function defused(text) {
    return /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
  }

  function isLight(colour) {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
    return 0.2126 * r ** 2.2 + 0.7152 * g ** 2.2 + 0.0722 * b ** 2.2 > 0.2;
  }

  let tree = null;

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.tree = {
    start: function (recording) {
      const holder = document.getElementById("tree");
      if (tree) tree.stop();
      tree = holder && holder.dataset.recording ? new Tree(holder) : null;
      return recording;
    },
  };
})();
