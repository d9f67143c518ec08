// What the pictures of the memory page share: numbers as text, arrays out of replies, a canvas.
(function () {
  "use strict";
  const STEPS = {
    bytes: [[1, "B"], [2 ** 10, "KiB"], [2 ** 20, "MiB"], [2 ** 30, "GiB"], [2 ** 40, "TiB"]],
    ns: [[1, "ns"], [1e3, "µs"], [1e6, "ms"], [1e9, "s"]],
    count: [[1, ""]],
  };
  const ARRAYS = {
    float32: Float32Array,
    float64: Float64Array,
    int32: Int32Array,
    uint16: Uint16Array,
    uint8: Uint8Array,
  };

  function step(unit, most) {
    const fits = STEPS[unit].filter((one) => one[0] <= Math.max(Math.abs(most), 1));
    return fits[fits.length - 1];
  }

  function text(unit, value, like) {
    const [factor, suffix] = step(unit, like === undefined ? value : like);
    const number = value / factor;
    const digits = factor === 1 ? 0 : Math.abs(number) < 10 ? 2 : 1;
    return fixed(number, digits) + (suffix ? " " + suffix : "");
  }

  function fixed(number, digits) {
    return number.toLocaleString("en-US", {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    });
  }

  // Round places on an axis, and what stands beside them; all of one unit and precision.
  function ticks(unit, begin, end, most) {
    const [factor, suffix] = step(unit, Math.max(Math.abs(begin), Math.abs(end)));
    const span = (end - begin) / factor;
    const raw = span / Math.max(most, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    let each = [1, 2, 5, 10].find((one) => one * power >= raw) * power;
    if (factor === 1) each = Math.max(1, Math.round(each));
    const digits = Math.max(0, -Math.floor(Math.log10(each) + 1e-9));
    const found = [];
    for (let n = Math.ceil(begin / factor / each - 1e-9); n * each * factor <= end; n++) {
      const label = fixed(n * each, digits) + (suffix ? " " + suffix : "");
      found.push({ at: n * each * factor, label: label });
    }
    return found;
  }

  function unpack(value) {
    if (Array.isArray(value)) return value.map(unpack);
    if (value === null || typeof value !== "object") return value;
    if ("base64" in value) {
      const raw = atob(value.base64);
      const bytes = new Uint8Array(raw.length);
      for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
      return new ARRAYS[value.dtype](bytes.buffer);
    }
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, unpack(one)]));
  }

  // Ask the server; of several questions in flight only the last one is answered.
  function asker() {
    let last = null;
    return async function (path, query) {
      if (last) last.abort();
      const mine = (last = new AbortController());
      try {
        const said = await fetch(path + "?" + new URLSearchParams(query), { signal: mine.signal });
        const found = unpack(await said.json());
        return mine === last ? found : null;
      } catch (error) {
        if (mine.signal.aborted) return null;
        throw error;
      }
    };
  }

  // Fit a canvas to its place, in real pixels, and give its context with the page's colours.
  function prepare(canvas, height) {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(200, Math.floor(canvas.parentElement.clientWidth));
    canvas.style.height = height + "px";
    if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
      canvas.width = width * ratio;
      canvas.height = height * ratio;
    }
    const draw = canvas.getContext("2d");
    draw.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw.clearRect(0, 0, width, height);
    draw.font = "12px system-ui, sans-serif";
    const dark = window.tracelens.scheme() === "dark";
    return {
      draw: draw,
      width: width,
      height: height,
      ink: dark ? "#d5d9dd" : "#20262c",
      quiet: dark ? "#98a1aa" : "#5c6670",
      line: dark ? "#3a4047" : "#dfe3e7",
      paper: dark ? "#242424" : "#ffffff",
      veil: dark ? "rgba(36,36,36,0.4)" : "rgba(255,255,255,0.4)",
      alarm: dark ? "#ff8f7a" : "#c92a2a",
    };
  }

  function element(tag, className, content) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (content !== undefined) made.textContent = content;
    return made;
  }

  function swatch(colour) {
    const made = element("span", "square");
    made.style.backgroundColor = colour;
    return made;
  }

  // Show lines beside the pointer: [colour or null, name, value].
  function tip(box, event, title, lines) {
    box.replaceChildren(element("strong", "", title));
    for (const [colour, name, value] of lines) {
      const line = element("div", "memory-tip-line");
      if (colour) line.append(swatch(colour));
      line.append(element("span", "", name), element("span", "memory-tip-value", value || ""));
      box.append(line);
    }
    const place = box.parentElement.getBoundingClientRect();
    const x = event.clientX - place.left;
    box.style.display = "block";
    const left = x + 18 + box.offsetWidth > place.width ? x - box.offsetWidth - 14 : x + 18;
    box.style.left = Math.max(0, left) + "px";
    box.style.top = event.clientY - place.top + 12 + "px";
  }

  function untip(box) {
    if (box) box.style.display = "none";
  }

  window.tracelensMemory = {
    text: text,
    ticks: ticks,
    asker: asker,
    prepare: prepare,
    element: element,
    swatch: swatch,
    tip: tip,
    untip: untip,
    LEFT: 78,
    RIGHT: 14,
  };
})();
