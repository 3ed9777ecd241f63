// A table that can be sorted by any column and is shown a page at a time.

import { make } from "./page.js";

const ROWS = 12; // of a page

// `columns` are { title, text, value }: what a row shows there and what it is sorted by. The first
// column is a button that calls `pick` with the row; so does a click on the row.
export class SortableTable {
  constructor(caption, columns, pick) {
    this.columns = columns;
    this.pick = pick;
    this.rows = [];
    this.by = 0;
    this.down = false;
    this.start = 0;
    this.body = make("tbody");
    this.place = make("span", { class: "place" });
    this.heads = columns.map(({ title }, place) =>
      make("th", { scope: "col" }, make("button", { type: "button", class: "sort", click: () => this.sortBy(place) }, title)),
    );
    this.earlier = make("button", { type: "button", click: () => this.turn(-1) }, "Previous page");
    this.later = make("button", { type: "button", click: () => this.turn(1) }, "Next page");
    this.element = make(
      "div",
      {},
      make(
        "div",
        { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
        make(
          "table",
          { class: "episodes" },
          make("caption", {}, caption),
          make("thead", {}, make("tr", {}, ...this.heads)),
          this.body,
        ),
      ),
      make("div", { class: "commands" }, this.earlier, this.later, this.place),
    );
  }

  // Shows these rows in the order that was chosen; `picked` says which one is marked.
  show(rows, picked) {
    this.rows = rows;
    this.picked = picked;
    this.refresh();
  }

  sortBy(place) {
    this.down = place === this.by ? !this.down : false;
    this.by = place;
    this.start = 0;
    this.refresh();
  }

  turn(pages) {
    this.start += pages * ROWS;
    this.refresh();
  }

  // Turns to the page of the first row that `is` what is looked for; stays where there is none.
  turnTo(is) {
    const place = this.sorted().findIndex(is);
    if (place >= 0) this.start = Math.floor(place / ROWS) * ROWS;
    this.refresh();
  }

  // The rows in the order that is shown; those without a value are last, in either direction.
  sorted() {
    const { value } = this.columns[this.by];
    const sign = this.down ? -1 : 1;
    const order = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === undefined || b === undefined) return Number(a === undefined) - Number(b === undefined);
      return a < b ? -sign : a > b ? sign : 0;
    };
    return [...this.rows].sort(order); // equal ones stay in the order of levels
  }

  refresh() {
    this.start = Math.max(0, Math.min(this.start, Math.floor((this.rows.length - 1) / ROWS) * ROWS));
    const shown = this.sorted().slice(this.start, this.start + ROWS);
    this.heads.forEach((head, place) => {
      if (place === this.by) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.body.replaceChildren(...shown.map((row) => this.line(row)));
    this.earlier.disabled = this.start === 0;
    this.later.disabled = this.start + ROWS >= this.rows.length;
    this.place.textContent = this.rows.length
      ? `${this.start + 1} to ${this.start + shown.length} of ${this.rows.length}`
      : "none";
  }

  line(row) {
    const cells = this.columns.map(({ text }, place) => {
      if (place) return make("td", {}, text(row));
      const button = make("button", { type: "button", class: "pick" }, text(row));
      return make("th", { scope: "row" }, button);
    });
    const marked = this.picked?.(row);
    const line = make("tr", { class: marked ? "picked" : undefined, click: () => this.pick(row) }, ...cells);
    if (marked) line.setAttribute("aria-current", "true");
    return line;
  }
}
