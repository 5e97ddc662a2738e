// What the screens of the gallery say about crops, in one way.

import { address, call, requireName, Trouble } from "./api.js";

const PAGE = 1000;

/** The address of a crop's stored picture. */
export const cropSource = (cropId) => address(["gallery", cropId, "image"]).href;

/** Who, where and when, for those who do not see the picture. */
export function cropTitle(crop) {
  const who = crop.identity === null ? "nobody yet" : `identity ${crop.identity}`;
  const where = crop.camera === null ? "no camera" : `camera ${crop.camera}`;
  return crop.captured_at === null ? `${who}, ${where}` : `${who}, ${where}, ${moment(crop.captured_at)}`;
}

/** A time of the API in the visitor's own form, as text. */
export function moment(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** The crops of an identity in the order of enrolment, at most `most` of them, and whether there are more. */
export async function cropsOf(identity, most) {
  const crops = [];
  for (let cursor = null; crops.length < most; ) {
    const page = await call("gallery", { query: { identity, limit: Math.min(PAGE, most), cursor } });
    crops.push(...page.crops);
    cursor = page.next_cursor;
    if (cursor === null) return { crops, more: false };
  }
  return { crops, more: true };
}

/** The identity of this name, null where there is none. */
export async function knownIdentity(name) {
  try {
    return await call(["identities", name]);
  } catch (error) {
    if (error.kind === "unknown-identity") return null;
    throw error;
  }
}

/** The name in a field. Raises Trouble for none, and for what cannot be one. */
export function named(input, what) {
  const name = input.value.trim();
  if (!name) throw new Trouble(`${what} has a name; type it first.`);
  return requireName(name, what);
}

/** Asks with a modal dialog; true where its button of value "yes" was pressed. */
export function agreed(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  });
}

/** Offers names of the gallery in a field's list, fetched when the field is first used. */
export function suggestIdentities(input, list) {
  input.addEventListener("focus", () => fillNames(list), { once: true });
}

async function fillNames(list) {
  const page = await call("identities", { query: { limit: PAGE } }).catch(() => ({ identities: [] }));
  list.replaceChildren(...page.identities.map(({ identity }) => new Option(identity, identity)));
}
