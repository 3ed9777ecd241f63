// The page: which run is shown, and the address that leads to a step of an episode.
//
// #run=NAME&episode=SIZE/METHOD/LEVEL&step=STEP&with=SIZE/METHOD&score=NAME&threshold=NUMBER; what is
// left out is as at the beginning.

import { choice, field, make } from "./page.js";
import { page } from "./data.js";
import { dropGone, loadPlotly } from "./charts.js";
import { about, ends, findings, rates } from "./overview.js";
import { Alarms, open } from "./alarms.js";
import { Inspector } from "./inspector.js";

const WAIT = 250; // milliseconds without a move after which the address is written
const SECTIONS = [
  ["findings", "Findings"],
  ["rates", "Catastrophes and solved"],
  ["ends", "Outcomes by cause"],
  ["alarms", "Alarms"],
  ["inspector", "One episode"],
  ["about", "How it was made"],
];
const at = (id) => document.getElementById(id);

const LOST = "The link names an episode that is not in this file.";

let shown; // { run, alarms, inspector }
let writing;
let turns = 0; // how often something was asked for: what comes late for an older one is dropped

// One line at the top, below what the page always says there.
function tell(text) {
  const lines = [page.note, text].filter(Boolean);
  at("note").replaceChildren(...lines.map((line) => make("span", {}, line)));
  at("note").hidden = !lines.length;
}

const tellError = (error) => tell(`This page cannot show all that it holds: ${error?.message ?? error}`);

function readAddress() {
  const text = location.hash.slice(1);
  if (!text.includes("=")) return null; // a section of the page
  const parts = text.split("&").map((part) => {
    const [name, ...value] = part.split("=");
    return [name, decode(value.join("="))];
  });
  return Object.fromEntries(parts);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function address() {
  const { run, alarms, inspector } = shown;
  const parts = [["run", run.name]];
  if (inspector.episode !== undefined) {
    const level = inspector.opened.level_index[inspector.episode];
    parts.push(["episode", `${inspector.opened.key}/${level}`], ["step", inspector.step]);
    if (inspector.with) parts.push(["with", inspector.with]);
    if (alarms.score !== "mean and std") parts.push(["score", alarms.score]);
    if (alarms.threshold !== alarms.start) parts.push(["threshold", alarms.threshold]);
  }
  const readable = (value) => encodeURIComponent(value).replaceAll("%2F", "/").replaceAll("%2B", "+");
  return `#${parts.map(([name, value]) => `${name}=${readable(value)}`).join("&")}`;
}

function writeAddress() {
  clearTimeout(writing);
  shown.inspector.link?.setAttribute("href", address());
  writing = setTimeout(() => {
    if (!shown.ready || location.hash === address()) return;
    history.replaceState(null, "", address());
    tell(""); // the link that could not be followed is gone
  }, WAIT);
}

// The policy and the place of the episode that is asked for; undefined where it is not there.
async function find(run, episode) {
  const [size, method, level] = episode.split("/");
  const policy = run.recorded?.policies.find((one) => one.key === `${size}/${method}`);
  const place = policy && /^\d+$/.test(level) ? (await open(policy)).placeOf.get(Number(level)) : undefined;
  return place === undefined ? undefined : { policy: policy.key, place };
}

// Shows the run, and what the address asks for; an error is told in the page.
function show(asked) {
  return follow(asked).catch(tellError);
}

async function follow(asked) {
  const turn = (turns += 1);
  const named = page.runs.find((one) => one.name === asked.run);
  const run = named ?? shown?.run ?? page.runs[0];
  if (run !== shown?.run) build(run);
  const strange = asked.run !== undefined && !named;
  const found = asked.episode === undefined || strange ? undefined : await find(run, asked.episode);
  if (turn !== turns) return;
  const lost = strange || (asked.episode !== undefined && !found);
  tell(lost ? LOST : "");
  const { alarms, inspector } = shown;
  if (!run.recorded) {
    document.body.dataset.ready = Math.round(performance.now());
    return;
  }
  shown.ready = false;
  const threshold = asked.threshold ? Number(asked.threshold) : NaN;
  const given = { score: asked.score, threshold: Number.isNaN(threshold) ? undefined : threshold };
  await alarms.choose(lost ? {} : { policy: found?.policy, ...given, anew: Boolean(found) });
  if (turn !== turns) return;
  if (found && alarms.told.key === found.policy) {
    inspector.with = asked.with ?? "";
    await inspector.show(found.place, Number(asked.step ?? 0));
    if (turn !== turns) return;
    inspector.element.scrollIntoView({ block: "start" });
    inspector.slider.focus({ preventScroll: true });
  } else if (inspector.episode === undefined) {
    const first = alarms.opened.outcome.indexOf(2);
    if (!lost) inspector.with = asked.with ?? inspector.with;
    await inspector.show(Math.max(first, 0));
    if (turn !== turns) return;
  }
  clearTimeout(writing); // what was asked for is what the address says
  shown.ready = true;
  document.body.dataset.ready = Math.round(performance.now());
}

function build(run) {
  const charts = [rates(run), ends(run)];
  const pick = async (episode) => {
    await inspector.show(episode);
    inspector.element.scrollIntoView({ block: "start" });
    inspector.slider.focus({ preventScroll: true });
  };
  const alarms = new Alarms(run, {
    changed: () => {
      if (inspector.opened && alarms.opened !== inspector.opened) {
        const level = inspector.opened.level_index[inspector.episode];
        inspector.show(alarms.opened.placeOf.get(level) ?? 0, inspector.step);
      } else {
        inspector.watch();
      }
      writeAddress();
    },
    pick,
  });
  const inspector = new Inspector(run, alarms, () => writeAddress());
  shown = { run, alarms, inspector };
  const nothing = run.recorded ? [] : ["alarms", "inspector"];
  at("report").replaceChildren(findings(run), charts[0].element, charts[1].element, alarms.element, inspector.element, about(run));
  at("contents").replaceChildren(...SECTIONS.filter(([id]) => !nothing.includes(id)).map(([id, title]) => make("a", { href: `#${id}` }, title)));
  dropGone();
  charts.forEach((chart) => chart.draw());
  if (at("run")) at("run").value = run.name;
}

function begin() {
  tell("");
  if (page.runs.length > 1) {
    const runs = choice(page.runs.map((run) => [run.name, `${run.name} (${run.study})`]), page.runs[0].name, (name) => {
      history.replaceState(null, "", `#run=${encodeURIComponent(name)}`);
      show({ run: name });
    });
    runs.id = "run";
    at("chooser").append(field("Run", runs));
    at("chooser").hidden = false;
  } else {
    document.querySelector("h1").textContent += `: ${page.runs[0].name}`;
  }
  addEventListener("hashchange", () => {
    const asked = readAddress();
    if (asked && location.hash !== address()) show(asked);
  });
  // arrows step from anywhere that has no use for them
  document.addEventListener("keydown", (event) => {
    const arrow = ["ArrowLeft", "ArrowRight"].includes(event.key);
    if (arrow && event.target === document.body && shown?.run.recorded) shown.inspector.key(event);
  });
  // what can be shown at once is painted first
  show(readAddress() ?? {}).then(() => setTimeout(loadPlotly, 50));
}

try {
  begin();
} catch (error) {
  tellError(error);
}
