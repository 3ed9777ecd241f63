// Alarms: the ROC curve, a threshold to move along it, what alarms there are worth, and the episodes.

import { absence, choice, field, fixed, levels, make, paragraph, percent, section, significant } from "./page.js";
import { CATASTROPHE, Scored } from "./counts.js";
import { openPolicy } from "./data.js";
import { SortableTable } from "./tables.js";
import { Chart, INKS, axis } from "./charts.js";

const AT_FIRST = 10; // false alarms per 100 episodes at most, where nothing else was asked for
const KINDS = { caught: "caught", missed: "missed", false: "false alarm", quiet: "no alarm" };

export const policyName = (policy) => `${policy.name}, trained on ${levels(policy.num_train_levels)}`;

// How an episode ended; its cause only where that says more.
export const ended = (outcome, cause) => (cause && cause !== outcome ? `${outcome} (${cause})` : outcome);

const opened = new Map(); // policy -> a promise of it with its arrays
export function open(policy) {
  if (!opened.has(policy)) opened.set(policy, openPolicy(policy));
  return opened.get(policy);
}

// What is chosen here, in `state`: policy, score, window, threshold. `changed` is called when the
// threshold, the score or the policy is another; `pick` with the place of an episode to look at.
export class Alarms {
  constructor(run, { changed, pick }) {
    this.run = run;
    this.changed = changed;
    this.filter = { outcome: "all", kind: "all" };
    this.element = section("alarms", "Alarms");
    if (!run.recorded) {
      this.element.append(absence(run.absent.recorded));
      return;
    }
    this.build(pick);
  }

  build(pick) {
    const { recorded } = this.run;
    this.chart = new Chart(400);
    const policies = recorded.policies.map((policy) => [policy.key, policyName(policy)]);
    this.policyChoice = choice(policies, policies[0][0], (key) => this.choose({ policy: key }));
    this.scoreChoice = choice([], "", (score) => this.choose({ score }));
    const windows = recorded.windows.map((steps) => [steps, `${steps} step${steps === 1 ? "" : "s"}`]);
    this.windowChoice = choice(windows, recorded.window, (value) => this.setWindow(Number(value)));
    this.promiseChoice = choice([], "", (value) => value !== "" && this.setThreshold(Number(value)));
    this.slider = make("input", {
      type: "range",
      min: 0,
      input: () => this.setThreshold(this.thresholds[Number(this.slider.value)]),
    });
    this.said = make("output", { class: "threshold" });
    this.counts = make("dl", { class: "counts", "aria-live": "polite", id: "counts" });
    this.basis = paragraph("");
    this.area = paragraph("", "faint");
    this.table = new SortableTable("Episodes on test levels; first alarm and lead in steps", this.columns(), (row) => pick(row.episode));
    this.outcomeFilter = choice([["all", "all"]], "all", (value) => this.filterBy({ outcome: value }));
    const kinds = [["all", "all"], ...Object.entries(KINDS)];
    this.kindFilter = choice(kinds, "all", (value) => this.filterBy({ kind: value }));
    this.promiseField = field("Go to a threshold with a promise", this.promiseChoice);
    this.element.append(
      paragraph(
        "An alarm is raised at a step where the score of danger is above the threshold. Move the threshold: " +
          "the point on the curve, the counts and the list below follow. Nothing here acts on an alarm.",
      ),
      make(
        "div",
        { class: "fields" },
        field("Agents", this.policyChoice),
        field("Score of danger", this.scoreChoice),
        field("ROC: death within", this.windowChoice),
      ),
      this.basis,
      make(
        "div",
        { class: "pair" },
        make("div", {}, this.chart.element),
        make(
          "div",
          {},
          make("div", { class: "fields slider" }, field("Threshold", this.slider), this.said, this.promiseField),
          this.counts,
          this.area,
          paragraph(
            "Any earlier alarm counts as an announcement, even one for another danger: an alarm in every step catches nearly all.",
            "faint",
          ),
        ),
      ),
      make("h3", {}, "Episodes"),
      make(
        "div",
        { class: "fields" },
        field("Outcome", this.outcomeFilter),
        field("Alarm", this.kindFilter),
      ),
      this.table.element,
    );
  }

  columns() {
    const late = (number) => (number < 0 ? undefined : number);
    return [
      { title: "level", text: (row) => String(row.level), value: (row) => row.level },
      { title: "outcome (cause)", text: (row) => ended(row.outcome, row.cause), value: (row) => ended(row.outcome, row.cause) },
      { title: "steps", text: (row) => String(row.steps), value: (row) => row.steps },
      { title: "first alarm", text: (row) => (row.first < 0 ? "\u2013" : String(row.first)), value: (row) => late(row.first) },
      { title: "lead", text: (row) => (row.lead < 0 ? "\u2013" : String(row.lead)), value: (row) => late(row.lead) },
      { title: "alarm", text: (row) => KINDS[row.kind], value: (row) => row.kind },
    ];
  }

  // Shows a policy, a score and a threshold; what is not given stays, or is chosen; `anew`: is as at
  // the beginning. Of several calls at once the last one wins, and all end with it.
  choose(asked) {
    this.latest = this.take(asked);
    return this.latest;
  }

  async take({ policy, score, threshold, anew }) {
    const { recorded } = this.run;
    const told = recorded.policies.find((one) => one.key === policy) ?? this.asked?.told ?? this.firstPolicy();
    const before = anew ? undefined : this.asked?.wanted;
    const wanted = [score, before, "mean and std"].find((name) => name && Object.hasOwn(told.scores, name));
    const asked = { told, wanted };
    this.asked = asked;
    this.window ??= recorded.window;
    this.windowChoice.value = this.window;
    const own = await open(told);
    if (asked !== this.asked) return this.latest;
    const names = Object.entries(recorded.scores).filter(([name]) => name in told.scores);
    const same = told === this.told && wanted === this.score;
    this.told = told;
    this.opened = own;
    this.score = wanted;
    this.policyChoice.value = told.key;
    this.scoreChoice.replaceChildren(...names.map(([name, text]) => make("option", { value: name }, text)));
    this.scoreChoice.value = wanted;
    if (!same) {
      this.scored = new Scored(own, wanted, recorded.min_lead);
      this.thresholds = this.scored.thresholds();
      this.slider.max = this.thresholds.length - 1;
      this.start = this.firstThreshold();
      this.roc = this.scored.roc(this.window);
      this.tellBasis();
      this.tellPromises();
    }
    const next = threshold ?? (same && !anew ? this.threshold : this.start);
    this.apply(next);
    this.drawCurve();
    return undefined;
  }

  firstPolicy() {
    const { policies } = this.run.recorded;
    return policies.find((policy) => policy.method === "mean") ?? policies[0];
  }

  setWindow(window) {
    this.window = window;
    this.roc = this.scored.roc(window);
    this.drawCurve();
  }

  setThreshold(threshold) {
    this.apply(threshold);
    this.drawPoint();
  }

  // The threshold that the page begins with: the lowest with so few false alarms.
  firstThreshold() {
    const few = 0.01 * AT_FIRST * this.opened.num_steps.length;
    let [low, high] = [0, this.thresholds.length - 1]; // false alarms only become fewer
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.scored.counts(this.thresholds[middle]).false <= few) high = middle;
      else low = middle + 1;
    }
    return this.thresholds[low];
  }

  tellBasis() {
    const died = this.opened.outcome.filter((outcome) => outcome === CATASTROPHE).length;
    const { length } = this.opened.num_steps;
    const { min_lead: lead } = this.run.recorded;
    const enough = lead ? `A catastrophe is caught if an alarm leads it by at least ${lead} steps.` : "A catastrophe is caught if an alarm comes before its fatal action.";
    this.basis.textContent = `${policyName(this.told)}; score: ${this.run.recorded.scores[this.score]}. This rests on the ${length} test levels that were recorded step by step; ${died} of them ended in catastrophe. ${enough}`;
  }

  tellPromises() {
    const mine = this.run.recorded.promises.filter(
      (row) => row.num_train_levels === this.told.num_train_levels && row.acting === this.told.method && row.score === this.score,
    );
    const options = mine.map((row) => [row.threshold, `at most ${percent(row.promised, 0)} unannounced, ${row.rule}`]);
    this.promiseChoice.replaceChildren(
      ...[["", "choose ..."], ...options].map(([value, text]) => make("option", { value }, text)),
    );
    this.promiseField.hidden = !options.length;
  }

  apply(threshold) {
    this.threshold = threshold;
    this.result = this.scored.counts(threshold);
    const place = this.thresholds.findIndex((one) => one >= threshold);
    this.slider.value = place < 0 ? this.thresholds.length - 1 : place;
    this.said.textContent = significant(threshold);
    if (Number(this.promiseChoice.value) !== threshold) this.promiseChoice.value = "";
    this.slider.setAttribute("aria-valuetext", significant(threshold));
    this.tellCounts();
    this.list();
    this.changed();
  }

  tellCounts() {
    const { caught, missed, false: wrong, begun } = this.result;
    const all = this.opened.num_steps.length;
    const lines = [
      ["caught", `${caught} of ${caught + missed}`],
      ["missed", `${missed} of ${caught + missed}`],
      ["false alarms", `${fixed((100 * wrong) / all)} per 100 episodes (${wrong} of ${all})`],
      ["alarms that began", String(begun)],
    ];
    this.counts.replaceChildren(
      // on paper there is no slider
      make("div", { class: "printed", "data-count": "threshold" }, make("dt", {}, "threshold"), make("dd", {}, significant(this.threshold))),
      ...lines.map(([name, value]) => make("div", { "data-count": name }, make("dt", {}, name), make("dd", {}, value))),
    );
  }

  rows() {
    const { opened: own, run } = this;
    return this.result.episodes.map((told, episode) => ({
      ...told,
      episode,
      level: own.level_index[episode],
      outcome: run.outcomes[own.outcome[episode]],
      cause: run.causes[own.cause[episode]],
      steps: own.num_steps[episode],
    }));
  }

  list() {
    const rows = this.rows();
    const outcomes = [...new Set(rows.map((row) => row.outcome))].sort();
    const options = ["all", ...outcomes];
    if (options.length !== this.outcomeFilter.length || options.some((one, at) => this.outcomeFilter.options[at].value !== one)) {
      this.outcomeFilter.replaceChildren(...options.map((one) => make("option", { value: one }, one)));
      if (!options.includes(this.filter.outcome)) this.filter.outcome = "all";
      this.outcomeFilter.value = this.filter.outcome;
    }
    const { outcome, kind } = this.filter;
    const kept = rows.filter((row) => (outcome === "all" || row.outcome === outcome) && (kind === "all" || row.kind === kind));
    this.table.show(kept, (row) => row.episode === this.picked);
  }

  filterBy(change) {
    Object.assign(this.filter, change);
    this.table.start = 0;
    this.list();
  }

  // The episodes in the order of the list.
  order() {
    return this.table.sorted().map((row) => row.episode);
  }

  mark(episode) {
    this.picked = episode;
    this.table.turnTo((row) => row.episode === episode);
  }

  point() {
    return this.roc?.at(this.threshold);
  }

  drawCurve() {
    if (!this.roc) {
      this.area.textContent = "No ROC curve: no step, or every step, is followed by a catastrophe.";
      this.chart.element.hidden = true;
      return;
    }
    this.chart.element.hidden = false;
    const curve = this.roc.points();
    const auc = this.roc.auc();
    this.area.textContent = this.tellArea(auc);
    const picture = (inks) => ({
      traces: [
        { name: "chance", x: [0, 1], y: [0, 1], mode: "lines", line: { color: inks.faint, dash: "dot", width: 1 }, hoverinfo: "skip" },
        {
          name: "ROC",
          x: curve.map((point) => point.false),
          y: curve.map((point) => point.hit),
          mode: "lines",
          line: { color: INKS.blue, width: 2.5 },
          hovertemplate: "%{y:.0%} of steps before a death, %{x:.0%} of others<extra></extra>",
        },
        {
          name: "threshold",
          x: [this.point().false],
          y: [this.point().hit],
          mode: "markers",
          marker: { color: INKS.orange, size: 15, symbol: "diamond", line: { color: inks.ink, width: 2 } },
          hovertemplate: "the threshold: %{y:.1%}, %{x:.1%}<extra></extra>",
        },
      ],
      layout: {
        showlegend: false,
        xaxis: axis("other steps with an alarm", { range: [-0.02, 1.02], tickformat: ".0%" }),
        yaxis: axis("steps before a death with an alarm", { range: [-0.02, 1.02], tickformat: ".0%" }),
      },
    });
    const numbers = () => ({
      caption: "ROC curve",
      head: ["threshold", "steps before a death with an alarm", "other steps with an alarm"],
      rows: curve.filter((_, at) => at % 15 === 0).map((point) => [significant(point.threshold), percent(point.hit), percent(point.false)]),
    });
    this.chart.draw(this.rocLabel(auc), picture, numbers);
  }

  tellArea(auc) {
    const { num_train_levels: size, method } = this.told;
    const row = this.run.recorded.predictions.find(
      (one) => one.num_train_levels === size && one.acting === method && one.score === this.score && one.window === this.window,
    );
    const spread = row && this.score !== "best pair" ? ` [${fixed(row.auc_low, 3)}, ${fixed(row.auc_high, 3)}]` : "";
    return `Area under the curve ${fixed(auc, 3)}${spread}: how likely a step from which a death is at most ${this.window} action${this.window === 1 ? "" : "s"} away scores above another step.`;
  }

  rocLabel(auc) {
    const { hit, false: wrong } = this.point();
    return `ROC curve of ${this.run.recorded.scores[this.score]}, area ${fixed(auc, 3)}. At the threshold of ${significant(this.threshold)}: ${percent(hit)} of steps before a death and ${percent(wrong)} of other steps have an alarm.`;
  }

  drawPoint() {
    if (!this.roc) return;
    const { hit, false: wrong } = this.point();
    this.chart.plot.setAttribute("aria-label", this.rocLabel(this.roc.auc()));
    window.Plotly?.restyle(this.chart.plot, { x: [[wrong]], y: [[hit]] }, [2]);
  }
}
