// Comparing in the browser: the baseline stands in the URL; B is the recording of the page.
(function () {
  "use strict";

  window.addEventListener("tracelens:url", function () {
    if (!document.getElementById("compare-shown")) return;
    const value = window.tracelens.url.read().baseline;
    if (value) window.dash_clientside.set_props("compare-baseline", { value: value });
  });

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.compare = {
    // What is compared without having been asked for stands in the URL, too: a link shows the same.
    choose: function (baseline, of) {
      if (!baseline || !of) return;
      const said = window.tracelens.url.read().baseline;
      if (baseline !== said) window.tracelens.url.write({ baseline: baseline }, Boolean(said));
    },
    swap: function (clicks, baseline, of) {
      if (!clicks || !baseline || !of) return;
      const theme = window.tracelens.url.read().theme;
      const query = new URLSearchParams({ baseline: of[0], ...(theme ? { theme: theme } : {}) });
      window.tracelens.url.go(`/${baseline}/compare?${query}`);
    },
  };
})();
