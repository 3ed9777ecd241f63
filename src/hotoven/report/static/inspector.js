// One episode step by step, beside another policy's on the same level.

import { absence, choice, field, fixed, make, paragraph, section, significant } from "./page.js";
import { bars } from "./bars.js";
import { scoreOf } from "./counts.js";
import { openLevels } from "./data.js";
import { Chart, INKS, axis } from "./charts.js";
import { ended, open, policyName } from "./alarms.js";
import { drawLavaGrid, tellLavaGrid } from "./draw_lavagrid.js";
import { drawCoinRun, drawMap, tellCoinRun } from "./draw_coinrun.js";

const BLOCKS = 0.5; // where a run names no probability above which an action is blocked
const THOUSANDTH = 1000; // bars are kept in these
const [LEFT, RIGHT] = [62, 10]; // pixels beside the charts over time
const ROOM = 0.7; // steps before the first and after the last
const SPEEDS = [2, 5, 15, 30]; // steps per second

// What is drawn of one policy: its picture, what was known, and the charts over time.
class Pane {
  constructor(run, goTo) {
    this.run = run;
    this.grid = run.study === "lavagrid";
    this.title = make("h3");
    this.canvas = make("canvas", { class: "level", role: "img" });
    this.map = this.grid ? null : make("canvas", { class: "map", role: "img" });
    this.state = make("p", { class: "state" });
    this.preferences = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.values = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.blocker = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.bars = make("div", { class: "voices" });
    this.chart = new Chart(380, goTo);
    // laid over the chart: to have Plotly move a line takes longer than all else of a step
    this.cursor = make("div", { class: "cursor", "aria-hidden": "true" });
    this.chart.over.append(this.cursor);
    this.element = make(
      "article",
      { class: "pane" },
      this.title,
      make("div", { class: "picture" }, this.canvas),
      this.state,
      this.bars,
      this.map,
      this.chart.element,
    );
  }

  // Shows an episode: `view` holds opened, episode and levels, `watch` the score and the threshold.
  show(view, watch) {
    this.view = view;
    this.title.textContent = policyName(view.opened);
    this.first = view.opened.first[view.episode];
    this.length = view.opened.num_steps[view.episode];
    this.step = undefined;
    this.layBars();
    this.watch(watch);
  }

  watch({ score, threshold }) {
    this.scoreName = score;
    this.score = scoreOf(this.view.opened, score);
    this.threshold = threshold;
    this.drawChart();
    if (this.step !== undefined) this.draw(this.step, this.whole);
  }

  alarm(step) {
    return step < this.length && this.score[this.first + step] > this.threshold;
  }

  layBars() {
    const { said } = this.view.opened;
    if (!said || this.first >= said.num_steps) {
      const few = "what each member said was kept only for the first test levels";
      this.bars.replaceChildren(absence(this.run.absent.members ?? few));
      return;
    }
    const with_ = (title, svg) => make("figure", {}, make("figcaption", {}, title), svg);
    this.bars.replaceChildren(
      with_(this.grid ? "Q-values of each member" : "Probabilities of each member", this.preferences),
      ...(this.grid ? [] : [with_("Value of each member", this.values)]),
      with_("Blocker: probability that an action kills", this.blocker),
    );
  }

  // Draws a step; one after the last shows how it ended.
  draw(step, whole) {
    this.step = step;
    this.whole = whole;
    const at = Math.min(step, this.length);
    const { view } = this;
    this.canvas.hidden = !view.levels;
    if (view.levels) {
      if (this.grid) drawLavaGrid(this.canvas, view, at, whole);
      else drawCoinRun(this.canvas, view, at);
      this.canvas.setAttribute("aria-label", (this.grid ? tellLavaGrid : tellCoinRun)(view, at));
      if (this.map) {
        this.map.hidden = !whole;
        if (whole) drawMap(this.map, view, at, (one) => this.alarm(one));
        this.map.setAttribute("aria-label", "The whole level, the agent's way through it, and in orange the steps with an alarm");
      }
    }
    this.tell(at);
    this.drawBars(at);
    this.moveCursor(at);
  }

  tell(at) {
    const { opened, episode } = this.view;
    const { actions } = this.run.recorded;
    const outcome = this.run.outcomes[opened.outcome[episode]];
    const cause = this.run.causes[opened.cause[episode]];
    const over = at >= this.length;
    this.canvas.dataset.outcome = over ? outcome : this.alarm(at) ? "alarm" : "";
    if (over) {
      this.state.textContent = `After step ${this.length - 1}: ${ended(outcome, cause)}.`;
      return;
    }
    const step = this.first + at;
    const parts = [`Step ${at}: ${actions[opened.action[step]]}`];
    if (opened.intervened?.[step]) parts.push(`the blocker refused ${actions[opened.wanted[step]]}`);
    if (opened.dangerous) {
      const deadly = actions.filter((_, action) => (opened.dangerous[step] >> action) & 1);
      parts.push(`in truth deadly: ${deadly.length ? deadly.join(", ") : "nothing"}`);
    }
    parts.push(`score ${significant(this.score[step])}, threshold ${significant(this.threshold)}`);
    const fatal = at === this.length - 1 && outcome === "catastrophe" ? "; this action is fatal" : "";
    this.state.replaceChildren(
      `${parts.join("; ")}${fatal}. `,
      this.alarm(at) ? make("strong", { class: "alarm" }, "\u25B2 alarm") : "No alarm.",
    );
  }

  drawBars(at) {
    const { said, action } = this.view.opened;
    if (!said) return;
    const step = this.first + Math.min(at, this.length - 1);
    if (this.first >= said.num_steps) return;
    const members = said.num_members;
    const width = said.preferences.length / said.num_steps / members;
    const names = this.run.recorded.actions.slice(0, width);
    const row = (values, from, count) => Array.from(values.subarray(from, from + count), (value) => value / THOUSANDTH);
    const rows = (values, count) => Array.from({ length: members }, (_, member) => row(values, (step * members + member) * count, count));
    const chosen = action[step] < width ? action[step] : names.indexOf("stay");
    const shares = this.grid ? {} : { low: 0, high: 1 };
    const short = names.map((name) => (this.grid ? name : ARROWS[name] ?? name));
    bars(this.preferences, { label: this.grid ? "Q-values" : "Probabilities", names: short, rows: rows(said.preferences, width), chosen, ...shares });
    if (!this.grid) {
      const values = row(said.values, step * members, members);
      const numbers = values.map((_, member) => String(member + 1));
      const spoken = numbers.map((number) => `member ${number}`);
      bars(this.values, { label: "Values", names: numbers, spoken, rows: [values] });
    }
    const limit = this.run.recorded.block_threshold ?? (this.scoreName === "blocker" ? this.threshold : BLOCKS);
    const dashed = Number.isFinite(limit) ? limit : undefined;
    bars(this.blocker, { label: "Probability that an action kills", names: short, rows: [row(said.blocker, step * width, width)], chosen, dashed, low: 0, high: 1 });
  }

  spans() {
    const found = [];
    for (let step = 0; step < this.length; step += 1) {
      if (!this.alarm(step)) continue;
      if (found.at(-1)?.[1] === step) found.at(-1)[1] = step + 1;
      else found.push([step, step + 1]);
    }
    return found;
  }

  drawChart() {
    const { opened, episode } = this.view;
    const of = (values) => Array.from(values.subarray(this.first, this.first + this.length));
    const [mu, sigma, score] = [of(opened.known.mu), of(opened.known.sigma), of(this.score)];
    const steps = mu.map((_, step) => step);
    const name = this.run.recorded.scores[this.scoreName];
    const died = this.run.outcomes[opened.outcome[episode]] === "catastrophe";
    const spans = this.spans();
    const band = (sign) => mu.map((value, step) => value + sign * sigma[step]);
    const mode = this.length > 120 ? "lines" : "lines+markers";
    const line = (axes, values, colour, words) => ({
      x: steps,
      y: values,
      yaxis: axes,
      mode,
      line: { color: colour, width: 2 },
      marker: { size: 5, color: colour },
      hovertemplate: `step %{x}: ${words} %{y:.3g}<extra></extra>`,
    });
    const edge = { x: steps, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
    const picture = (inks) => ({
      traces: [
        { ...edge, y: band(-1) },
        { ...edge, y: band(1), fill: "tonexty", fillcolor: `${INKS.sky}55` },
        line("y", mu, inks.blue, "mu"),
        line("y2", score, INKS.purple, "score"),
      ],
      layout: {
        showlegend: false,
        grid: { rows: 2, columns: 1, roworder: "top to bottom" },
        hovermode: "closest",
        xaxis: axis("step", { range: [-ROOM, this.length + ROOM], ...(this.length <= 12 && { dtick: 1 }), anchor: "y2", domain: [0, 1], automargin: false }),
        yaxis: axis("mu \u00B1 sigma", { domain: [0.56, 1], automargin: false }),
        yaxis2: axis("score of danger", { domain: [0, 0.46], automargin: false }),
        shapes: this.shapes(inks, spans, died),
        annotations: [
          note("what the members expect: mean \u00B1 std", 1, inks),
          note("dashed: threshold; orange: alarm", 0.46, inks),
        ],
        margin: { l: LEFT, r: RIGHT, t: 22, b: 48 },
      },
    });
    const numbers = () => ({
      caption: `Every step of ${policyName(opened)}, test level ${opened.level_index[episode]}`,
      head: ["step", "mu", "sigma", "score", "alarm"],
      rows: steps.map((step) => [String(step), fixed(mu[step], 3), fixed(sigma[step], 3), fixed(score[step], 3), this.alarm(step) ? "alarm" : ""]),
    });
    const told = spans.map(([from, to]) => (to - from === 1 ? `step ${from}` : `steps ${from} to ${to - 1}`));
    const shown = told.length > 6 ? `${told.slice(0, 6).join(", ")} and ${told.length - 6} more` : told.join(", ");
    this.chart.draw(
      `Mean and standard deviation of the members' values, and the score of danger (${name}), over ${this.length} steps. Threshold ${significant(this.threshold)}; alarms: ${shown || "none"}.${died ? ` Death at step ${this.length - 1}.` : ""}`,
      picture,
      numbers,
    );
  }

  shapes(inks, spans, died) {
    const upright = (x, look) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, ...look });
    const found = [];
    if (died) found.push(upright(this.length - 1, { line: { color: INKS.vermillion, width: 3, dash: "dot" } }));
    if (Number.isFinite(this.threshold)) {
      found.push({ type: "line", xref: "paper", yref: "y2", x0: 0, x1: 1, y0: this.threshold, y1: this.threshold, line: { color: inks.ink, width: 1.5, dash: "dash" } });
    }
    return found.concat(
      spans.map(([from, to]) => ({ type: "rect", xref: "x", yref: "paper", x0: from - 0.5, x1: to - 0.5, y0: 0, y1: 0.46, fillcolor: INKS.orange, opacity: 0.3, line: { width: 0 }, layer: "below" })),
    );
  }

  moveCursor(at) {
    const share = (at + ROOM) / (this.length + 2 * ROOM);
    this.cursor.style.left = `calc(${LEFT}px + (100% - ${LEFT + RIGHT}px) * ${share})`;
  }
}

const note = (text, y, inks) => ({
  text,
  x: 0,
  y,
  xref: "paper",
  yref: "paper",
  xanchor: "left",
  yanchor: "bottom",
  showarrow: false,
  font: { size: 12, color: inks.faint },
});

// CoinRun's moves are many: their bars have room for an arrow.
const ARROWS = {
  "left down": "\u2199",
  left: "\u2190",
  "left up": "\u2196",
  down: "\u2193",
  stay: "\u00B7",
  up: "\u2191",
  "right down": "\u2198",
  right: "\u2192",
  "right up": "\u2197",
};

// The inspector of a run. `alarms` is what is watched; `moved` is called with every step.
export class Inspector {
  constructor(run, alarms, moved) {
    this.run = run;
    this.alarms = alarms;
    this.moved = moved;
    this.step = 0;
    this.with = "";
    this.element = section("inspector", "One episode, step by step");
    if (!run.recorded) {
      this.element.append(absence(run.absent.recorded));
      return;
    }
    this.levels = openLevels(run);
    this.build();
  }

  build() {
    const others = this.run.recorded.policies.map((policy) => [policy.key, policyName(policy)]);
    const button = (text, does, more = {}) => make("button", { type: "button", click: does, ...more }, text);
    const grid = this.run.study === "lavagrid";
    this.title = paragraph("", "episode");
    this.slider = make("input", { type: "range", min: 0, value: 0, input: () => this.goTo(Number(this.slider.value)) });
    this.playing = button("Play", () => this.play(!this.timer), { id: "play" });
    this.speed = choice(SPEEDS.map((speed) => [speed, `${speed} steps a second`]), grid ? 5 : 15, () => this.timer && this.play(true));
    this.withChoice = choice([["", "nothing"], ...others], "", (key) => this.compare(key));
    this.whole = make("input", { type: "checkbox", id: "whole", change: () => this.draw() });
    this.whole.checked = true;
    this.link = make("a", { href: "#inspector" }, "Link to this step");
    this.panes = [new Pane(this.run, (step) => this.goTo(step)), new Pane(this.run, (step) => this.goTo(step))];
    this.second = make("div", { class: "slot" });
    this.element.append(
      paragraph(
        "Choose an episode in the list above. Arrow keys step, Home and End go to its ends, space plays, N and P take the next and the previous episode of the list.",
      ),
      ...(this.run.absent.levels ? [absence(this.run.absent.levels)] : []),
      this.title,
      make(
        "div",
        { class: "controls", role: "group", "aria-label": "Steps" },
        make(
          "div",
          { class: "commands" },
          this.playing,
          button("\u2190 Step", () => this.goTo(this.step - 1)),
          button("Step \u2192", () => this.goTo(this.step + 1)),
          button("Previous episode", () => this.next(-1)),
          button("Next episode", () => this.next(1)),
        ),
        field("Step", this.slider),
      ),
      make(
        "div",
        { class: "fields" },
        field("Speed", this.speed),
        field("Compare with, on the same level", this.withChoice),
        make(
          "label",
          { class: "box" },
          this.whole,
          grid ? "Show the whole level, not only what the agent has uncovered" : "Show a map of the whole level, of which the agent sees only the window",
        ),
        this.link,
      ),
      make("div", { class: "panes" }, this.panes[0].element, this.second),
      make("p", { class: "hidden", "aria-live": "polite", id: "said" }),
    );
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  // Shows an episode of the policy that is watched, from `step` on.
  async show(episode, step = 0) {
    this.play(false);
    const { opened } = this.alarms;
    this.opened = opened;
    this.episode = episode;
    this.step = Math.max(0, Math.round(step) || 0);
    const turn = (this.showing = (this.showing ?? 0) + 1);
    const levels = await this.levels;
    if (turn !== this.showing) return; // another was chosen meanwhile
    const level = opened.level_index[episode];
    const outcome = this.run.outcomes[opened.outcome[episode]];
    this.title.textContent = `Test level ${level} (id ${opened.level_id[episode]}): ${outcome} after ${opened.num_steps[episode]} steps.`;
    this.panes[0].show({ opened, episode, levels }, this.alarms);
    this.alarms.mark(episode);
    await this.compare(this.with);
  }

  async compare(key, step = this.step) {
    this.with = key;
    this.withChoice.value = key;
    const told = this.run.recorded.policies.find((policy) => policy.key === key);
    const turn = (this.comparing = (this.comparing ?? 0) + 1);
    const levels = await this.levels;
    const opened = told && (await open(told));
    if (turn !== this.comparing) return;
    const place = opened?.placeOf.get(this.opened.level_index[this.episode]);
    this.both = place !== undefined;
    this.element.classList.toggle("two", this.both);
    if (this.both) {
      this.second.replaceChildren(this.panes[1].element);
      this.panes[1].show({ opened, episode: place, levels }, this.alarms);
    } else {
      this.second.replaceChildren(...(told ? [absence("this level of that policy was not recorded")] : []));
    }
    this.last = Math.max(...this.shown().map((pane) => pane.length));
    this.slider.max = this.last;
    this.goTo(step);
  }

  shown() {
    return this.both ? this.panes : this.panes.slice(0, 1);
  }

  goTo(step) {
    if (this.last === undefined) return;
    this.step = Math.max(0, Math.min(Math.round(step) || 0, this.last));
    this.draw();
    this.moved();
    if (this.timer && this.step === this.last) this.play(false);
  }

  draw() {
    if (this.last === undefined) return;
    this.slider.value = this.step;
    this.slider.setAttribute("aria-valuetext", `step ${this.step} of ${this.last}`);
    this.shown().forEach((pane) => pane.draw(this.step, this.whole.checked));
    // while it plays a screen reader would never come to an end
    if (!this.timer) this.element.querySelector("#said").textContent = this.shown().map((pane) => pane.state.textContent).join(" ");
  }

  // The threshold or the score is another.
  watch() {
    if (this.last !== undefined && this.alarms.opened === this.opened) {
      cancelAnimationFrame(this.soon);
      this.soon = requestAnimationFrame(() => this.shown().forEach((pane) => pane.watch(this.alarms)));
    }
  }

  play(on) {
    clearInterval(this.timer);
    this.timer = undefined;
    if (on) {
      if (this.step >= this.last) this.goTo(0);
      this.timer = setInterval(() => this.goTo(this.step + 1), 1000 / Number(this.speed.value));
    }
    this.playing.textContent = on ? "Pause" : "Play";
    this.playing.setAttribute("aria-pressed", String(Boolean(on)));
  }

  next(by) {
    const order = this.alarms.order();
    const place = order.indexOf(this.episode);
    const at = order[place < 0 ? 0 : place + by];
    if (at !== undefined) this.show(at);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const onSlider = event.target === this.slider;
    const onButton = event.target.matches("button, input[type=checkbox], summary, a");
    const does = {
      ArrowLeft: () => this.goTo(this.step - 1),
      ArrowRight: () => this.goTo(this.step + 1),
      Home: () => this.goTo(0),
      End: () => this.goTo(this.last),
      n: () => this.next(1),
      p: () => this.next(-1),
      " ": onButton ? undefined : () => this.play(!this.timer),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!does || (onSlider && event.key.length > 1)) return; // a slider knows its own keys
    event.preventDefault();
    does();
  }
}
