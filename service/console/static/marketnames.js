// Labels in file names: Market-1501's form, which DukeMTMC-reID and others share.

const FORM = /^(-1|\d+)_(c\d+)(?:s\d+)?_f?\d+(?:_\d+)?(?:\.[A-Za-z0-9_]+)+$/;

/** `{identity, camera, junk}` from a file's name without folders; null where it has another form. */
export function readMarketName(name) {
  const parts = FORM.exec(name);
  if (!parts) return null;
  const [, identity, camera] = parts;
  const junk = identity === "-1";
  const known = !junk && identity !== "0000"; // 0000 are many different people
  return { identity: known ? identity : null, camera, junk };
}
