// Wheel, pointer and keys: what the user does becomes what the page is asked to do.
"use strict";

(function (timeline) {
  const STEP = 1.25;
  const PAN = 0.15;
  const CLICK_PX = 4;
  const WHEEL = 0.0018;
  const PINCH = 0.01;

  timeline.Input = class Input {
    /** @param {Timeline} page */
    constructor(page) {
      this.page = page;
      this.drag = null;
      /** Whether the next drag selects, as with shift. */
      this.selects = false;
      this.leaving = new AbortController();
    }

    start() {
      const { canvas, stage } = this.page;
      const on = (target, name, act, options) =>
        target.addEventListener(name, act.bind(this), { signal: this.leaving.signal, ...options });
      on(stage, "wheel", this.wheel, { passive: false });
      on(canvas, "pointerdown", this.down);
      on(canvas, "pointermove", this.moved);
      on(canvas, "pointerup", this.up);
      on(canvas, "pointercancel", this.cancel);
      on(canvas, "pointerleave", () => this.page.hover(null));
      on(document, "keydown", this.key);
    }

    stop() {
      this.leaving.abort();
    }

    at(event) {
      const box = this.page.canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    }

    /** The wheel zooms; where rows do not fit it scrolls them, and with ctrl it zooms. */
    wheel(event) {
      const { page } = this;
      const { x, y } = this.at(event);
      const sideways = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
      const scrolls = page.overflows && !event.ctrlKey && !event.metaKey && y > timeline.RULER;
      const isZoom = !sideways && !scrolls && x >= 0;
      if (!sideways && !isZoom) return;
      event.preventDefault();
      const unit = event.deltaMode === 1 ? 16 : 1;
      // A pinch on a touchpad comes as a wheel of a few px with ctrl.
      const rate = event.ctrlKey && Math.abs(event.deltaY) < 40 ? PINCH : WHEEL;
      if (isZoom) page.move((axis) => axis.zoom(Math.exp(event.deltaY * unit * rate), x));
      else page.move((axis) => axis.pan(sideways * unit));
    }

    down(event) {
      if (event.button !== 0) return;
      const { x, y } = this.at(event);
      this.page.canvas.setPointerCapture(event.pointerId);
      const selects = event.shiftKey || this.selects || y < timeline.RULER;
      this.drag = { x, y, lastX: x, lastY: y, moved: false, selects, ns: this.page.axis.ns(x) };
      this.page.canvas.focus({ preventScroll: true });
    }

    moved(event) {
      const { page, drag } = this;
      const at = this.at(event);
      if (!drag) return page.hover(at);
      drag.moved = drag.moved || Math.hypot(at.x - drag.x, at.y - drag.y) > CLICK_PX;
      if (!drag.moved) return undefined;
      if (drag.selects) page.select(drag.ns, page.axis.ns(at.x), false);
      else {
        page.move((axis) => axis.pan(drag.lastX - at.x));
        page.stage.scrollTop += drag.lastY - at.y;
      }
      drag.lastX = at.x;
      drag.lastY = at.y;
      return page.hover(null);
    }

    up(event) {
      const { page, drag } = this;
      this.drag = null;
      if (!drag) return;
      const { x, y } = this.at(event);
      if (drag.moved && drag.selects) {
        this.setSelects(false);
        page.select(drag.ns, page.axis.ns(x), true);
      } else if (!drag.moved) page.click(x, y);
    }

    cancel() {
      this.drag = null;
    }

    setSelects(on) {
      this.selects = on;
      this.page.canvas.classList.toggle("tl-selects", on);
    }

    /** @param {KeyboardEvent} event */
    key(event) {
      const isBox = event.target.type === "checkbox";
      if (event.defaultPrevented || (window.tracelens.isTyping(event) && !isBox)) return;
      if (document.querySelector("[role=dialog]")) return;
      const act = this.keys()[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act) return;
      event.preventDefault();
      act(event);
    }

    keys() {
      const { page } = this;
      const middle = page.pointerX === null ? page.axis.px / 2 : page.pointerX;
      const zoom = (factor) => () => page.move((axis) => axis.zoom(factor, middle));
      const pan = (part) => () => page.move((axis) => axis.pan(part * axis.px));
      return {
        w: zoom(1 / STEP),
        s: zoom(STEP),
        a: pan(-PAN),
        d: pan(PAN),
        f: () => page.fit(),
        r: () => page.selectPick(),
        m: () => page.mark(),
        n: (event) => page.search.walk(event.shiftKey ? -1 : 1),
        "/": () => page.toolbar.focusSearch(),
        Escape: () => page.escape(),
        ArrowRight: () => page.step(1),
        ArrowLeft: () => page.step(-1),
      };
    }
  };
})(window.tracelens.timeline);
