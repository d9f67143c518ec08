// The time axis: which part of the recording is in view, and where its ticks stand.
"use strict";

(function (timeline) {
  const NARROWEST_NS = 20;
  const TICK_PX = 110;
  /** From so many units on, ticks say how much after a base. */
  const LONG = 10_000;

  timeline.Axis = class Axis {
    /**
     * @param {number} start of the recording, in ns
     * @param {number} end
     */
    constructor(start, end) {
      this.start = start;
      this.end = Math.max(end, start + NARROWEST_NS);
      this.from = this.start;
      this.to = this.end;
      this.px = 1;
    }

    get span() {
      return this.to - this.from;
    }

    get nsPerPx() {
      return this.span / this.px;
    }

    get isWhole() {
      return this.from <= this.start && this.to >= this.end;
    }

    /** @param {number} ns @returns {number} px from the left */
    x(ns) {
      return (ns - this.from) / this.nsPerPx;
    }

    /** @param {number} x @returns {number} */
    ns(x) {
      return this.from + x * this.nsPerPx;
    }

    /** Show a window; it stays inside the recording and is never too narrow. */
    show(from, to) {
      const whole = this.end - this.start;
      const span = Math.min(Math.max(to - from, NARROWEST_NS), whole);
      const middle = (from + to) / 2;
      this.from = Math.min(Math.max(middle - span / 2, this.start), this.end - span);
      this.to = this.from + span;
    }

    fit() {
      this.show(this.start, this.end);
    }

    /** Zoom by a factor (above 1: out), with the time at `x` px staying where it is. */
    zoom(factor, x) {
      const span = Math.min(Math.max(this.span * factor, NARROWEST_NS), this.end - this.start);
      const from = this.ns(x) - (x / this.px) * span;
      this.show(from, from + span);
    }

    /** Move the window by px to the right. */
    pan(px) {
      const by = px * this.nsPerPx;
      this.show(this.from + by, this.to + by);
    }

    /** Move and, if need be, zoom out until a span is in view. */
    reveal(from, to) {
      if (from >= this.from && to <= this.to) return;
      const span = Math.max(this.span, (to - from) * 1.2);
      const middle = to - from > span ? from + span / 2 : (from + to) / 2;
      this.show(middle - span / 2, middle + span / 2);
    }

    /**
     * Return the ticks, and the time that is left out of their labels where they stand close.
     * @returns {{base: string, ticks: {x: number, label: string}[]}}
     */
    ticks() {
      const step = niceStep(this.nsPerPx * TICK_PX);
      const [factor, unit] = unitOf(step);
      const decimals = Math.max(0, -Math.floor(Math.log10(step / factor) + 1e-9));
      const first = Math.ceil((this.from - this.start) / step);
      const isFar = (first * step) / factor >= LONG;
      const base = isFar ? Math.floor((first * step) / (1000 * factor)) * 1000 * factor : 0;
      const ticks = [];
      for (let i = first; this.start + i * step <= this.to; i += 1) {
        const value = ((i * step - base) / factor).toFixed(decimals);
        const label = `${isFar ? "+" : ""}${value}${unit}`;
        ticks.push({ x: this.x(this.start + i * step), label });
      }
      return { base: isFar ? timeline.format.precise(base) : "", ticks };
    }
  };

  /** Return the smallest of 1, 2, 5 × 10^n that is not below. */
  function niceStep(ns) {
    const power = 10 ** Math.floor(Math.log10(Math.max(ns, 1)));
    return [1, 2, 5, 10].map((m) => m * power).find((step) => step >= ns) || 10 * power;
  }

  function unitOf(step) {
    if (step >= 1e9) return [1e9, " s"];
    if (step >= 1e6) return [1e6, " ms"];
    return step >= 1e3 ? [1e3, " µs"] : [1, " ns"];
  }
})(window.tracelens.timeline);
