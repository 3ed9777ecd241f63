// What alarms at a threshold are worth: the same numbers as `hotoven.evaluation.alarms` gives.
//
// An episode is a stretch of steps, `first[e]` to `first[e + 1]`. There is an alarm at a step whose
// score is above the threshold. Scores are 32-bit floats, as in the tables, and are made of mu and
// sigma by the same roundings: a threshold of a table gives the counts of that table.

export const CATASTROPHE = 2; // an index into outcomes

// The score of that name at every step.
export function scoreOf(opened, name) {
  opened.made ||= new Map();
  if (!opened.made.has(name)) {
    const rule = opened.scores[name];
    opened.made.set(name, typeof rule === "string" ? opened.known[rule] : weighed(opened.known, rule));
  }
  return opened.made.get(name);
}

// A score that these agents do not have is no number: it is not drawn and raises no alarm.
function weighed({ mu, sigma }, [alpha, beta] = [NaN, NaN]) {
  const [a, b] = [Math.fround(alpha), Math.fround(beta)];
  return mu.map((value, step) => Math.fround(a * value) + Math.fround(b * sigma[step]));
}

const died = (opened, episode) => opened.outcome[episode] === CATASTROPHE;

// For every episode the steps at which its score is higher than ever before, so that the first alarm
// is found without looking at all steps.
function records(opened, score) {
  const found = [];
  for (let episode = 0; episode < opened.num_steps.length; episode += 1) {
    const steps = [];
    let highest = -Infinity;
    for (let at = opened.first[episode]; at < opened.first[episode + 1]; at += 1) {
      if (score[at] > highest) steps.push(at);
      highest = Math.max(highest, score[at]);
    }
    found.push(steps);
  }
  return found;
}

// A score of a policy's steps, ready to be asked about thresholds.
export class Scored {
  constructor(opened, name, minLead) {
    this.opened = opened;
    this.score = scoreOf(opened, name);
    this.minLead = minLead;
    this.records = records(opened, this.score);
  }

  // The first step of an episode with an alarm; -1 where there is none.
  firstAlarm(episode, threshold) {
    const at = this.records[episode].find((step) => this.score[step] > threshold);
    return at === undefined ? -1 : at - this.opened.first[episode];
  }

  // What alarms did: for each episode its first alarm, its lead before a death and what that is
  // called, and how many there are of each kind.
  counts(threshold) {
    const { opened, score, minLead } = this;
    const episodes = [];
    const sums = { caught: 0, missed: 0, false: 0, quiet: 0 };
    for (let episode = 0; episode < opened.num_steps.length; episode += 1) {
      const first = this.firstAlarm(episode, threshold);
      const fatal = died(opened, episode);
      const lead = first >= 0 && fatal ? opened.num_steps[episode] - 1 - first : -1;
      const kind = fatal ? (lead >= minLead ? "caught" : "missed") : first >= 0 ? "false" : "quiet";
      sums[kind] += 1;
      episodes.push({ first, lead, kind });
    }
    let begun = 0;
    for (let at = 0; at < score.length; at += 1) {
      if (score[at] > threshold) begun += 1;
    }
    for (let episode = 0; episode < opened.num_steps.length; episode += 1) {
      for (let at = opened.first[episode] + 1; at < opened.first[episode + 1]; at += 1) {
        if (score[at] > threshold && score[at - 1] > threshold) begun -= 1; // it only goes on
      }
    }
    return { episodes, ...sums, begun };
  }

  // Thresholds to choose from, ascending: an alarm in every step, then each episode's highest
  // score, at which it loses its alarm, and some of the steps' scores between them.
  thresholds() {
    const peaks = this.records.map((steps) => this.score[steps.at(-1)]);
    const sorted = this.score.slice().sort();
    const some = Array.from({ length: 200 }, (_, part) => sorted[Math.floor((part / 200) * (sorted.length - 1))]);
    const all = [...new Set([...peaks, ...some])].sort((one, other) => one - other);
    return [-Infinity, ...all];
  }

  // The ROC curve of steps after which the episode ends in a catastrophe within `window` actions.
  // Null where no step or every step is such.
  roc(window) {
    const { opened, score } = this;
    const [positive, negative] = [[], []];
    for (let episode = 0; episode < opened.num_steps.length; episode += 1) {
      const end = opened.first[episode + 1];
      for (let at = opened.first[episode]; at < end; at += 1) {
        (died(opened, episode) && end - at <= window ? positive : negative).push(score[at]);
      }
    }
    if (!positive.length || !negative.length) return null;
    return new Roc(Float32Array.from(positive).sort(), Float32Array.from(negative).sort());
  }
}

// How many of ascending values are at most `threshold`.
function atMost(values, threshold) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= threshold) low = middle + 1;
    else high = middle;
  }
  return low;
}

class Roc {
  constructor(positive, negative) {
    this.positive = positive;
    this.negative = negative;
  }

  // The shares of positive and of negative steps with an alarm.
  at(threshold) {
    const share = (values) => (values.length - atMost(values, threshold)) / values.length;
    return { hit: share(this.positive), false: share(this.negative) };
  }

  // Some hundred points of the curve, from no alarm to an alarm in every step.
  points() {
    const some = (values) =>
      Array.from({ length: 150 }, (_, part) => values[Math.round((part / 149) * (values.length - 1))]);
    const chosen = [...new Set([...some(this.positive), ...some(this.negative)])].sort((a, b) => b - a);
    return [Infinity, ...chosen, -Infinity].map((threshold) => ({ threshold, ...this.at(threshold) }));
  }

  // The area under it: how likely a positive step scores above a negative one, ties half.
  auc() {
    this.area ??= this.measured();
    return this.area;
  }

  measured() {
    let [sum, below, upTo] = [0, 0, 0];
    for (const value of this.positive) {
      while (below < this.negative.length && this.negative[below] < value) below += 1;
      upTo = Math.max(upTo, below);
      while (upTo < this.negative.length && this.negative[upTo] <= value) upTo += 1;
      sum += (below + upTo) / 2;
    }
    return sum / (this.positive.length * this.negative.length);
  }
}
