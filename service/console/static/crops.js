// What the screens say about crops and identities, in one way.

const NAME = /^[A-Za-z0-9._:-]{1,128}$/;
const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function cropSource(cropId) {
  return `/gallery/${encodeURIComponent(cropId)}/image`;
}

/** A name in a path; `.` and `..` would be shortened by the browser. */
export function inPath(name) {
  return encodeURIComponent(name).replace(/^\.\.?$/, (dots) => dots.replaceAll(".", "%2E"));
}

/** One sentence part for those who do not see the picture. */
export function cropTitle(crop) {
  const who = crop.identity === null ? "nobody yet" : `identity ${crop.identity}`;
  const where = crop.camera === null ? "no camera" : `camera ${crop.camera}`;
  return crop.captured_at === null ? `${who}, ${where}` : `${who}, ${where}, ${moment(crop.captured_at)}`;
}

export function moment(time) {
  return TIME.format(new Date(time));
}

export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}

/** What is wrong with a name, as a sentence; empty where nothing is. */
export function nameTrouble(name, what) {
  if (NAME.test(name)) return "";
  if (!name) return `Type ${what}.`;
  return `${what[0].toUpperCase()}${what.slice(1)} may have 1 to 128 of the letters A-Z and a-z, digits and . _ : - only.`;
}

/** A `datetime-local` value, which is of this browser's time zone, as RFC 3339. */
export function instant(value) {
  return value ? new Date(value).toISOString() : null;
}
