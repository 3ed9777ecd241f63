// Bars for what several networks say of a few things: the same on every page, drawn from numbers.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 360, HEIGHT = 130, LEFT = 40, RIGHT = 6, TOP = 8, BOTTOM = 22;

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const short = (number) => number.toFixed(Math.abs(number) < 10 ? 2 : 0).replace("-", "−");

// Fills `svg` with a group of bars for each of `names`: in group g one bar for each row r of `rows`,
// as high as rows[r][g], and a line across at the group's mean. The group `chosen` is marked. A
// number `dashed` draws a dashed line through all. `low` and `high` bound the axis; where they are
// not given they follow from the numbers and 0. `label` says what is drawn, and becomes part of the
// text alternative, which holds the means; there `spoken` stands for names that are signs.
export function bars(svg, { label, names, spoken = names, rows, chosen, dashed, low, high }) {
  const all = [...rows.flat(), 0, ...(dashed === undefined ? [] : [dashed])].filter(Number.isFinite);
  const bottom = low ?? Math.min(...all);
  const top = Math.max(high ?? Math.max(...all), bottom + 1e-9);
  const y = (value) =>
    TOP + ((top - Math.min(Math.max(value, bottom), top)) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
  const room = (WIDTH - LEFT - RIGHT) / names.length;
  const bar = (room * 0.8) / rows.length;
  const means = names.map((_, group) => {
    const known = rows.map((row) => row[group]).filter(Number.isFinite);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN;
  });

  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.classList.add("bars");
  const told = spoken.map((name, group) => `${name} ${short(means[group])}`).join(", ");
  const mark = chosen === undefined || chosen === null ? "" : `; chosen: ${spoken[chosen]}`;
  const line = dashed === undefined ? "" : `; dashed line at ${short(dashed)}`;
  svg.setAttribute("aria-label", `${label}${rows.length > 1 ? ", means" : ""}: ${told}${mark}${line}`);

  for (const value of [bottom, top]) {
    add(svg, "text", { x: LEFT - 4, y: y(value) + 4, class: "tick", "text-anchor": "end" }, short(value));
  }
  names.forEach((name, group) => {
    const left = LEFT + group * room;
    const is = group === chosen ? " chosen" : "";
    if (is) add(svg, "rect", { x: left, y: TOP, width: room, height: HEIGHT - TOP - BOTTOM, class: "mark" });
    rows.forEach((row, place) => {
      if (!Number.isFinite(row[group])) return;
      const [from, to] = [y(Math.max(row[group], 0)), y(Math.min(row[group], 0))];
      add(svg, "rect", {
        x: left + room * 0.1 + place * bar,
        y: from,
        width: Math.max(bar - 0.6, 0.6),
        height: Math.max(to - from, 0.5),
        class: `bar${is}`,
      });
    });
    if (rows.length > 1 && Number.isFinite(means[group])) {
      const at = y(means[group]);
      add(svg, "line", { x1: left + room * 0.05, x2: left + room * 0.95, y1: at, y2: at, class: "mean" });
    }
    add(svg, "text", {
      x: left + room / 2,
      y: HEIGHT - 6,
      class: `name${is}`,
      "text-anchor": "middle",
    }, name);
  });
  add(svg, "line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(0), y2: y(0), class: "zero" });
  if (dashed !== undefined) {
    add(svg, "line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(dashed), y2: y(dashed), class: "dashed" });
  }
}
