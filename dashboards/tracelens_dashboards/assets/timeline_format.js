// Numbers with their units, by the rules of tracelens.units, and the DOM of text alone.
"use strict";

(function (timeline) {
  const TIMES = [[1e9, " s"], [1e6, " ms"], [1e3, " µs"], [1, " ns"]];
  const BINARY = [" TiB", " GiB", " MiB", " KiB", " B"];
  const SIZES = BINARY.map((unit, i) => [1024 ** (BINARY.length - 1 - i), unit]);

  function commas(text) {
    const [whole, part] = text.split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return part === undefined ? grouped : `${grouped}.${part}`;
  }

  function inSteps(value, ladder) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    const [factor, unit] = ladder.find(([step]) => step <= size) || ladder[ladder.length - 1];
    const figure = value / factor;
    if (factor === 1 && Number.isInteger(value)) return commas(String(value)) + unit;
    return commas(figure.toFixed(Math.abs(figure).toFixed(0).length < 2 ? 2 : 1)) + unit;
  }

  timeline.format = {
    /** @param {number|null} ns */
    time: (ns) => inSteps(ns, TIMES),
    /** To the nanosecond, without needless zeros. @param {number} ns */
    precise: (ns) => `${(ns / 1e6).toFixed(6).replace(/\.?0+$/, "")} ms`,
    /** @param {number|null} bytes */
    size: (bytes) => inSteps(bytes, SIZES),
    /** @param {number} number */
    count: (number) => commas(String(Math.round(number))),
    /** @param {number} part of one */
    share: (part) => {
      if (part > 0 && part < 0.001) return "<0.1 %";
      return `${(100 * part).toFixed(part < 0.0995 ? 1 : 0)} %`;
    },
  };

  /**
   * Return an element; texts become text nodes, whatever they hold.
   * @param {string} tag
   * @param {Object<string, *>} [attributes] `onclick` and the like are listeners
   * @param {...(Node|string|null)} children
   */
  timeline.el = function (tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) {
        made.setAttribute(name, value);
      }
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };
})(window.tracelens.timeline);
