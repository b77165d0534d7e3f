// The dashboard's numbers: columns of calls and attempts as they came (dashboard/packing.py), what is counted of them at
// each draw, and how it is told in words.

const [OK, FAILED, REFUSED, CANCELLED] = [0, 1, 2, 3];
const STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800];
const BINS = 96; // of the latency, sixteen to a factor of ten
const MOST_DOTS = 4000;
const COLUMNS = {
  calls: { at: Float64Array, count: Uint32Array, outcome: Uint8Array, profile: Uint8Array, label: Uint8Array, caller: Uint8Array, latency: Float32Array },
  attempts: { at: Float64Array, count: Uint32Array, outcome: Uint8Array, profile: Uint8Array, label: Uint8Array },
};

// Columns of one kind, which grow.
class Rows {
  constructor(kind) {
    this.kinds = Object.entries(COLUMNS[kind]);
    this.length = 0;
    for (const [name, Kind] of this.kinds) this[name] = new Kind(0);
  }

  // Takes its columns off the front of `buffers`. Times are whole numbers of `unit` since `base`; no counts: one each.
  add(buffers, { base, unit }) {
    const start = this.length;
    for (const [name, Kind] of this.kinds) {
      const { buffer, byteOffset, byteLength } = buffers.shift();
      const given = new (name === "at" ? Uint32Array : Kind)(buffer.slice(byteOffset, byteOffset + byteLength));
      if (name === "at") this.length += given.length;
      if (this.length > this[name].length) {
        const grown = new Kind(Math.ceil(this.length * (start ? 1.5 : 1)));
        grown.set(this[name].subarray(0, start));
        this[name] = grown;
      }
      if (name === "at") for (let index = 0; index < given.length; index++) this.at[start + index] = (base + given[index] * unit) / 1000;
      else if (name === "count" && !given.length) this.count.fill(1, start, this.length);
      else this[name].set(given, start);
    }
  }
}

// The step of the buckets: one that people know, at least so many seconds and so many pixels wide.
const stepFor = (length, width, least = 0, pixels = 4) => STEPS.find((step) => step >= least && (width * step) / length >= pixels) ?? STEPS[STEPS.length - 1];

const binOf = (ms) => Math.max(0, Math.min(BINS - 1, Math.floor(16 * Math.log10(Math.max(ms, 1)))));
const msOf = (bin) => 10 ** ((bin + 0.5) / 16);

// Value below which a share of a histogram's counts lies; null where it is empty.
const quantile = (bins, from, total, share) => {
  let left = Math.max(Math.ceil(total * share), 1);
  if (!total) return null;
  for (let bin = 0; bin < BINS; bin++) if ((left -= bins[from + bin]) <= 0) return msOf(bin);
  return msOf(BINS - 1);
};

// Counts per bucket of everything that the picture shows. Where a time falls is counted from 1970, so that bars stay
// what they are while the picture moves. `keep`: says which profiles, codes and callers count. Attempts have no code and
// caller: where one is chosen (`keep.byCall`), profiles and reasons are counted of the calls instead.
const summarise = ({ calls, attempts, names }, since, until, step, keep) => {
  const first = Math.floor(since / step), count = Math.max(Math.floor(until / step) - first + 1, 1);
  const zeros = () => new Float64Array(count);
  const made = { first, step, count, of: keep.byCall ? "calls" : "attempts", calls: [zeros(), zeros(), zeros(), zeros()], totals: [0, 0, 0, 0], dots: [] };
  const bins = new Uint32Array(count * BINS), timed = zeros(), reasons = new Map();
  made.profiles = names.profiles.map((name) => ({ name, tried: zeros(), failed: zeros(), all: 0, bad: 0 }));
  const each = (rows, take) => {
    for (let i = 0; i < rows.length; i++) {
      if (rows.at[i] >= since && rows.at[i] < until && keep.profile(rows.profile[i])) take(i, Math.floor(rows.at[i] / step) - first, rows.count[i], rows.outcome[i]);
    }
  };
  const tried = (rows, labels, i, place, times, outcome) => {
    const mine = made.profiles[rows.profile[i]], isBad = outcome === FAILED;
    mine.tried[place] += times;
    mine.all += times;
    if (outcome === OK || outcome === CANCELLED) return;
    if (isBad) {
      mine.failed[place] += times;
      mine.bad += times;
    }
    const key = rows.label[i] * 4 + outcome;
    if (!reasons.has(key)) reasons.set(key, { name: labels[rows.label[i]], isBad, counts: zeros(), all: 0 });
    reasons.get(key).counts[place] += times;
    reasons.get(key).all += times;
  };
  each(calls, (i, place, times, outcome) => {
    if (!keep.code(calls.label[i]) || !keep.caller(calls.caller[i])) return;
    if (keep.byCall) tried(calls, names.codes, i, place, times, outcome);
    made.calls[outcome][place] += times;
    made.totals[outcome] += times;
    if (outcome !== OK || Number.isNaN(calls.latency[i])) return;
    bins[place * BINS + binOf(calls.latency[i])] += times;
    timed[place] += times;
    if (made.dots.length <= MOST_DOTS) made.dots.push(i);
  });
  if (!keep.byCall) each(attempts, (...one) => tried(attempts, names.reasons, ...one));
  [made.p50, made.p95] = [0.5, 0.95].map((share) => [...timed].map((total, place) => quantile(bins, place * BINS, total, share)));
  made.reasons = [...reasons.values()].sort((a, b) => b.all - a.all);
  made.all = made.totals.reduce((a, b) => a + b);
  made.unanswered = made.totals[FAILED] + made.totals[REFUSED];
  return made;
};

const percent = (part, whole) => {
  const share = whole ? (part / whole) * 100 : 0;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  if (share > 99.9 && share < 100) return "> 99.9 %";
  return `${share.toFixed(1).replace(".0", "")} %`;
};
const counted = (value) => Math.round(value).toLocaleString("en");
const callsOf = (count) => `${counted(count)} ${count === 1 ? "call" : "calls"}`;
// A length of time, in the largest unit of which it has one.
const span = (seconds) => {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) if (seconds >= size) return `${+(seconds / size).toFixed(1)} ${unit}`;
  return `${Math.round(seconds * 1000)} ms`;
};
const took = (ms) => (ms === null ? "none" : span(ms < 1000 ? ms / 1000 : ms < 10000 ? Math.round(ms / 100) / 10 : Math.round(ms / 1000)));

// Seconds that the kernel's clock is ahead of UTC at a time: its zone is not always the browser's, and has summers.
const offsetAt = (offsets, at) => (offsets.findLast(([since]) => since <= at) ?? offsets[0])[1];
const clock = (at, offset, { seconds = true, ms = false, day = false } = {}) => {
  const text = new Date((at + offset) * 1000).toISOString();
  return (day ? `${text.slice(5, 10)} ` : "") + text.slice(11, ms ? 23 : seconds ? 19 : 16);
};
