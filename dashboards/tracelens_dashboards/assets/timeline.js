// The timeline's page in the browser: starts when its container is there, stops when it goes.
//
// One file = one class, hung onto `tracelens.timeline`; this one is loaded first.
"use strict";

(function () {
  const tracelens = (window.tracelens = window.tracelens || {});

  /** What the files of the timeline share, and what tests may look at. */
  const timeline = (tracelens.timeline = {
    /** How often the picture was drawn from data of just this window. */
    drawn: 0,
    /** Replies that are waited for. */
    pending: 0,
    /** The timeline on the page, or null. */
    now: null,
  });

  function look() {
    const place = document.getElementById("timeline");
    const now = timeline.now;
    const run = place && place.dataset.runId;
    if (now && (now.place !== place || now.run !== run)) {
      now.stop();
      timeline.now = null;
    }
    if (place && !timeline.now) {
      timeline.now = new timeline.Timeline(place);
      timeline.now.start();
    }
  }

  new MutationObserver(look).observe(document.documentElement, {
    childList: true,
    subtree: true,
    attributes: true,
    attributeFilter: ["data-run-id"],
  });
})();
