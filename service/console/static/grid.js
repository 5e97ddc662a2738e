// A grid of any number of crops in few nodes: only the rows in sight have cells, and cells are used again.
//
// It is a listbox: one stop of the tab key, arrows move within it, space and click select.

import { cropSource, cropTitle } from "./crops.js";

const MOST_CELLS = 72; // of four nodes each, on whatever screen: on a larger one cells are larger
const GAP = 8;
const CAPTION = 2.8; // under a picture, in rem: two lines
const SETTLED_MS = 60; // pictures are fetched once scrolling has been still for so long

export class Grid {
  /** `hooks`: more() when the end comes near, changed() when the selection did, opened(crop) on Enter. */
  constructor(list, hooks) {
    this.list = list;
    this.hooks = hooks;
    this.room = list.appendChild(document.createElement("div"));
    this.room.className = "grid-room";
    this.room.setAttribute("role", "presentation");
    this.cells = [];
    this.forget();
    list.addEventListener("scroll", () => this.draw(), { passive: true });
    list.addEventListener("click", (event) => this.clicked(event));
    list.addEventListener("dblclick", (event) => this.doubleClicked(event));
    list.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.fit()).observe(list);
  }

  forget() {
    this.crops = [];
    this.chosen = new Set();
    this.active = -1;
    this.anchor = -1;
  }

  clear() {
    this.forget();
    this.list.scrollTop = 0;
    this.fit();
    this.hooks.changed();
  }

  append(crops) {
    this.crops.push(...crops);
    this.draw();
  }

  /** Takes over what `changed`, a Map by crop id, says of crops that are here. */
  replace(changed) {
    this.crops = this.crops.map((crop) => changed.get(crop.crop_id) ?? crop);
    this.draw();
  }

  remove(ids) {
    this.crops = this.crops.filter((crop) => !ids.has(crop.crop_id));
    for (const id of ids) this.chosen.delete(id);
    this.active = Math.min(this.active, this.crops.length - 1);
    this.anchor = this.active;
    this.draw();
    this.hooks.changed();
  }

  selection() {
    return this.crops.filter((crop) => this.chosen.has(crop.crop_id));
  }

  select(ids) {
    this.chosen = new Set(ids);
    this.draw();
    this.hooks.changed();
  }

  // Geometry

  fit() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const under = CAPTION * rem + GAP;
    const { columns, width, rows } = fitted(this.list.clientWidth - 2 * GAP, this.list.clientHeight, under);
    this.columns = columns;
    this.width = width;
    this.height = 2 * width + under;
    this.need(columns * rows);
    this.draw();
  }

  need(count) {
    while (this.cells.length < count) this.cells.push(new Cell(this.room, this.cells.length));
    while (this.cells.length > count) this.cells.pop().node.remove();
  }

  draw() {
    const rows = Math.ceil(this.crops.length / this.columns);
    this.room.style.height = `${rows * this.height + GAP}px`;
    const top = this.list.scrollTop;
    const first = Math.max(0, Math.floor((top - GAP) / this.height)) * this.columns;
    for (let index = first; index < first + this.cells.length; index++) this.drawCell(index);
    this.point();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settled(), SETTLED_MS);
    if (top + 3 * this.list.clientHeight > rows * this.height) this.hooks.more();
  }

  drawCell(index) {
    const cell = this.cells[index % this.cells.length];
    const crop = this.crops[index];
    cell.show(crop, index);
    if (!crop) return;
    const left = GAP + (index % this.columns) * (this.width + GAP);
    cell.place(left, GAP + Math.floor(index / this.columns) * this.height, this.width);
    cell.mark(this.chosen.has(crop.crop_id), index === this.active);
  }

  settled() {
    for (const cell of this.cells) cell.fetch();
  }

  point() {
    const cell = this.cells[this.active % this.cells.length];
    if (cell && cell.index === this.active) this.list.setAttribute("aria-activedescendant", cell.node.id);
    else this.list.removeAttribute("aria-activedescendant");
  }

  // Selection

  clicked(event) {
    const node = event.target.closest("[role=option]");
    if (!node) return;
    this.active = Number(node.dataset.index);
    this.choose(event.shiftKey);
  }

  doubleClicked(event) {
    const node = event.target.closest("[role=option]");
    if (node) this.hooks.opened(this.crops[Number(node.dataset.index)]);
  }

  choose(range) {
    if (range && this.anchor >= 0) this.chooseRange();
    else this.toggle();
    this.draw();
    this.hooks.changed();
  }

  chooseRange() {
    const [first, last] = [this.anchor, this.active].sort((one, other) => one - other);
    for (const crop of this.crops.slice(first, last + 1)) this.chosen.add(crop.crop_id);
  }

  toggle() {
    const id = this.crops[this.active].crop_id;
    if (!this.chosen.delete(id)) this.chosen.add(id);
    this.anchor = this.active;
  }

  pressed(event) {
    const key = event.key === " " ? "Space" : event.key;
    if ((event.ctrlKey || event.metaKey) && key === "a") this.select(this.crops.map((crop) => crop.crop_id));
    else if (key === "Escape" && this.chosen.size) this.select([]);
    else if (key === "Space" && this.active >= 0) this.choose(event.shiftKey);
    else if (key === "Enter" && this.active >= 0) this.hooks.opened(this.crops[this.active]);
    else if (!this.moved(key, event.shiftKey)) return;
    event.preventDefault();
  }

  moved(key, extend) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / this.height)) * this.columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns };
    const jumps = { PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[key] ?? jumps[key];
    if (step === undefined || !this.crops.length) return false;
    const from = this.active;
    this.active = from < 0 && Math.abs(step) < Infinity ? 0 : this.within(from + step);
    this.reveal();
    if (extend) this.extend(from);
    this.draw();
    return true;
  }

  within(index) {
    return Math.min(Math.max(index, 0), this.crops.length - 1);
  }

  extend(from) {
    if (this.anchor < 0) this.anchor = Math.max(from, 0);
    this.chooseRange();
    this.hooks.changed();
  }

  reveal() {
    const top = Math.floor(this.active / this.columns) * this.height;
    const bottom = top + this.height + GAP;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (bottom > this.list.scrollTop + this.list.clientHeight) {
      this.list.scrollTop = bottom - this.list.clientHeight;
    }
  }
}

/** The widest grid of small cells that `MOST_CELLS` fill. */
function fitted(width, height, under) {
  const least = width < 500 ? 84 : 104;
  for (let columns = Math.max(1, Math.floor((width + GAP) / (least + GAP))); ; columns--) {
    const cell = Math.max(least, (width - GAP * (columns - 1)) / columns);
    const rows = Math.ceil(height / (2 * cell + under)) + 1; // a part of one at either end
    if (columns * rows <= MOST_CELLS || columns === 1) return { columns, width: cell, rows };
  }
}

/** One crop's place on the screen: a picture and two lines. */
class Cell {
  constructor(parent, number) {
    this.node = document.createElement("div");
    this.node.className = "grid-cell";
    this.node.id = `grid-cell-${number}`;
    this.node.setAttribute("role", "option");
    this.picture = this.node.appendChild(document.createElement("img"));
    this.picture.alt = "";
    this.picture.decoding = "async";
    this.picture.addEventListener("error", () => this.node.classList.add("without-picture"));
    this.name = this.node.appendChild(document.createElement("span"));
    this.name.className = "who";
    this.camera = this.node.appendChild(document.createElement("span"));
    this.camera.className = "faint";
    this.node.hidden = true;
    parent.append(this.node);
  }

  show(crop, index) {
    this.index = index;
    this.node.hidden = !crop;
    if (!crop || crop === this.crop) return this.number(index);
    if (crop.crop_id !== this.crop?.crop_id) this.forget();
    this.crop = crop;
    this.name.textContent = crop.identity ?? "nobody yet";
    this.name.classList.toggle("faint", crop.identity === null);
    this.camera.textContent = crop.camera ?? "no camera";
    this.node.title = cropTitle(crop);
    return this.number(index);
  }

  number(index) {
    this.node.dataset.index = String(index);
    this.node.setAttribute("aria-posinset", String(index + 1));
    this.node.setAttribute("aria-setsize", "-1"); // more may follow
  }

  forget() {
    this.picture.removeAttribute("src");
    this.node.classList.remove("without-picture");
  }

  fetch() {
    if (!this.node.hidden && !this.picture.hasAttribute("src")) this.picture.src = cropSource(this.crop.crop_id);
  }

  place(left, top, width) {
    this.node.style.transform = `translate(${left}px, ${top}px)`;
    this.node.style.width = `${width}px`;
    this.picture.style.height = `${2 * width}px`;
  }

  mark(chosen, active) {
    this.node.setAttribute("aria-selected", String(chosen));
    this.node.classList.toggle("active", active);
  }
}
