// Charts by Plotly, in the page's own colours, each with a text and a table that say the same.

import { make, table } from "./page.js";
import { page, readBytes } from "./data.js";

export const INKS = page.palette.charts;
const drawn = new Set();

// The colours of what is not data, which differ between light and dark.
function theme() {
  const style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(`--${name}`).trim();
  return { ink: ink("ink"), faint: ink("faint"), line: ink("line"), paper: ink("paper"), panel: ink("panel"), blue: ink("timeout") };
}

export const axis = (title, more = {}) => ({
  title: { text: title, standoff: 8 },
  fixedrange: true,
  automargin: true,
  zeroline: false,
  ...more,
});

export class Chart {
  // `height` in pixels; `picked` is called with where on the x axis a point was chosen.
  constructor(height, picked) {
    this.picked = picked;
    this.plot = make("div", { class: "plot", role: "img" });
    this.plot.style.height = `${height}px`;
    this.height = height;
    this.numbers = make("details", { class: "numbers", toggle: () => this.fill() }, make("summary", {}, "The numbers of this chart"));
    this.over = make("div", { class: "over" }, this.plot); // what is laid over the chart
    this.element = make("figure", { class: "chart" }, this.over, this.numbers);
  }

  // Draws what `picture` returns for a theme: { traces, layout }. `label` says what is seen; `numbers`
  // returns { caption, head, rows } of the table.
  draw(label, picture, numbers) {
    this.plot.setAttribute("aria-label", label);
    this.picture = picture;
    this.told = numbers;
    drawn.add(this);
    this.fill();
    this.redraw();
  }

  redraw() {
    if (!this.plot.isConnected || !window.Plotly) return;
    const inks = theme();
    const { traces, layout } = this.picture(inks);
    const lines = { gridcolor: inks.line, linecolor: inks.faint, tickcolor: inks.faint };
    const axes = Object.fromEntries(
      Object.entries(layout).filter(([name]) => /^[xy]axis/.test(name)).map(([name, own]) => [name, { ...lines, ...own }]),
    );
    const whole = {
      height: this.height,
      margin: { l: 56, r: 12, t: 28, b: 44 },
      paper_bgcolor: inks.paper,
      plot_bgcolor: inks.paper,
      font: { family: "system-ui, sans-serif", size: 13, color: inks.ink },
      dragmode: false,
      hoverlabel: { bgcolor: inks.panel, font: { color: inks.ink } },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 },
      ...layout,
      ...axes,
    };
    Plotly.react(this.plot, traces, whole, { displayModeBar: false, responsive: true, doubleClick: false });
    if (this.picked && !this.listens) this.plot.on("plotly_click", ({ points }) => this.picked(points[0].x));
    this.listens = true;
  }

  fill() {
    if (!this.numbers.open || !this.told) return;
    const { caption, head, rows } = this.told();
    this.numbers.replaceChildren(this.numbers.firstChild, table(caption, head, rows));
  }

  drop() {
    drawn.delete(this);
    this.listens = false;
    window.Plotly?.purge(this.plot);
  }
}

// Lets go of charts that have left the page.
export function dropGone() {
  for (const chart of drawn) if (!chart.plot.isConnected) chart.drop();
}

// Plotly is large and takes a while to begin: the page is there before it, and then has charts. The
// page's policy knows its text by its hash.
export async function loadPlotly() {
  const text = new TextDecoder().decode(await readBytes("plotly"));
  document.head.append(make("script", {}, text));
  redrawAll();
  document.body.dataset.charts = Math.round(performance.now());
}

function redrawAll() {
  for (const chart of drawn) {
    chart.redraw();
    if (window.Plotly && chart.plot.isConnected && chart.plot.offsetParent) Plotly.Plots.resize(chart.plot);
  }
}

// Paper is narrower than a screen, and charts do not know of it.
function fitPaper(width) {
  document.body.style.width = width;
  redrawAll();
}

addEventListener("beforeprint", () => fitPaper("18cm"));
addEventListener("afterprint", () => fitPaper(""));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
matchMedia("print").addEventListener("change", redrawAll);
