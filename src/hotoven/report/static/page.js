// Elements and numbers. All text goes in as text: nothing that a run says is ever read as HTML.

// An element with attributes and children; an attribute that is a function listens for an event.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

let named = 0;

// A control with its label. Returns the element that holds both.
export function field(label, control) {
  control.id ||= `control${(named += 1)}`;
  return make("div", { class: "field" }, make("label", { for: control.id }, label), control);
}

// A list to choose from: options are [value, text]. `changed` gets the value.
export function choice(options, value, changed) {
  const select = make("select", { change: () => changed(select.value) });
  for (const [own, text] of options) select.append(make("option", { value: own }, text));
  select.value = value;
  return select;
}

// A section with its heading.
export function section(id, title, ...children) {
  return make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), ...children);
}

export const paragraph = (text, kind) => make("p", { class: kind }, text);

// What is not there, and why.
export const absence = (why) => paragraph(`Not here: ${why}.`, "absent");

// A table of texts; `head` names the columns. It can be scrolled by keyboard where it is wide.
export function table(caption, head, rows) {
  const body = rows.map((row) =>
    make("tr", {}, ...row.map((text, place) => (place ? make("td", {}, text) : make("th", { scope: "row" }, text)))),
  );
  return make(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    make(
      "table",
      {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...body),
    ),
  );
}

// A number with so many decimals; a dash where there is none.
export const fixed = (number, decimals = 1) =>
  Number.isFinite(number) ? number.toFixed(decimals).replace("-", "\u2212") : "\u2013";

export const percent = (share, decimals = 1) => (Number.isFinite(share) ? `${fixed(100 * share, decimals)}%` : "\u2013");

// With a first digit that is not 0, but at least one decimal.
export function significant(number) {
  if (number === null || !Number.isFinite(number)) return number === -Infinity ? "below all scores" : "\u2013";
  const size = Math.abs(number);
  return fixed(number, size >= 100 ? 0 : size >= 0.05 || size === 0 ? (size < 10 ? 2 : 1) : Math.min(8, 1 - Math.floor(Math.log10(size))));
}

// Text for a chart, where Plotly would read some tags.
export const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

export const levels = (count) => `${count.toLocaleString("en")} level${count === 1 ? "" : "s"}`;
