// The ranked identities, and what they mean, in colour and in words.

import { count, el, identityLink, picture, when } from "./api.js";
import { distanceBar } from "./parts.js";
import { coverable } from "./probe.js";

const VERDICTS = {
  match: ["good", "Match"],
  ambiguous: ["warn", "Ambiguous"],
  unknown: ["none", "Unknown"],
  empty_gallery: ["none", "Empty gallery"],
  none: ["none", "No verdict"],
};

// The verdict as a banner, which takes the place of the one before.
export function verdictOf(found) {
  const [kind, word] = VERDICTS[found.verdict ?? "none"];
  return el(
    "div",
    { id: "verdict", class: `verdict ${kind}`, role: "status", tabindex: -1 },
    el("strong", {}, word),
    el("p", {}, meaning(found)),
    el("p", { class: "small" }, account(found)),
  );
}

function meaning(found) {
  const below = found.match_distance?.toFixed(3);
  if (found.verdict === "empty_gallery") return "Nobody is enrolled yet; enrol some crops on the screen Gallery first.";
  if (found.searched === 0) return "No crop passes these filters; widen them.";
  const name = found.matches[0]?.identity ?? "A crop without identity";
  return {
    match: `${name} is nearer than the match distance ${below}, and the next one is clearly farther.`,
    ambiguous: "The two nearest are about as near as each other; compare their pictures.",
    unknown: `Nobody is nearer than the match distance ${below}. These are the nearest all the same.`,
    none: "Nothing says what distance is a match. `resight calibrate` measures it, RESIGHT_MATCH_DISTANCE sets it.",
  }[found.verdict ?? "none"];
}

function account(found) {
  const ms = Object.values(found.timings_ms).reduce((sum, one) => sum + one, 0);
  const how = found.exact ? "compared" : "searched, by likely ones";
  return `${count(found.searched, "crop")} ${how} in ${Math.round(ms)} ms by ${found.model.name}`;
}

// A ranked identity, or crop without one. again(cropId) searches with that crop.
export function matchCard(match, below, again) {
  const lead = coverable(picture(match.crop_id, `Nearest crop of ${nameOf(match)}`), match.crop_id);
  lead.loading = match.rank > 12 ? "lazy" : "eager";
  const others = match.crops.filter((crop) => crop.crop_id !== match.crop_id);
  return el(
    "li",
    { class: "card match" },
    el("div", { class: "lead frame" }, lead),
    el(
      "div",
      { class: "stack facts" },
      el("div", { class: "row spread" }, title(match), badge(match, below)),
      distanceBar(match.distance, below),
      el("p", { class: "faint small" }, match.camera ?? "no camera", " · ", when(match.captured_at), support(match)),
      el("button", { type: "button", class: "small again", onclick: () => again(match.crop_id) }, "Search again with this one"),
      others.length > 0 && el("ul", { class: "plain others", "aria-label": `Other crops of ${nameOf(match)}` }, others.map((crop) => other(crop, again))),
    ),
  );
}

function nameOf(match) {
  return match.identity ?? "a crop without identity";
}

function title(match) {
  const rank = el("span", { class: "rank", "aria-label": `Rank ${match.rank}` }, String(match.rank));
  const name = match.identity === null ? el("span", { class: "faint" }, "no identity") : identityLink(match.identity);
  return el("h2", { class: "row" }, rank, name);
}

function badge(match, below) {
  if (below === null || below === undefined) return null;
  const near = match.distance < below;
  return el("span", { class: `badge ${near ? "good" : ""}` }, near ? "near enough" : "too far");
}

function support(match) {
  return match.support ? ` · ${count(match.support, "crop")} near enough` : "";
}

function other(crop, again) {
  const label = `Search again with the crop of ${crop.camera ?? "no camera"} at distance ${crop.distance.toFixed(3)}`;
  const button = el("button", { type: "button", class: "thumb", "aria-label": label, title: label }, picture(crop.crop_id));
  button.addEventListener("click", () => again(crop.crop_id));
  return el("li", {}, button, el("span", { class: "faint number" }, crop.camera ?? "–"));
}
