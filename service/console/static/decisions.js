// What a person decides about a crop, sent so that it can be taken back. Nothing here is decided by a distance.

import { call, Trouble } from "./api.js";
import { knownIdentity } from "./crops.js";

const change = (cropId, json) => call(["gallery", cropId], { method: "PATCH", json });

/** The crop as it is now. Raises Trouble where somebody else has named it since it was shown. */
async function fresh(cropId) {
  const crop = await call(["gallery", cropId]);
  if (crop.identity === null) return crop;
  throw new Named(crop);
}

/** Somebody else has decided meanwhile; that stands. */
export class Named extends Trouble {
  constructor(crop) {
    super(`Somebody has named this crop ${crop.identity} meanwhile; that stands.`);
    this.cropId = crop.crop_id;
  }
}

/** Gives crops without an identity the identity `name`; answers what `takeBack` needs. */
export async function give(cropIds, name) {
  const before = await Promise.all(cropIds.map(fresh));
  const done = [];
  try {
    for (const crop of before) done.push(undoable(crop, await change(crop.crop_id, { identity: name })));
  } catch (error) {
    await takeBack(done).catch(() => {}); // the first reason counts
    throw error;
  }
  return done;
}

/** Raises Trouble where the name is somebody's already. */
export async function requireNobody(name) {
  if (!(await knownIdentity(name))) return;
  throw new Trouble(`${name} is somebody already. Type another name, or choose ${name} among the candidates.`);
}

/** Marks a crop as not being `name`. */
export async function ruleOut(cropId, name) {
  const crop = await fresh(cropId);
  return [undoable(crop, await change(cropId, { not_identity: name }))];
}

const undoable = (before, after) => ({ before, after });

/** Takes changes back, the last one first. Raises Trouble where somebody has changed the crop since. */
export async function takeBack(changes) {
  for (const { before, after } of changes.toReversed()) {
    const now = await call(["gallery", before.crop_id]);
    if (now.identity !== after.identity) throw new Trouble("Somebody has changed this crop since; look at it in the gallery.");
    const restored = now.identity === before.identity ? now : await change(before.crop_id, { identity: before.identity });
    await restoreMarks(restored, before.not_identity);
  }
}

async function restoreMarks(crop, marks) {
  const extra = crop.not_identity.some((name) => !marks.includes(name));
  if (extra) await change(crop.crop_id, { not_identity: null });
  if (marks.length && (extra || marks.length > crop.not_identity.length)) {
    await change(crop.crop_id, { not_identity: marks });
  }
}
