// The shell in the browser: the theme, the keys, the address, and copying tables.
//
// Scripts of pages find here, in `window.tracelens`:
//   palette()              the colours of palette.py
//   colour(kind, name)     "phase" or "family" and its name; any other kind: by the name alone
//   scheme()               "light" or "dark"; the event "tracelens:scheme" on window tells of changes
//   url.read()             the query as an object of strings
//   url.write(changes, push)  sets (null: removes) parts of the query; push makes a step for "back"
//   isTyping(event)        whether a key belongs to a field and not to the page
//   copy(text)             puts text on the clipboard; a promise
// The event "tracelens:url" on window tells that the query changed by "back" or "forward".
(function () {
  "use strict";
  const REMEMBERED = "mantine-color-scheme-value"; // where Mantine looks for it, too
  const FIELDS = "input, textarea, select, [contenteditable=true]";

  // Colours

  let palette = null;

  function readPalette() {
    const holder = document.getElementById("palette");
    if (palette === null && holder) palette = JSON.parse(holder.dataset.palette);
    return palette;
  }

  function ofName(name, spare) {
    let digest = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(name)) {
      digest = Math.imul(digest ^ byte, 0x01000193) >>> 0;
    }
    return spare[digest % spare.length];
  }

  function colour(kind, name) {
    const all = readPalette();
    if (name === null || name === undefined) return all.none;
    if (kind === "family") return Object.hasOwn(all.families, name) ? all.families[name] : all.none;
    if (kind === "phase" && Object.hasOwn(all.phases, name)) return all.phases[name];
    return ofName(String(name), all.spare);
  }

  // The address: all state stands in its query

  function readUrl() {
    return Object.fromEntries(new URLSearchParams(window.location.search));
  }

  function writeUrl(changes, push) {
    const query = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === "") query.delete(name);
      else query.set(name, String(value));
    }
    const said = query.toString();
    const address = window.location.pathname + (said ? "?" + said : "");
    if (address === window.location.pathname + window.location.search) return;
    window.history[push ? "pushState" : "replaceState"](null, "", address);
  }

  function go(address) {
    window.history.pushState(null, "", address);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
  }

  window.addEventListener("popstate", function () {
    window.dispatchEvent(new CustomEvent("tracelens:url"));
  });

  // The theme: what the address says, else what was chosen here before, else what the system has

  function scheme() {
    const said = document.documentElement.getAttribute("data-mantine-color-scheme");
    return said === "dark" ? "dark" : "light";
  }

  function chosenScheme() {
    const chosen = [readUrl().theme, window.localStorage.getItem(REMEMBERED)];
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    return chosen.find((one) => one === "light" || one === "dark") || (dark ? "dark" : "light");
  }

  function applyScheme(chosen) {
    document.documentElement.setAttribute("data-mantine-color-scheme", chosen);
    document.documentElement.setAttribute("data-ag-theme-mode", chosen);
  }

  applyScheme(chosenScheme());
  new MutationObserver(function () {
    document.documentElement.setAttribute("data-ag-theme-mode", scheme());
    window.dispatchEvent(new CustomEvent("tracelens:scheme"));
  }).observe(document.documentElement, { attributeFilter: ["data-mantine-color-scheme"] });

  // On paper it is always light
  for (const [event, chosen] of [["beforeprint", () => "light"], ["afterprint", chosenScheme]]) {
    window.addEventListener(event, () => applyScheme(chosen()));
  }

  // Keys

  function isTyping(event) {
    const within = event.target instanceof Element && event.target.closest(FIELDS);
    return Boolean(within) || event.ctrlKey || event.metaKey || event.altKey;
  }

  function press(id) {
    const button = document.getElementById(id);
    if (button) button.click();
  }

  document.addEventListener("keydown", function (event) {
    if (event.defaultPrevented || isTyping(event)) return;
    if (event.key === "?") press("help");
    else if (event.key === "t") press("scheme");
    else if (/^[1-9]$/.test(event.key)) {
      const link = document.querySelectorAll("#navigation a")[Number(event.key) - 1];
      if (link) link.click();
    } else return;
    event.preventDefault();
  });

  // Tables on the clipboard

  function copy(text) {
    if (window.navigator.clipboard) return window.navigator.clipboard.writeText(text);
    const field = document.createElement("textarea"); // without https there is no clipboard
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done ? Promise.resolve() : Promise.reject(new Error("The browser does not copy."));
  }

  function inCsv(text) {
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }

  // A spreadsheet would compute a text that begins like a formula; a number's minus is none.
  function defused(cell) {
    const text = cell.dataset.value || "";
    return cell.classList.contains("number") ? text : text.replace(/^[=+\-@\t\r]/, "'$&");
  }

  function asCsv(table) {
    const lines = [[...table.tHead.rows[0].cells].map((cell) => cell.dataset.name)];
    for (const row of table.tBodies[0].rows) lines.push([...row.cells].map(defused));
    return lines.map((line) => line.map(inCsv).join(",") + "\r\n").join("");
  }

  function inMarkdown(text) {
    return text.replace(/[\\`*_<>[\]|~&$#]/g, "\\$&");
  }

  function asCode(text) {
    const longest = Math.max(0, ...(text.match(/`+/g) || []).map((ticks) => ticks.length));
    const fence = "`".repeat(longest + 1);
    const inside = /^[` ]|[` ]$/.test(text) ? " " + text + " " : text;
    return text ? fence + inside.replaceAll("|", "\\|") + fence : "";
  }

  function shown(cell) {
    return (cell.querySelector("summary") || cell).textContent; // what is folded stays out
  }

  function asMarkdown(table) {
    const heads = [...table.tHead.rows[0].cells];
    const rule = heads.map((cell) => (cell.classList.contains("number") ? "--:" : "---"));
    const lines = [heads.map((cell) => inMarkdown(cell.textContent)), rule];
    for (const row of table.tBodies[0].rows) {
      lines.push(
        [...row.cells].map((cell) =>
          cell.classList.contains("name") ? asCode(shown(cell)) : inMarkdown(shown(cell)),
        ),
      );
    }
    return lines.map((line) => "| " + line.join(" | ") + " |\n").join("");
  }

  function say(button, text) {
    const before = button.dataset.title || button.textContent;
    button.dataset.title = before;
    button.textContent = text;
    window.setTimeout(function () {
      button.textContent = before;
    }, 1500);
  }

  document.addEventListener("click", function (event) {
    const button = event.target instanceof Element && event.target.closest("button.copy-table");
    if (!button) return;
    const table = button.closest(".tabled").querySelector("table");
    const text = button.dataset.format === "csv" ? asCsv(table) : asMarkdown(table);
    copy(text).then(
      () => say(button, "Copied"),
      () => say(button, "Not copied: the browser forbids it"),
    );
  });

  window.tracelens = {
    palette: readPalette,
    colour: colour,
    scheme: scheme,
    url: { read: readUrl, write: writeUrl, go: go },
    isTyping: isTyping,
    copy: copy,
  };

  // What Dash calls

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.shell = {
    scheme: function (clicks) {
      if (!clicks) return chosenScheme();
      const chosen = scheme() === "dark" ? "light" : "dark";
      window.localStorage.setItem(REMEMBERED, chosen);
      writeUrl({ theme: chosen }, false);
      return chosen;
    },
    choose: function (chosen, shown) {
      const page = window.location.pathname.split("/")[2];
      if (chosen && shown && chosen !== shown.id) go("/" + chosen + (page ? "/" + page : ""));
    },
    copyLink: function (clicks, shown) {
      const label = document.querySelector("#copy-link .mantine-Button-label");
      const here = window.location;
      const path = shown && shown.id ? "/" + shown.id + "/" + shown.page : here.pathname;
      copy(here.origin + path + here.search).then(
        () => say(label, "Copied"),
        () => say(label, "Not copied"),
      );
    },
    toggle: function (clicks, opened) {
      return !opened;
    },
    // Answers when what came has been painted; a page in the background is painted later.
    painted: function () {
      return new Promise(function (done) {
        window.requestAnimationFrame(() => window.setTimeout(() => done(true)));
        window.setTimeout(() => done(true), 1000);
      });
    },
    title: function (shown) {
      if (shown) document.title = shown.title + " · tracelens";
    },
  };
})();
