// What the server is asked: JSON, pictures of rows as arrays, and names, each name once.
"use strict";

(function (timeline) {
  const KINDS = {
    f32: Float32Array,
    f64: Float64Array,
    u8: Uint8Array,
    u16: Uint16Array,
    u32: Uint32Array,
    i32: Int32Array,
  };

  timeline.Server = class Server {
    /**
     * @param {string} run id of the recording
     * @param {function(): void} stirred is called when more or fewer replies are waited for
     */
    constructor(run, stirred) {
      this.stirred = stirred;
      this.base = `/api/timeline/${encodeURIComponent(run)}/`;
      this.leaving = new AbortController();
    }

    /** Give up on all that is under way. */
    stop() {
      this.leaving.abort();
    }

    /**
     * Ask for JSON; raises Error with the server's own line where it refuses.
     * @param {string} what
     * @param {Object<string, *>} [query]
     * @param {AbortSignal} [signal]
     */
    async json(what, query, signal) {
      return this.ask(what, query, signal, (answer) => answer.json());
    }

    /** Ask for what rows show; @returns {Promise<{header: Object, rows: Map<string, Object>}>} */
    async view(query, signal) {
      return decode(await this.ask("view", query, signal, (answer) => answer.arrayBuffer()));
    }

    async ask(what, query, signal, read) {
      const asked = new URLSearchParams(
        Object.entries(query || {}).filter(([, value]) => value !== null && value !== undefined)
      );
      this.waiting(1);
      try {
        const both = signal ? AbortSignal.any([signal, this.leaving.signal]) : this.leaving.signal;
        const answer = await fetch(`${this.base}${what}?${asked}`, { signal: both });
        if (!answer.ok) throw new Error(await reason(answer));
        return await read(answer);
      } finally {
        this.waiting(-1);
      }
    }

    waiting(more) {
      timeline.pending += more;
      this.stirred();
    }
  };

  async function reason(answer) {
    try {
      return (await answer.json()).error || answer.statusText;
    } catch {
      return `The server answered ${answer.status}.`;
    }
  }

  /** Cut a reply into its header and, per row, the arrays that the header names. */
  function decode(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const data = 4 + length;
    const rows = new Map();
    for (const row of header.rows) {
      const arrays = {};
      for (const [name, [offset, kind, size]] of Object.entries(row.arrays)) {
        // Numbers of names may be negative; they come as their 32 bits.
        const type = name === "name" ? Int32Array : KINDS[kind];
        arrays[name] = new type(buffer, data + offset, size);
      }
      rows.set(row.id, { ...row, ...arrays });
    }
    return { header, rows };
  }

  const NAMES_AT_ONCE = 200;

  /** Names by their number; those not known yet are asked for together. */
  timeline.Names = class Names {
    /** @param {Server} server @param {function} arrived is called when more are known */
    constructor(server, arrived) {
      this.server = server;
      this.arrived = arrived;
      this.known = new Map();
      this.wanted = new Set();
      this.asking = false;
    }

    /** Return a name, or an empty text until it is known. */
    get(id) {
      const name = this.known.get(id);
      if (name === undefined) {
        this.wanted.add(id);
        this.known.set(id, "");
      }
      return name || "";
    }

    /** Ask for what was looked for in vain; call it once a picture is drawn. */
    async fetch() {
      if (this.asking || !this.wanted.size) return;
      this.asking = true;
      const ids = [...this.wanted].slice(0, NAMES_AT_ONCE);
      for (const id of ids) this.wanted.delete(id);
      try {
        const names = await this.server.json("name", { ids: ids.join(",") });
        for (const [id, name] of Object.entries(names)) this.known.set(Number(id), name);
      } catch {
        // A picture without these names is better than none; leaving the page ends here, too.
      }
      this.asking = false;
      this.arrived();
    }
  };
})(window.tracelens.timeline);
