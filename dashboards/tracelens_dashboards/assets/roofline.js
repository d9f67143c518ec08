// The roofline in the browser: its choice stands in the URL, and a click on a point leads to an op.
(function () {
  "use strict";

  window.addEventListener("tracelens:url", function () {
    if (!document.getElementById("roofline-shown")) return;
    const value = window.tracelens.url.read().colour || "phase";
    window.dash_clientside.set_props("roofline-colour", { value: value });
  });

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.roofline = {
    choose: function (colour) {
      const said = window.tracelens.url.read().colour || "phase";
      if (colour && colour !== said) {
        window.tracelens.url.write({ colour: colour === "phase" ? null : colour }, true);
      }
    },
    // Lines have no place to go to.
    go: function (clicked) {
      const point = clicked && clicked.points[0];
      const data = point && point.customdata;
      if (data && typeof data[1] === "string" && data[1].startsWith("/")) {
        window.tracelens.url.go(data[1]);
      }
      return window.dash_clientside.no_update;
    },
  };
})();
