// What the shell does in the browser: copy the link, change the theme, show the keys.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.shell = {
  copyLink: function () {
    navigator.clipboard.writeText(window.location.href);
    return "Copied";
  },
  toggleScheme: function () {
    const root = document.documentElement;
    const dark = root.getAttribute("data-mantine-color-scheme") === "dark";
    root.setAttribute("data-mantine-color-scheme", dark ? "light" : "dark");
    window.localStorage.setItem("mantine-color-scheme-value", dark ? "light" : "dark");
    window.dispatchEvent(new CustomEvent("tracelens:scheme"));
    return dark ? "Light" : "Dark";
  },
  keys: function () {
    return true;
  },
};
