// An identity's crops as a drawing: a row for each camera, time from left to right, what has no time at the side.
//
// Crops that would lie on each other share one place, which says how many they are.

import { svg } from "./api.js";
import { cropSource, cropTitle } from "./crops.js";

const THUMB = { width: 40, height: 80 };
const SLOT = THUMB.width + 6;
const TITLE = 22;
const ROW = TITLE + THUMB.height + 12;
const AXIS = 24;
const ORDER = new Intl.Collator("en", { numeric: true });

/** Draws `crops` as wide as `place` and calls `chose(group)` for the one that is chosen. */
export function drawTimeline(place, crops, chose) {
  const scale = parseFloat(getComputedStyle(place).fontSize) / 15; // larger letters, larger pictures
  const plan = planned(crops, Math.max(place.clientWidth / scale, 200));
  const height = plan.rows.length * ROW + (plan.span ? AXIS : 0);
  const viewBox = `0 0 ${plan.width} ${height}`;
  const named = { role: "group", "aria-labelledby": "line-title" };
  const drawn = svg("svg", { width: plan.width * scale, height: height * scale, viewBox, ...named });
  plan.rows.forEach((camera, row) => drawn.append(...rail(camera, row, plan)));
  if (plan.span) drawn.append(...axis(plan, height));
  const buttons = plan.groups.map((group) => button(group));
  drawn.append(...buttons);
  listen(drawn, buttons, plan.groups, chose);
  place.replaceChildren(drawn);
}

/** Where everything goes: `groups` of crops with their place, rows by camera, and the span of known times. */
function planned(crops, width) {
  const rows = [...new Set(crops.map((crop) => crop.camera))].sort(byCamera);
  const timed = crops.filter((crop) => crop.captured_at !== null);
  const untimed = crops.filter((crop) => crop.captured_at === null);
  const slots = Math.floor(width / SLOT);
  const side = !untimed.length ? 0 : timed.length ? Math.max(1, Math.floor(slots / 4)) : slots;
  const span = timed.length ? spanOf(timed) : null;
  const plan = { width, rows, span, slots: slots - side, side };
  plan.groups = [...timedGroups(timed, plan), ...untimedGroups(untimed, plan)];
  return plan;
}

function byCamera(one, other) {
  if (one === null || other === null) return one === null ? 1 : -1; // what has no camera comes last
  return ORDER.compare(one, other);
}

function spanOf(timed) {
  const times = timed.map((crop) => Date.parse(crop.captured_at));
  const bound = (pick) => times.reduce((one, other) => pick(one, other));
  return { first: bound(Math.min), last: bound(Math.max) };
}

function timedGroups(timed, plan) {
  if (!timed.length) return [];
  const ordered = [...timed].sort((one, other) => Date.parse(one.captured_at) - Date.parse(other.captured_at));
  const { first, last } = plan.span;
  const slotOf = (crop) => Math.round(((Date.parse(crop.captured_at) - first) / (last - first || 1)) * (plan.slots - 1));
  return grouped(ordered, plan, slotOf, true);
}

function untimedGroups(untimed, plan) {
  const counts = new Map();
  const slotOf = (crop) => {
    const before = counts.get(crop.camera) ?? 0;
    counts.set(crop.camera, before + 1);
    return plan.slots + Math.min(before, plan.side - 1);
  };
  return grouped(untimed, plan, slotOf, false);
}

function grouped(crops, plan, slotOf, timed) {
  const groups = new Map();
  for (const crop of crops) {
    const [row, slot] = [plan.rows.indexOf(crop.camera), slotOf(crop)];
    const key = `${row} ${slot}`;
    if (!groups.has(key)) groups.set(key, { x: slot * SLOT + 3, y: row * ROW + TITLE, crops: [], timed });
    groups.get(key).crops.push(crop);
  }
  return [...groups.values()].sort((one, other) => one.y - other.y || one.x - other.x);
}

function rail(camera, row, plan) {
  const y = row * ROW + TITLE + THUMB.height + 4;
  const drawn = [
    svg("text", { class: "camera", x: 2, y: row * ROW + 15 }, camera === null ? "no camera" : camera),
    svg("line", { class: "rail", x1: 0, x2: plan.width, y1: y, y2: y }),
  ];
  if (plan.side && plan.span && row === 0) {
    drawn.push(svg("text", { x: plan.slots * SLOT + 3, y: 15 }, "no time"));
  }
  return drawn;
}

function axis(plan, height) {
  const { first, last } = plan.span;
  const ticks = first === last ? 1 : Math.max(2, Math.min(6, Math.floor((plan.slots * SLOT) / 150)));
  return Array.from({ length: ticks }, (_, tick) => {
    const part = ticks === 1 ? 0 : tick / (ticks - 1);
    const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
    const x = part * plan.slots * SLOT;
    return svg("text", { x, y: height - 6, "text-anchor": anchor }, tickText(first + part * (last - first), last - first));
  });
}

function tickText(time, span) {
  const day = 24 * 3600 * 1000;
  const options = span > 4 * day ? { dateStyle: "medium" } : span > day ? { dateStyle: "short", timeStyle: "short" } : { timeStyle: "medium" };
  return new Date(time).toLocaleString(undefined, options);
}

function button({ x, y, crops }) {
  const [first] = crops;
  const label = crops.length === 1 ? cropTitle(first) : `${crops.length} crops, the first: ${cropTitle(first)}`;
  const box = { x, y, ...THUMB };
  const made = svg("g", { role: "button", tabindex: -1, "aria-label": label, "aria-pressed": "false" });
  made.append(svg("rect", { class: "behind", ...box, rx: 4 }));
  made.append(svg("image", { ...box, href: cropSource(first.crop_id), preserveAspectRatio: "xMidYMid slice" }));
  if (crops.length > 1) made.append(...badge(x, y, crops.length));
  made.append(svg("rect", { class: "ring", ...box, rx: 4 }));
  return made;
}

function badge(x, y, number) {
  const text = number > 999 ? "999+" : String(number);
  const width = 12 + 7 * text.length;
  const left = x + THUMB.width - width;
  return [
    svg("rect", { class: "several", x: left, y, width, height: 17, rx: 8 }),
    svg("text", { class: "several-text", x: left + width / 2, y: y + 12.5 }, text),
  ];
}

/** One stop of the tab key; arrows move within. */
function listen(drawn, buttons, groups, chose) {
  const place = (target) => buttons.indexOf(target.closest("[role=button]"));
  const choose = (index) => {
    if (index < 0) return;
    buttons.forEach((one, other) => one.setAttribute("aria-pressed", String(other === index)));
    chose(groups[index]);
  };
  buttons[0]?.setAttribute("tabindex", "0");
  drawn.addEventListener("click", (event) => choose(place(event.target)));
  drawn.addEventListener("keydown", (event) => {
    const index = place(event.target);
    if (event.key === "Enter" || event.key === " ") choose(index);
    else if (!moved(event.key, index, buttons)) return;
    event.preventDefault();
  });
}

function moved(key, index, buttons) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (!(key in steps)) return false;
  const next = Math.min(Math.max(index + steps[key], 0), buttons.length - 1);
  buttons[index].setAttribute("tabindex", "-1");
  buttons[next].setAttribute("tabindex", "0");
  buttons[next].focus();
  return true;
}
