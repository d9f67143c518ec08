// Long tables (parts.long_table): made here of what the server packed, as text and nothing else.
(function () {
  "use strict";

  function made(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function filled(kind, [text, value, href, colour]) {
    const cell = made("td", kind);
    cell.dataset.value = value;
    if (colour) {
      const square = made("span", "square");
      square.style.backgroundColor = colour;
      cell.append(square);
    }
    if (href && href.startsWith("/") && !href.startsWith("//")) {
      const link = made("a", "", text);
      link.href = href;
      cell.append(link);
    } else cell.append(text);
    return cell;
  }

  function build(place) {
    if (place.built === place.dataset.rows) return;
    place.built = place.dataset.rows;
    const { heads, rows } = JSON.parse(place.built);
    const table = made("table", "table");
    const top = made("tr");
    for (const [name, heading, kind] of heads) {
      const head = made("th", kind, heading);
      head.dataset.name = name;
      top.append(head);
    }
    table.createTHead().append(top);
    const body = table.createTBody();
    for (const row of rows) {
      const line = made("tr");
      line.append(...row.map((cell, column) => filled(heads[column][2], cell)));
      body.append(line);
    }
    place.replaceChildren(table);
  }

  const look = () => document.querySelectorAll("[data-rows]").forEach(build);
  new MutationObserver(look).observe(document.documentElement, {
    childList: true,
    subtree: true,
    attributes: true,
    attributeFilter: ["data-rows"],
  });

  // A link stays within the page that is there, unless another window is asked for.
  document.addEventListener("click", function (event) {
    const link = event.target instanceof Element && event.target.closest("[data-rows] a");
    const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0;
    if (!link || elsewhere || event.defaultPrevented) return;
    event.preventDefault();
    window.tracelens.url.go(link.getAttribute("href"));
  });
})();
