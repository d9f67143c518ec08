// What the panel says: the details of one item, the statistics of a range, the items in view.
"use strict";

(function (timeline) {
  const THINGS = { ranges: "range", ops: "op", api: "CUDA call" };

  /**
   * Return the details of an item, with buttons that lead to what belongs to it.
   * @param {Timeline} page
   * @param {Object} item as the server tells it
   */
  timeline.details = function (page, item) {
    const { el } = timeline;
    return el(
      "div",
      { class: "tl-details" },
      el("h2", { class: "tl-title" }, item.short_name || item.name),
      el("div", { class: "tl-split" }, main(page, item), facts(item), around(page, item)),
    );
  };

  function main(page, item) {
    const { format } = timeline;
    const row = page.rows.byId.get(item.row);
    return list([
      ["duration", format.time(item.end_ns - item.start_ns)],
      ["start", format.precise(item.start_ns - page.axis.start)],
      ["what", THINGS[item.kind] || null],
      ["phase", item.phase],
      ["kind of work", item.family],
      ["row", row ? `${row.label}, ${row.group}` : null],
      ["launched inside", item.work ? work(item.work) : null],
      ["CUDA graph", item.graph ? graph(item.graph) : null],
      ["full name", item.name === item.short_name ? null : item.name],
    ]);
  }

  function facts(item) {
    return list((item.facts || []).map((fact) => [fact.label, fact.text]));
  }

  function graph({ graph_id: id, graph_node: node }) {
    const parts = [id === null ? null : `graph ${id}`, node === null ? null : `node ${node}`];
    return parts.filter(Boolean).join(", ");
  }

  function work({ kernels, kernel_time_ns: took }) {
    const { count, time } = timeline.format;
    return `${count(kernels)} ${kernels === 1 ? "kernel" : "kernels"}, ${time(took)}`;
  }

  function list(pairs) {
    const { el } = timeline;
    const known = pairs.filter(([, text]) => text !== null && text !== undefined && text !== "");
    const parts = known.flatMap(([label, text]) => [el("dt", {}, label), el("dd", {}, text)]);
    return el("dl", { class: "tl-facts" }, ...parts);
  }

  /** Say what an item belongs to, from the outside in, and what it launched. */
  function around(page, item) {
    const { count } = timeline.format;
    const pairs = [
      ...(item.ranges || []).map((range) => ["in range", go(page, range)]),
      ["by op", item.op ? go(page, item.op) : null],
      ["launched by", item.launch ? go(page, item.launch) : null],
      ...(item.launched || []).slice(0, 20).map((one) => ["launched", go(page, one)]),
    ];
    const more = (item.launched_count || 0) - 20;
    if (more > 0) pairs.push(["", `and ${count(more)} more`]);
    return list(pairs);
  }

  function go(page, item) {
    const took = timeline.format.time(item.end_ns - item.start_ns);
    const onclick = () => page.visit(item);
    const { el } = timeline;
    return el("span", {}, el("button", { class: "tl-link", onclick }, item.name), ` ${took}`);
  }

  /**
   * Return the statistics of a range: how busy, and the tables of `tracelens summarize`.
   * @param {Timeline} page
   * @param {Object} stats as the server tells them
   */
  timeline.statistics = function (page, stats) {
    const { el } = timeline;
    const { from, to, tables, totals, devices } = stats;
    const { sel } = page.state;
    const zoom = () => page.jump((axis) => axis.show(from, to));
    const toIt = el("button", { class: "tl-go", onclick: zoom }, "Zoom to it");
    const head = el(
      "p",
      {},
      el("strong", {}, timeline.format.time(to - from)),
      ` ${sel ? "selected" : "in view"}: ${summed(totals)}. `,
      devices.map(busy).join(" "),
      ` ${stats.note || ""} `,
      sel ? toIt : null,
    );
    const parts = tables.map((table) => part(page, table));
    const [phases, families, ...others] = parts;
    const beside = el("div", { class: "tl-split" }, phases || "", families || "");
    return el("div", { class: "tl-statistics" }, head, beside, ...others);
  };

  function summed(totals) {
    const { count, time } = timeline.format;
    const kinds = [
      ["kernels", "kernel_time_ns", "kernel"],
      ["graph_launches", "graph_time_ns", "graph launch"],
      ["copies", "copy_time_ns", "copy"],
      ["memsets", "memset_time_ns", "memset"],
    ];
    const said = kinds
      .filter(([number]) => totals[number])
      .map(([number, took, thing]) => {
        const things = totals[number] === 1 ? thing : thing.replace(/(ch|y)?$/, plural);
        return `${count(totals[number])} ${things} (${time(totals[took])})`;
      });
    return said.join(", ") || "no GPU work";
  }

  function plural(end) {
    return end === "y" ? "ies" : end === "ch" ? "ches" : "s";
  }

  function busy({ device, busy_ns: took, busy_share: share, idle_ns: idle }) {
    const { time, share: part } = timeline.format;
    const gpu = device === null ? "The GPU" : `GPU ${device}`;
    return `${gpu} was busy ${time(took)} of it (${part(share)}) and idle ${time(idle)}.`;
  }

  function part(page, table) {
    const { el } = timeline;
    const title = el("h3", { class: "tl-title" }, table.title);
    if (!table.rows.length) {
      return el("div", {}, title, el("p", { class: "nothing" }, table.note || "None here."));
    }
    const headings = table.columns.map((column) => ({
      name: column.name,
      title: column.heading,
      kind: kindOf(column.unit),
    }));
    const rows = table.rows.map((row, i) =>
      table.columns.map((column, j) => ({
        text: table.text[i][j],
        value: row[column.name],
        color: colorOf(page, column.name, row[column.name]),
      })),
    );
    return el("div", {}, title, timeline.table(headings, rows, table.note));
  }

  function kindOf(unit) {
    if (unit === "name") return "name";
    return unit === "text" || unit === "flag" ? "text" : "number";
  }

  function colorOf(page, column, value) {
    if (column !== "phase" && column !== "family") return undefined;
    return window.tracelens.colour(column, value);
  }

  /**
   * Return a table of items in view.
   * @param {Timeline} page
   * @param {Object[]} items as `page.itemsInView` finds them
   * @param {number} most so many are shown
   */
  timeline.listed = function (page, items, most) {
    const headings = [
      { name: "start_ns", title: "start", kind: "number" },
      { name: "duration_ns", title: "about", kind: "number" },
      { name: "name", title: "name", kind: "name" },
      { name: "phase", title: "phase", kind: "text" },
      { name: "family", title: "kind of work", kind: "text" },
      { name: "row", title: "row", kind: "text" },
    ];
    const rows = items.slice(0, most).map((item) => cells(page, item));
    page.names.fetch();
    const note =
      items.length > most
        ? `The first ${most} in view. Durations are as exact as the picture; pick one for its own.`
        : "Durations are as exact as the picture; pick one for its own.";
    return timeline.table(headings, rows, note);
  };

  /** @param {{name: string, color: string}|undefined} code a phase or family, if there is one */
  function coded(code) {
    return code ? { text: code.name, value: code.name, color: code.color } : { text: "–" };
  }

  function cells(page, { row, tile, i }) {
    const { precise, time } = timeline.format;
    const start = Math.round(tile.from + tile.x0[i] * tile.nsPerPx);
    const took = Math.round((tile.x1[i] - tile.x0[i]) * tile.nsPerPx);
    const phase = page.colors.phases[tile.phase[i]];
    const family = page.colors.families[tile.family[i]];
    const name = page.names.get(tile.name[i]) || "…";
    const { label } = page.rows.byId.get(row);
    return [
      { text: precise(start - page.axis.start), value: start },
      { text: time(took), value: took },
      { text: name, value: name, act: () => page.pick({ row, item: tile.item[i] }) },
      coded(phase),
      coded(family),
      { text: label, value: label },
    ];
  }
})(window.tracelens.timeline);
