// The agent plays and asks for help: shows how things stand and why it asks, tells what you say.

import { bars } from "./bars.js";
import { connect, listKeys, watchKeys, write } from "./stage.js";

const at = (id) => document.getElementById(id);
const REDRAW_MS = 150; // between two drawings of bars while time passes
const OWN_MS = 500; // for which the slider stays where it was put
const ARROWS = {
  "left down": "↙", left: "←", "left up": "↖", down: "↓", stay: "·", up: "↑",
  "right down": "↘", right: "→", "right up": "↗",
};
const LETTERS = { h: "help", g: "go", b: "back", p: "pause", n: "next", r: "restart" };

let told; // at the beginning
let phase = "";
let drawn = 0; // when the bars were
let moved = -Infinity; // when the slider was, by hand

function cell(kind, text, attributes = {}) {
  const element = document.createElement(kind);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function showSummary(summary) {
  at("summary").hidden = !summary;
  for (const name of ["picture", "controls", "keyboard"]) at(name).hidden = Boolean(summary);
  at("said").hidden = Boolean(summary) || told.mode !== "watch";
  if (!summary) return;
  const helps = told.mode === "watch";
  const heads = [...summary.heads, ...(helps ? ["Requests", "Your steps"] : [])];
  at("lines").replaceChildren(...summary.lines.map((line) => cell("li", line)));
  at("heads").replaceChildren(...heads.map((head) => cell("th", head, { scope: "col" })));
  at("rows").replaceChildren(
    ...summary.rows.map((row) => {
      const line = document.createElement("tr");
      line.append(
        cell("th", row.level, { scope: "row" }),
        ...row.ends.map((end, place) => cell("td", end, { "data-outcome": row.outcomes[place] })),
        ...(helps ? [row.num_requests, row.num_helped].map((count) => cell("td", count)) : []),
      );
      return line;
    }),
  );
}

const short = (number) => (number === null ? "none" : number.toFixed(2).replace("-", "−"));

function showSaid(heard, waits) {
  at("said").dataset.over = !heard; // what was said of another state is not shown
  if (!heard) {
    write(at("score"), "The episode is over.");
    write(at("next"), "");
    at("score").dataset.alarm = false;
    drawn = -Infinity;
    return;
  }
  if (!waits && performance.now() - drawn < REDRAW_MS) return;
  drawn = performance.now();
  const { mu, sigma, score, threshold, alarm } = heard;
  write(
    at("score"),
    `U = ${told.formula} = ${short(score)}, ${alarm ? "above" : "not above"} the threshold ` +
      `${short(threshold)} (mean μ ${short(mu)}, standard deviation σ ${short(sigma)})`,
  );
  at("score").dataset.alarm = alarm;
  write(at("next"), `The agent's next action: ${heard.next}`);
  const spoken = told.actions;
  const names = spoken.map((name) => ARROWS[name] ?? name);
  const members = heard.values.map((_, place) => `${place + 1}`);
  bars(at("values"), { label: "Values by member", names: members, rows: [heard.values] });
  bars(at("preferences"), {
    label: `The members' ${told.preferences}`, names, spoken, rows: heard.preferences, chosen: heard.chosen,
  });
  bars(at("dangers"), {
    label: "Probability that an action kills at once", names, spoken, rows: [heard.dangers],
    chosen: heard.chosen, dashed: told.blocked, low: 0, high: 1,
  });
}

const send = connect(at("picture"), {
  greeted(news) {
    told = news;
    write(at("title"), told.title);
    write(at("promise"), told.promise);
    write(at("policies"), `Policies of the members: ${told.preferences}`);
    listKeys(at("keys"), told.keys);
    at("answers").hidden = told.mode !== "watch";
    at("pause").hidden = told.mode !== "watch";
    at("restart").hidden = told.mode === "watch";
    at("speed").max = told.max_speed;
    for (const one of [at("speed"), ...at("speed").labels]) one.hidden = !told.timed; // keys step
  },
  shown(status) {
    const { level, outcome, message, summary } = status;
    const tone = status.phase === "asking" ? "alarm" : status.phase === "helping" ? "yours" : "";
    if (status.phase === "helping" && phase !== "helping") at("speed").blur(); // its arrows are free
    phase = status.phase;
    write(at("level"), `${level}, ${told.about}`);
    write(at("steps"), status.steps);
    write(at("message"), message);
    write(at("countdown"), status.countdown);
    write(at("requests"), status.requests && `Requests for help: ${status.requests}`);
    write(at("trouble"), status.trouble);
    write(at("pauses"), status.paused ? "Resume" : "Pause");
    write(at("steps-per-second"), `${status.speed} steps per second`);
    if (performance.now() - moved > OWN_MS) at("speed").value = status.speed;
    for (const element of [at("message"), at("picture")]) {
      element.dataset.outcome = summary ? "" : outcome;
      element.dataset.tone = tone;
    }
    for (const button of document.querySelectorAll("button[data-do]")) {
      button.setAttribute("aria-disabled", !status.can.includes(button.dataset.do));
    }
    at("picture").setAttribute("aria-label", `The picture of ${level}`);
    document.title = `${tone === "alarm" ? "Alarm! " : ""}${told.title}, ${level}`;
    showSummary(summary);
    showSaid(status.heard, status.paused || phase !== "playing");
  },
  lost(text) {
    write(at("message"), text);
    at("message").dataset.outcome = "";
    at("message").dataset.tone = "";
  },
});

watchKeys(LETTERS, {
  changed: (keys) => send({ keys }),
  command: (command) => send({ do: command }),
});

at("speed").addEventListener("input", () => {
  moved = performance.now();
  send({ speed: Number(at("speed").value) });
});
at("speed").addEventListener("pointerup", () => at("speed").blur());
