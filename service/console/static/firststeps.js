// What an empty gallery shows: how to fill it, and the repository's drawn people to try it with.

import { address, busy, call, complain, count, el, may, say, Trouble } from "./api.js";

// The panel; done() is called when the drawn people are enrolled.
export function firstSteps(done) {
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  complain(problem, "");
  const allowed = may("enrol");
  const button = el("button", { type: "button", class: "primary", disabled: !allowed }, "Enrol the drawn people");
  button.addEventListener("click", () => busy(button, () => enrolDrawn().then(done), problem));
  return el(
    "section",
    { class: "card stack empty", "aria-label": "First steps" },
    el("h2", {}, "The gallery is empty"),
    el("ol", { class: "steps" },
      el("li", {}, "Enrol crops of people, with their names and cameras where you know them, on the screen ", el("a", { href: address("console/gallery") }, "Gallery"), "."),
      el("li", {}, "Drop a picture of somebody here: the answer says who that is, and how near."),
      el("li", {}, "Correct what is wrong on the screens Identities and Review."),
    ),
    el("p", {}, "To try it at once, enrol the 24 drawn crops of 8 people that come with Resight. The model has learnt real people, so that drawn ones are ranked, but seldom near enough for a match."),
    problem,
    !allowed && el("p", { class: "hint" }, "This needs a key of scope enrol or admin."),
    el("div", { class: "actions" }, button),
  );
}

async function enrolDrawn() {
  const drawn = await call("console/static/drawn-crops.tar", { as: "blob" });
  const headers = { "Content-Type": "application/x-tar" };
  const lines = (await call("gallery", { method: "POST", body: drawn, headers, as: "text" })).trim().split("\n");
  const last = JSON.parse(lines.at(-1));
  if (last.done !== true) throw new Trouble(last.problem?.detail ?? "The connection broke; enrol them again.");
  say(`${count(lines.length - 1, "drawn crop")} enrolled.`, "done");
}
