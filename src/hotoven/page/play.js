// A person plays: shows what the game says and tells it the keys.

import { connect, listKeys, watchKeys, write } from "./stage.js";

const at = (id) => document.getElementById(id);

let about = "";

const send = connect(at("picture"), {
  greeted(told) {
    about = told.about;
    write(at("title"), told.title);
    listKeys(at("keys"), told.keys);
  },
  shown(status) {
    const { level, steps, outcome, message } = status;
    write(at("level"), `${level}, ${about}`);
    write(at("steps"), steps);
    write(at("message"), message);
    at("message").dataset.outcome = outcome;
    at("picture").dataset.outcome = outcome;
    at("picture").setAttribute("aria-label", `The picture of ${level}`);
    document.title = `${at("title").textContent}, ${level}`;
  },
  lost(text) {
    write(at("message"), text);
    at("message").dataset.outcome = "";
  },
});

watchKeys(
  { r: "restart", n: "next", p: "previous" },
  {
    changed: (keys) => send({ keys }),
    command: (command) => send({ do: command }),
  },
);
