// What a run found, as a whole: findings, rates, how episodes ended, and what it was made with.

import { absence, choice, field, fixed, levels, make, paragraph, percent, plain, section, significant, table } from "./page.js";
import { Chart, INKS, axis } from "./charts.js";

const MARKS = { supported: "\u2713", "not supported": "\u2717", undecided: "?" };

export function findings(run) {
  if (!run.findings.length) return section("findings", "Findings", absence(run.absent.findings ?? "the run has none"));
  const tally = Object.keys(MARKS).map((verdict) => {
    const count = run.findings.filter((one) => one.verdict === verdict).length;
    return `${count} ${verdict}`;
  });
  return section(
    "findings",
    "Findings",
    paragraph(`${run.findings.length} claims: ${tally.join(", ")}. Intervals are of 95% each. ${run.basis}`),
    make("ol", { class: "findings" }, ...run.findings.map(finding)),
  );
}

function finding(one) {
  const numbers = (row) => `${significant(row.estimate)} [${significant(row.low)}, ${significant(row.high)}]`;
  const details = one.details.map((row) => [row.measure, levels(row.num_train_levels), numbers(row)]);
  return make(
    "li",
    { class: "finding", "data-verdict": one.verdict },
    make(
      "h3",
      {},
      make("span", { class: "verdict" }, `${MARKS[one.verdict] ?? ""} ${one.verdict}`),
      ` ${one.statement}`,
    ),
    make("p", {}, make("strong", {}, one.estimate === null ? "no number" : numbers(one)), ` ${one.measure}`),
    one.note ? paragraph(one.note) : undefined,
    make(
      "details",
      {},
      make("summary", {}, "How the verdict follows"),
      paragraph(one.rule),
      details.length ? table(`Details: ${one.claim}`, ["measure", "trained on", "estimate [interval]"], details) : undefined,
    ),
  );
}

// Methods named in the figures first, each followed by itself with what wraps it.
const LOOKS = {
  single: [INKS.vermillion, "circle"],
  mean: [INKS.blue, "square"],
  vote: [INKS.green, "triangle-up"],
  mc_dropout: [INKS.purple, "diamond"],
};
const SPARE = [
  [INKS.orange, "triangle-down"],
  [INKS.sky, "cross"],
  ["", "x"], // the page's ink
  [INKS.purple, "star"],
  [INKS.grey, "hexagon"],
];

function ordered(methods) {
  const known = Object.keys(LOOKS);
  const rank = (method) => {
    const [base, wrapper = ""] = method.split("+");
    const at = known.indexOf(base);
    return [at < 0 ? known.length : at, base, wrapper];
  };
  return [...methods].sort((one, other) => {
    const [a, b] = [rank(one), rank(other)];
    const place = a.findIndex((part, index) => part !== b[index]);
    return place < 0 ? 0 : a[place] < b[place] ? -1 : 1;
  });
}

function look(method, methods, inks) {
  const [base, wrapper] = method.split("+");
  const others = [...new Set(methods.map((name) => name.split("+")[0]))].filter((name) => !Object.hasOwn(LOOKS, name));
  const [colour, symbol] = Object.hasOwn(LOOKS, base) ? LOOKS[base] : SPARE[others.indexOf(base) % SPARE.length];
  return { colour: colour || inks.ink, symbol: wrapper ? `${symbol}-open` : symbol, dash: wrapper ? "dash" : "solid" };
}

const SHOWN = ["single", "mean", "mean+blocker", "vote"]; // at first

export function rates(run) {
  if (!run.rates.length) return { element: section("rates", "Catastrophes and solved levels", absence(run.absent.rates ?? "the run has none")), draw() {} };
  const tested = run.rates.filter((row) => row.set === "test");
  if (!tested.length) return { element: section("rates", "Catastrophes and solved levels", absence("rates.parquet has no rows of test levels")), draw() {} };
  const methods = ordered(new Set(tested.map((row) => row.method)));
  const first = SHOWN.filter((name) => methods.includes(name));
  const shown = new Set(first.length ? first : methods.slice(0, 3));
  const charts = ["catastrophe", "solved"].map((outcome) => ({ outcome, chart: new Chart(380) }));
  const draw = () => charts.forEach(({ outcome, chart }) => drawRates(chart, run, methods, shown, outcome));
  const boxes = methods.map((method) => {
    const box = make("input", {
      type: "checkbox",
      change: () => {
        if (box.checked) shown.add(method);
        else shown.delete(method);
        draw();
      },
    });
    box.checked = shown.has(method);
    return make("label", { class: "box" }, box, run.methods[method]);
  });
  const { num_levels: count, num_replications: replications, resampled } = tested[0];
  const basis = `${levels(count)} that no agent was trained on, ${replications} replication${replications === 1 ? "" : "s"}; bars are 95% intervals, resampled over ${resampled}.`;
  return {
    element: section(
      "rates",
      "Catastrophes and solved levels",
      paragraph(`Shares of test levels against the number of training levels. ${basis} The dotted line is one agent on its own training levels.`),
      make("fieldset", { class: "boxes" }, make("legend", {}, "Ways of acting"), ...boxes),
      make("div", { class: "pair" }, ...charts.map(({ chart }) => chart.element)),
    ),
    draw,
  };
}

function drawRates(chart, run, methods, shown, outcome) {
  const of = (set, method) =>
    run.rates
      .filter((row) => row.set === set && row.method === method)
      .sort((one, other) => one.num_train_levels - other.num_train_levels);
  const lines = methods.filter((method) => shown.has(method)).map((method) => ({ method, rows: of("test", method) }));
  const trained = of("train", "single");
  const sizes = [...new Set(run.rates.map((row) => row.num_train_levels))].sort((a, b) => a - b);
  const rate = (row) => 100 * row[`${outcome}_rate`];
  const word = outcome === "catastrophe" ? "ended in catastrophe" : "solved";
  const picture = (inks) => {
    const traces = lines.map(({ method, rows }, place) => {
      const { colour, symbol, dash } = look(method, methods, inks);
      const shift = 1.07 ** (place - (lines.length - 1) / 2);
      return {
        name: plain(run.methods[method]),
        x: rows.map((row) => row.num_train_levels * shift),
        y: rows.map(rate),
        mode: "lines+markers",
        line: { color: colour, dash, width: 2 },
        marker: { color: colour, symbol, size: 9, line: { width: 2, color: colour } },
        error_y: {
          type: "data",
          symmetric: false,
          array: rows.map((row) => 100 * (row[`${outcome}_high`] - row[`${outcome}_rate`])),
          arrayminus: rows.map((row) => 100 * (row[`${outcome}_rate`] - row[`${outcome}_low`])),
          color: colour,
          thickness: 1.2,
          width: 3,
        },
        hovertemplate: rows.map((row) => `%{y:.1f}%, ${levels(row.num_train_levels)}`),
      };
    });
    traces.push({
      name: "one agent, training levels",
      x: trained.map((row) => row.num_train_levels),
      y: trained.map(rate),
      mode: "lines+markers",
      line: { color: inks.faint, dash: "dot", width: 2 },
      marker: { color: inks.faint, size: 6 },
      hovertemplate: "%{y:.1f}%",
    });
    return {
      traces,
      layout: {
        title: { text: `Test levels ${word}`, x: 0, xref: "paper", font: { size: 15 } },
        xaxis: axis("number of training levels", { type: "log", tickvals: sizes, ticktext: sizes.map((size) => size.toLocaleString("en")), range: [Math.log10(sizes[0]) - 0.15, Math.log10(sizes.at(-1)) + 0.15] }),
        yaxis: axis("", { ticksuffix: "%", rangemode: "tozero" }),
        margin: { l: 56, r: 12, t: 36, b: 100 },
      },
    };
  };
  const numbers = () => ({
    caption: `Test levels ${word}`,
    head: ["acting", ...sizes.map((size) => levels(size))],
    rows: methods.map((method) => [
      run.methods[method],
      ...sizes.map((size) => {
        const row = of("test", method).find((one) => one.num_train_levels === size);
        return row ? `${percent(row[`${outcome}_rate`])} [${fixed(100 * row[`${outcome}_low`])}, ${fixed(100 * row[`${outcome}_high`])}]` : "\u2013";
      }),
    ]),
  });
  const told = lines.map(({ method, rows }) => `${run.methods[method]} ${rows.map((row) => `${fixed(rate(row))}% at ${row.num_train_levels}`).join(", ")}`);
  chart.draw(`Share of test levels ${word} against the number of training levels: ${told.join("; ")}.`, picture, numbers);
}

// How episodes can end, in the order of the bars, each with a pattern of its own.
const ENDS = [
  ["coin", INKS.green, ""],
  ["goal", INKS.green, ""],
  ["timeout", INKS.sky, "."],
  ["lava", INKS.vermillion, "/"],
  ["saw", INKS.orange, "x"],
  ["monster", INKS.purple, "\\"],
];
const BAND = 46; // pixels for a bar and its name above it
const NAMES = { coin: "solved: coin", goal: "solved: goal", timeout: "time-out" };

export function ends(run) {
  if (!run.ends.length) return { element: section("ends", "Outcomes by cause", absence(run.absent.ends ?? "the run has none")), draw() {} };
  const sizes = [...new Set(run.ends.map((row) => row.num_train_levels))].sort((a, b) => a - b);
  const state = { size: sizes[0], set: "test" };
  const methods = ordered(new Set(run.ends.map((row) => row.method)));
  const chart = new Chart(150 + BAND * methods.length);
  const draw = () => drawEnds(chart, run, methods, state);
  const size = choice(sizes.map((one) => [one, levels(one)]), sizes[0], (value) => {
    state.size = Number(value);
    draw();
  });
  const set = choice([["test", "test levels, never trained on"], ["train", "training levels"]], "test", (value) => {
    state.set = value;
    draw();
  });
  return {
    element: section(
      "ends",
      "Outcomes by cause",
      make("div", { class: "fields" }, field("Trained on", size), field("Played on", set)),
      chart.element,
    ),
    draw,
  };
}

function drawEnds(chart, run, methods, { size, set }) {
  const rows = run.ends.filter((row) => row.num_train_levels === size && row.set === set);
  const there = methods.filter((method) => rows.some((row) => row.method === method));
  const count = (method, cause) =>
    rows.filter((row) => row.method === method && row.cause === cause).reduce((sum, row) => sum + row.count, 0);
  const total = (method) => rows.filter((row) => row.method === method).reduce((sum, row) => sum + row.count, 0);
  const share = (method, cause) => (100 * count(method, cause)) / total(method);
  const causes = ENDS.filter(([cause]) => rows.some((row) => row.cause === cause));
  const who = `${set === "test" ? "test" : "training"} levels, agents trained on ${levels(size)}`;
  const picture = (inks) => ({
    traces: causes.map(([cause, colour, shape]) => ({
      type: "bar",
      orientation: "h",
      name: NAMES[cause] ?? `killed by ${cause}`,
      y: there.map((method) => plain(run.methods[method])),
      x: there.map((method) => share(method, cause)),
      marker: { color: colour, pattern: { shape, fillmode: "overlay", fgcolor: inks.paper, fgopacity: 1, size: 7, solidity: 0.25 }, line: { color: inks.paper, width: 1 } },
      hovertemplate: "%{x:.1f}%",
    })),
    layout: {
      barmode: "stack",
      bargap: 0.5,
      xaxis: axis("", { ticksuffix: "%", range: [0, 100] }),
      yaxis: axis("", { range: [there.length - 0.7, -0.8], ticks: "", showticklabels: false, showline: false }),
      annotations: there.map((method, place) => ({
        text: plain(run.methods[method]),
        x: 0,
        y: place - 0.25,
        xanchor: "left",
        yanchor: "bottom",
        bgcolor: inks.paper,
        showarrow: false,
      })),
      title: { text: `${set === "test" ? "Test" : "Training"} levels, agents trained on ${levels(size)}`, x: 0, font: { size: 15 } },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, traceorder: "normal" },
      margin: { l: 4, r: 24, t: 36, b: 84 },
    },
  });
  const numbers = () => ({
    caption: `Outcomes by cause: ${who}`,
    head: ["acting", "episodes", ...causes.map(([cause]) => NAMES[cause] ?? `killed by ${cause}`)],
    rows: there.map((method) => [run.methods[method], String(total(method)), ...causes.map(([cause]) => `${fixed(share(method, cause))}%`)]),
  });
  const told = there.map((method) => `${run.methods[method]}: ${causes.map(([cause]) => `${NAMES[cause] ?? cause} ${fixed(share(method, cause))}%`).join(", ")}`);
  chart.draw(`How episodes ended, ${who}. ${told.join("; ")}.`, picture, numbers);
}

export function about(run) {
  const parts = Object.entries(run.about).map(([heading, lines]) =>
    make(
      "details",
      { class: "about", open: heading !== "Settings" },
      make("summary", {}, heading),
      make("dl", {}, ...lines.flatMap(([name, value]) => [make("dt", {}, name || heading), make("dd", {}, value)])),
    ),
  );
  return section("about", "How it was made", ...parts);
}
