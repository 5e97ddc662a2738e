// Parts that several screens show.

import { el, svg } from "./api.js";

// A distance in [0, 1] as a bar, short for near, with the match distance marked where it is known.
export function distanceBar(distance, match = null) {
  const label =
    `Distance ${distance.toFixed(3)}` + (match === null ? "" : `, a match is below ${match.toFixed(3)}`);
  const near = match === null ? "unsure" : distance < match ? "near" : "far";
  const bar = svg("svg", { class: `distance ${near}`, viewBox: "0 0 200 14", role: "img", "aria-label": label, preserveAspectRatio: "none" });
  bar.append(svg("rect", { class: "track", x: 0, y: 4, width: 200, height: 6, rx: 3 }));
  bar.append(svg("rect", { class: "value", x: 0, y: 4, width: Math.max(200 * distance, 2), height: 6, rx: 3 }));
  if (match !== null) bar.append(svg("line", { class: "mark", x1: 200 * match, x2: 200 * match, y1: 0, y2: 14 }));
  return el("div", { class: "distance-row" }, bar, el("span", { class: "number" }, distance.toFixed(3)));
}
