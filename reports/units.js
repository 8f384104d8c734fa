// Figures as people read them, like units.py: three significant digits, no 1000 of one unit where it is 1.00 of the next.
const plainNumber = (value, places) =>
  value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });

function digits(value) {
  const size = Math.abs(value);
  if (size >= 99.95) return plainNumber(value, 0);
  if (size >= 9.995) return plainNumber(value, 1);
  return size >= 0.9995 ? plainNumber(value, 2) : String(Number(value.toPrecision(3)));
}

function scaled(value, step, names, wholeFirst = false) {
  for (const [place, name] of names.entries()) {
    const text = place === 0 && wholeFirst && Number.isInteger(value) ? plainNumber(value, 0) : digits(value);
    if (Math.abs(Number(text.replaceAll(",", ""))) < step || place === names.length - 1) return `${text} ${name}`;
    value /= step;
  }
}

const FORMS = {
  "s": (value) => value === 0 ? "0 s" : scaled(value * 1e9, 1000, ["ns", "us", "ms", "s"]),
  "bytes": (value) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"], true),
  "share": (value) => value && Math.abs(value) < 0.0005 ? "<0.1 %" :
    value === 0 ? "0 %" : `${plainNumber(value * 100, Math.abs(value) < 0.9995 ? 1 : 0)} %`,
  "count": (value) => plainNumber(value, 0),
};

// A value of a unit; what has no unit of its own is a rate.
const said = (value, unit) => (FORMS[unit] ?? digits)(value);
