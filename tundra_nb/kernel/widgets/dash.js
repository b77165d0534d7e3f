// The dashboard's view. Columns of calls and attempts come as bytes (dashboard/packing.py); the level of detail is made
// here, from all of them at each draw. Marks are on a canvas, words and rules in an SVG over it. Text is only ever set
// as text.

const SVG = ["http", "//www.w3.org/2000/svg"].join(":"); // a name: nothing is loaded, as a test checks for every script
const [OK, FAILED, REFUSED] = [0, 1, 2];
const STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800];
const BINS = 96; // of the latency, eight to a factor of ten in both directions of a second: 10 ** (bin / 16) ms
const MOST_DOTS = 4000;
const MOST = { profiles: 6, reasons: 6, levels: 3, terminals: 4, connections: 4 };
const STATES = { open: "bad", parked: "lost", "half open": "warn" };

// Growing columns of rows.
class Rows {
  constructor() {
    this.length = 0;
    this.columns = [Float64Array, Float32Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint32Array].map((Kind) => new Kind(0));
  }

  // Seven buffers: time, latency, outcome, profile, label, caller, count (empty: one each).
  add(buffers, base, unit) {
    const view = (buffer, Kind) => new Kind(buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength));
    const parts = [Uint32Array, Float32Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint32Array].map((Kind, index) => view(buffers[index], Kind));
    const more = parts[0].length;
    const size = this.length + more;
    if (size > this.columns[0].length) {
      this.columns = this.columns.map((old) => {
        const grown = new old.constructor(Math.ceil(size * (this.length ? 1.5 : 1)));
        grown.set(old.subarray(0, this.length));
        return grown;
      });
    }
    const at = this.columns[0];
    for (let i = 0; i < more; i++) at[this.length + i] = (base + parts[0][i] * unit) / 1000;
    for (let c = 1; c < 6; c++) this.columns[c].set(parts[c], this.length);
    if (parts[6].length) this.columns[6].set(parts[6], this.length);
    else this.columns[6].fill(1, this.length, size);
    this.length = size;
  }
}

// The step of the buckets: one that people know, at least so many seconds and so many pixels wide.
const stepFor = (span, width, least = 0) => STEPS.find((step) => step >= least && (width * step) / span >= 4) ?? STEPS[STEPS.length - 1];

// Where a time falls is counted from 1970, so that bars stay what they are while the picture moves.
const bucketsOf = (since, until, step) => {
  const first = Math.floor(since / step);
  return { step, first, count: Math.max(Math.floor(until / step) - first + 1, 1) };
};

const binOf = (ms) => Math.max(0, Math.min(BINS - 1, Math.floor(16 * Math.log10(Math.max(ms, 1)))));
const msOf = (bin) => 10 ** ((bin + 0.5) / 16);

// Value below which a share of a histogram's counts lies; null where it is empty.
const quantile = (bins, from, total, share) => {
  if (!total) return null;
  let left = Math.max(Math.ceil(total * share), 1);
  for (let bin = 0; bin < BINS; bin++) if ((left -= bins[from + bin]) <= 0) return msOf(bin);
  return msOf(BINS - 1);
};

// Counts per bucket of everything that the picture shows. `keep`: profile, code and caller that count.
const summarise = (data, since, until, step, keep) => {
  const { first, count } = bucketsOf(since, until, step);
  const zeros = () => new Float64Array(count);
  const calls = [zeros(), zeros(), zeros(), zeros()];
  const bins = new Uint32Array(count * BINS);
  const answered = zeros();
  const totals = [0, 0, 0, 0];
  const profiles = data.names.profiles.map(() => ({ tried: zeros(), failed: zeros(), all: 0, bad: 0 }));
  const reasons = new Map();
  const dots = [];
  {
    const [at, latency, outcome, profile, code, caller, times] = data.calls.columns;
    for (let i = 0; i < data.calls.length; i++) {
      if (at[i] < since || at[i] >= until) continue;
      if (!keep.profile(profile[i]) || !keep.code(code[i]) || !keep.caller(caller[i])) continue;
      const place = Math.floor(at[i] / step) - first;
      calls[outcome[i]][place] += times[i];
      totals[outcome[i]] += times[i];
      if (outcome[i] === OK && !Number.isNaN(latency[i])) {
        bins[place * BINS + binOf(latency[i])] += times[i];
        answered[place] += times[i];
        if (dots.length <= MOST_DOTS) dots.push(i);
      }
    }
  }
  {
    const [at, , outcome, profile, reason, , times] = data.attempts.columns;
    for (let i = 0; i < data.attempts.length; i++) {
      if (at[i] < since || at[i] >= until || !keep.profile(profile[i])) continue;
      const place = Math.floor(at[i] / step) - first;
      const mine = profiles[profile[i]];
      if (!mine) continue;
      mine.tried[place] += times[i];
      mine.all += times[i];
      if (outcome[i] === OK || outcome[i] > REFUSED) continue;
      if (outcome[i] === FAILED) {
        mine.failed[place] += times[i];
        mine.bad += times[i];
      }
      const key = reason[i] * 4 + outcome[i];
      let row = reasons.get(key);
      if (!row) reasons.set(key, (row = { name: data.names.reasons[reason[i]], isBad: outcome[i] === FAILED, counts: zeros(), all: 0 }));
      row.counts[place] += times[i];
      row.all += times[i];
    }
  }
  const p50 = [], p95 = [];
  for (let place = 0; place < count; place++) {
    p50.push(quantile(bins, place * BINS, answered[place], 0.5));
    p95.push(quantile(bins, place * BINS, answered[place], 0.95));
  }
  return { first, step, count, calls, totals, p50, p95, profiles, reasons: [...reasons.values()].sort((a, b) => b.all - a.all), dots };
};

const percent = (part, whole) => {
  const share = whole ? (part / whole) * 100 : 0;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  if (share > 99.9 && share < 100) return "> 99.9 %";
  return `${share.toFixed(1).replace(".0", "")} %`;
};
const counted = (value) => Math.round(value).toLocaleString("en");
const took = (ms) => (ms === null ? "none" : ms < 1000 ? `${Math.round(ms)} ms` : ms < 120000 ? `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0).replace(".0", "")} s` : `${Math.round(ms / 60000)} min`);
const span = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${seconds / 60} min` : seconds < 86400 ? `${seconds / 3600} h` : `${seconds / 86400} d`);

// A time as the kernel's clock shows it: its zone is not always the browser's.
const clock = (at, offset, { seconds = true, ms = false, day = false } = {}) => {
  const text = new Date((at + offset) * 1000).toISOString();
  return (day ? `${text.slice(5, 10)} ` : "") + text.slice(11, ms ? 23 : seconds ? 19 : 16);
};

function render({ model, el }) {
  const view = crypto.randomUUID?.() ?? String(Math.random());
  const svgOf = (tag, attributes, ...children) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const button = (label, title, act) => {
    const made = make("button", "", label);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", act);
    return made;
  };

  let data = null, detail = null, asked = "";
  let now = { since: 0, until: 1 }, isFollowing = false, isWhole = true;
  let brush = null, hover = null, summary = null, lanes = [], colours = {}, width = 0, left = 150, right = 120;
  let isSeen = true, isWaiting = false, speech = 0;
  const off = { profiles: new Set(), code: "", caller: "" };

  // --- what is on the page
  const root = make("div", "tundra-view tundra-dash");
  root.dataset.lmSuppressShortcuts = "true"; // or `b` in the picture adds a cell
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", "Time line of calls");
  const head = make("div", "tundra-head");
  head.setAttribute("role", "heading");
  head.setAttribute("aria-level", "3");
  const before = make("div", "tundra-before");
  const beside = make("div", "tundra-beside");
  const counts = make("div", "tundra-counts");
  const problem = make("div", "tundra-problem");
  const said = make("div", "tundra-said");
  said.setAttribute("aria-live", "polite");
  const filters = make("div", "tundra-filters");
  const select = (label, key, names) => {
    const made = make("select", "");
    made.setAttribute("aria-label", label);
    made.addEventListener("change", () => {
      off[key] = made.value;
      filtered();
    });
    made.fill = () => {
      const known = [`any ${label}`, ...names().filter(Boolean)];
      if (made.length !== known.length) made.replaceChildren(...known.map((name, index) => Object.assign(make("option", "", name), { value: index ? name : "" })));
      made.value = off[key];
      made.hidden = known.length < 3 && !off[key];
    };
    return made;
  };
  const code = select("code", "code", () => data.names.codes);
  const caller = select("caller", "caller", () => data.names.callers);
  const live = button("Live", "follow what happens now (l)", () => follow(!isFollowing));
  const tools = make("div", "tundra-tools",
    button("−", "zoom out (-)", () => zoom(2)), button("+", "zoom in (+)", () => zoom(0.5)),
    button("Worst", "jump to the worst stretch (e, E: next, previous)", () => jump(0)),
    button("All", "the whole window (0)", () => whole()), live);
  tools.children[0].setAttribute("aria-label", "−: zoom out");
  tools.children[1].setAttribute("aria-label", "+: zoom in");
  const canvas = make("canvas", "");
  canvas.setAttribute("aria-hidden", "true");
  const words = svgOf("svg", { "aria-hidden": "true" });
  const tip = make("div", "tundra-tip");
  const help = make("div", "tundra-said", "Arrows move, plus and minus zoom, e and E go to failing stretches, Enter selects what is shown, Escape clears, 0 shows all.");
  help.id = `tundra-help-${view}`;
  const stage = make("div", "tundra-stage", canvas, words, tip);
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", "picture of the window");
  stage.setAttribute("aria-describedby", help.id);
  const picked = make("div", "tundra-picked");
  const why = make("div", "tundra-why");
  const table = make("div", "tundra-scroll");
  table.tabIndex = 0;
  table.setAttribute("role", "group");
  table.setAttribute("aria-label", "the numbers of the picture");
  const asTable = make("details", "", make("summary", "", "As a table"), table);
  asTable.addEventListener("toggle", () => asTable.open && tabulate());
  root.append(make("style", "", STYLE), head, before, beside, counts, problem, make("div", "tundra-bar", filters, tools), stage, help, picked, why, asTable, said);
  root.hidden = true;

  // --- moving about
  const show = (since, until, { follows = false, all = false } = {}) => {
    const least = 0.05;
    const middle = (since + until) / 2, half = Math.max(until - since, least) / 2;
    [since, until] = [middle - half, middle + half];
    const whole_ = data.until - data.since;
    if (until - since >= whole_) [since, until] = [data.since, data.until];
    else if (since < data.since) [since, until] = [data.since, data.since + (until - since)];
    else if (until > data.until) [since, until] = [data.until - (until - since), data.until];
    now = { since, until };
    isFollowing = follows;
    isWhole = all || until - since >= whole_;
    closer();
    draw();
  };
  const zoom = (factor, at = (now.since + now.until) / 2) => show(at - (at - now.since) * factor, at + (now.until - at) * factor);
  const pan = (share) => show(now.since + (now.until - now.since) * share, now.until + (now.until - now.since) * share);
  const whole = () => show(data.since, data.until, { follows: data.live, all: true });
  const follow = (wanted) => (wanted ? show(data.until - (now.until - now.since), data.until, { follows: true, all: isWhole }) : show(now.since, now.until));
  let episode = -1;
  const jump = (which) => {
    const found = which === 0 ? data.episodes : [...data.episodes].sort((a, b) => a.since - b.since);
    if (!found.length) return say("nothing failed in this window");
    episode = which === 0 ? 0 : (episode + which + found.length) % found.length;
    const one = found[episode];
    const around = Math.max((one.until - one.since) * 0.25, 2);
    show(one.since - around, one.until + around);
    return say(`${one.words}. ${one.before}`);
  };
  // rows are groups: those of a closer view are asked for
  const closer = () => {
    const source = detail && now.since >= detail.since && now.until <= detail.until ? detail : data;
    if (!source.step || stepFor(now.until - now.since, width - left - right) >= source.step) return;
    const key = `${now.since}-${now.until}`;
    if (key === asked) return;
    asked = key;
    setTimeout(() => asked === key && model.send({ type: "zoomed", ...now }), 250);
  };

  const pick = (since, until) => {
    brush = since === null ? null : { since, until };
    picked.replaceChildren();
    why.replaceChildren();
    tell();
    draw();
  };
  const tell = () => {
    const shown = data.names.profiles.filter((name) => !off.profiles.has(name));
    model.send({
      type: "picked", since: brush?.since ?? null, until: brush?.until ?? null,
      profiles: off.profiles.size ? shown : [], code: off.code, caller: off.caller,
    });
  };
  const filtered = () => {
    tell();
    draw();
  };

  // --- drawing
  const xOf = (at) => left + ((at - now.since) / (now.until - now.since)) * (width - left - right);
  const atOf = (x) => now.since + ((x - left) / (width - left - right)) * (now.until - now.since);
  const draw = () => {
    if (isWaiting || !data || !isSeen) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      if (!root.isConnected) return;
      fit();
      paint();
    });
  };
  const label = (x, y, text, kind = "dim", anchor = "start", room = 0) => {
    const most = room ? Math.max(Math.floor(room / (kind === "strong" ? 7 : 6.2)), 2) : Infinity;
    const cut = [...text].length > most ? `${[...text].slice(0, most - 1).join("")}…` : text;
    const made = svgOf("text", { x, y, class: kind, "text-anchor": anchor }, cut);
    if (cut !== text) made.append(svgOf("title", {}, text));
    words.append(made);
  };

  const paint = () => {
    const { offset } = data;
    const day = now.until - now.since > 86400 || clock(now.since, offset, { day: true }).slice(0, 5) !== clock(Date.now() / 1000, offset, { day: true }).slice(0, 5);
    const source = detail && now.since >= detail.since && now.until <= detail.until ? detail : data;
    const inner = Math.max(width - left - right, 50);
    const step = stepFor(now.until - now.since, inner, source.step);
    const places = { codes: source.names.codes.indexOf(off.code), callers: source.names.callers.indexOf(off.caller) };
    const keep = {
      profile: (one) => !off.profiles.has(source.names.profiles[one]),
      code: (one) => !off.code || one === places.codes,
      caller: (one) => !off.caller || one === places.callers,
    };
    const s = (summary = { ...summarise(source, now.since, now.until, step, keep), source });
    const isGrouped = source.step > 0 && source.latency;
    if (isGrouped) {
      // exact quantiles came with the groups: of several in one bucket the highest
      s.p50.fill(null);
      s.p95.fill(null);
      source.latency[0].forEach((at, index) => {
        const place = Math.floor(at / step) - s.first;
        if (place < 0 || place >= s.count) return;
        s.p50[place] = Math.max(s.p50[place] ?? 0, source.latency[1][index]);
        s.p95[place] = Math.max(s.p95[place] ?? 0, source.latency[2][index]);
      });
    }
    const all = s.totals.reduce((a, b) => a + b), bad = s.totals[FAILED] + s.totals[REFUSED];

    // which lanes there are
    const within = (one) => one.since <= now.until && (one.until ?? data.until) >= now.since;
    lanes = [];
    const lane = (kind, height, more = {}) => lanes.push({ kind, height, ...more });
    const changes = data.changes.filter((one) => one.at >= now.since && one.at <= now.until);
    lane("changes", 22, { changes });
    lane("calls", 78);
    lane("latency", 66);
    const rows = s.profiles
      .map((row, index) => ({ ...row, name: source.names.profiles[index], bands: data.bands.filter((one) => one.name === source.names.profiles[index] && within(one)) }))
      .filter((row) => (row.all || row.bands.length) && !off.profiles.has(row.name));
    rows.sort((a, b) => b.bands.length - a.bands.length || b.bad - a.bad || b.all - a.all);
    for (const row of rows.slice(0, MOST.profiles)) lane("profile", 26, { row });
    if (rows.length > MOST.profiles) lane("more", 18, { name: `${rows.length - MOST.profiles} more`, note: "with less trouble" });
    for (const row of s.reasons.slice(0, MOST.reasons)) lane("reason", 20, { row });
    for (const row of data.levels.slice(0, MOST.levels)) lane("level", 28, { row });
    for (const kind of ["terminals", "connections"]) {
      const found = data[kind].filter(within).sort((a, b) => b.bad - a.bad || b.since - a.since);
      for (const row of found.slice(0, MOST[kind])) lane("span", 19, { row, note: row.word || kind });
      if (found.length > MOST[kind]) lane("more", 18, { name: `${found.length - MOST[kind]} more`, note: kind });
    }
    let y = 26;
    for (const one of lanes) {
      one.y = y;
      y += one.height + 4;
    }
    const height = y + 2, scale = globalThis.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      stage.style.height = `${height}px`;
    }
    words.setAttribute("viewBox", `0 0 ${width} ${height}`);
    words.replaceChildren();
    const c = canvas.getContext("2d");
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, width, height);
    const box = (x, top, w, h, colour) => {
      c.fillStyle = colours[colour];
      c.fillRect(x, top, w, h);
    };
    const clipX = (x) => Math.min(Math.max(x, left), left + inner);
    const wide = Math.max((inner * step) / (now.until - now.since), 1);
    const bars = (values, base, floor, factor, colour, least = 1.5) => {
      c.fillStyle = colours[colour];
      for (let place = 0; place < s.count; place++) {
        if (!values[place]) continue;
        const x = clipX(xOf((s.first + place) * step)), end = clipX(xOf((s.first + place + 1) * step)) - (wide > 5 ? 1 : 0);
        const tall = Math.max(values[place] * factor, least);
        c.fillRect(x, floor - base[place] - tall, Math.max(end - x, 1), tall);
        base[place] += tall;
      }
    };
    const stretch = (one) => [clipX(xOf(one.since)), clipX(xOf(one.until ?? data.until))];
    for (const one of lanes) if (one.kind !== "more") box(left, one.y, inner, one.height, "lane");

    // the axis
    const ticks = STEPS.find((one) => (inner * one) / (now.until - now.since) >= 76) ?? STEPS[STEPS.length - 1];
    for (let at = Math.ceil((now.since + offset) / ticks) * ticks - offset; at <= now.until; at += ticks) {
      const x = Math.round(xOf(at)) + 0.5;
      box(x - 0.5, 20, 1, height - 24, "line");
      label(x, 14, ticks >= 86400 ? clock(at, offset, { day: true, seconds: false }).slice(0, 5) : clock(at, offset, { seconds: ticks < 60, ms: ticks < 1 }), "dim", "middle");
    }

    const room = left - 14, roomRight = right - 12;
    for (const one of lanes) {
      const { y: top, height: tall, row } = one, floor = top + tall, x2 = left + inner + 8, middle = top + tall / 2 + 4;
      if (one.kind === "changes") {
        label(left - 10, middle, "changes", "strong", "end", room);
        label(x2, middle, changes.length ? `${changes.length} in view` : "none", "dim", "start", roomRight);
        changes.forEach((change, index) => {
          const x = xOf(change.at), end = index + 1 < changes.length ? xOf(changes[index + 1].at) : left + inner;
          const mark = svgOf("path", { d: `M${x} ${top + tall / 2 - 6}l6 6l-6 6l-6 -6z`, class: change.commit ? "commit" : "change" });
          mark.append(svgOf("title", {}, `${clock(change.at, offset, { day })} ${change.words} ${change.author && `(${change.author})`}`));
          words.append(svgOf("path", { d: `M${x} ${top + tall}V${height - 6}`, class: "rule" }), mark);
          if (end - x > 70) label(x + 10, middle, change.words, "strong", "start", end - x - 16);
          else if (index + 1 === changes.length && x - left > 140 && (!index || x - xOf(changes[index - 1].at) > 140)) label(x - 10, middle, change.words, "strong", "end", 120);
        });
      } else if (one.kind === "calls") {
        let most = 1;
        for (let p = 0; p < s.count; p++) most = Math.max(most, s.calls[0][p] + s.calls[1][p] + s.calls[2][p] + s.calls[3][p]);
        const base = new Float64Array(s.count), factor = (tall - 6) / most;
        for (const [outcome, colour] of [[FAILED, "bad"], [REFUSED, "warn"], [OK, "slate"], [3, "line"]]) bars(s.calls[outcome], base, floor, factor, colour);
        label(left - 10, top + 16, "calls", "strong", "end", room);
        label(left - 10, top + 31, `${span(step)} a bar`, "dim", "end", room);
        label(x2, top + 16, counted(all), "strong");
        label(x2, top + 31, `${counted(s.totals[FAILED])} failed`, s.totals[FAILED] ? "badly" : "dim", "start", roomRight);
        if (s.totals[REFUSED]) label(x2, top + 46, `${counted(s.totals[REFUSED])} refused`, "warnly", "start", roomRight);
      } else if (one.kind === "latency") {
        label(left - 10, top + 16, width < 700 ? "latency" : "latency, answered", "strong", "end", room);
        const known = s.p50.filter((ms) => ms !== null);
        if (!known.length || (isGrouped && (off.profiles.size || off.code || off.caller))) {
          label(left + 8, middle, known.length ? "not by filter while calls are grouped" : "no call was answered", "dim");
          continue;
        }
        const low = Math.floor(Math.log10(Math.max(Math.min(...known), 1))), high = Math.max(Math.ceil(Math.log10(Math.max(...s.p95.filter((ms) => ms !== null)))), low + 1);
        const level = (ms) => floor - 2 - ((Math.log10(Math.max(ms, 1)) - low) / (high - low)) * (tall - 4);
        for (let decade = low; decade <= high; decade++) {
          box(left, level(10 ** decade), inner, 1, "line");
          if (level(10 ** decade) >= top + 24) label(left - 10, level(10 ** decade) + 4, took(10 ** decade), "dim", "end", room);
        }
        const isDots = !source.step && s.dots.length <= MOST_DOTS && s.dots.length < inner * 3;
        if (isDots) {
          const [at, ms] = source.calls.columns;
          c.fillStyle = colours.slate;
          for (const i of s.dots) c.fillRect(xOf(at[i]) - 1.5, level(ms[i]) - 1.5, 3, 3);
        } else {
          for (let p = 0; p < s.count; p++) {
            if (s.p50[p] === null) continue;
            const x = clipX(xOf((s.first + p) * step)), end = clipX(xOf((s.first + p + 1) * step));
            box(x, level(s.p95[p]), Math.max(end - x, 1), Math.max(level(s.p50[p]) - level(s.p95[p]), 1), "pale");
            box(x, level(s.p50[p]) - 1, Math.max(end - x, 1), 2, "ink");
          }
        }
        label(x2, top + 16, isDots ? "each call" : "p50 to p95", "dim", "start", roomRight);
        const sorted = [...known].sort((a, b) => a - b);
        label(x2, top + 31, `p50 ${took(sorted[sorted.length >> 1])}`, "dim", "start", roomRight);
      } else if (one.kind === "profile") {
        const tried = row.tried.map((n) => (n ? 1 : 0)), failing = row.tried.map((n, p) => (row.failed[p] && row.failed[p] >= n / 4 ? 1 : 0));
        bars(tried, new Float64Array(s.count), floor - 1, 5, "slate");
        bars(failing, new Float64Array(s.count), floor - 1, 5, "bad");
        for (const band of row.bands) {
          const [x, end] = stretch(band);
          box(x, top + 1, Math.max(end - x, 2), tall - 8, STATES[band.word] ?? "warn");
          if (end - x > 8 * band.word.length) label(x + 5, top + 14, band.word, "on");
        }
        const isOpen = row.bands.some((band) => band.until === null && band.bad);
        label(left - 10, middle, row.name, "strong", "end", room);
        label(x2, middle, isOpen ? `still ${row.bands[row.bands.length - 1].word}` : row.all ? `${percent(row.bad, row.all)} failed` : "not asked", isOpen || row.bad * 20 > row.all ? "badly" : "dim", "start", roomRight);
      } else if (one.kind === "reason") {
        const most = Math.max(1, ...s.reasons.map((other) => Math.max(...other.counts)));
        bars(row.counts, new Float64Array(s.count), floor - 1, (tall - 4) / most, row.isBad ? "bad" : "warn", 2);
        label(left - 10, middle, row.name, "dim", "end", room);
        label(x2, middle, counted(row.all), "dim");
      } else if (one.kind === "level") {
        const points = row.at.map((at, index) => [xOf(at), row.share[index]]);
        points.forEach(([x, share], index) => {
          const end = clipX(index + 1 < points.length ? points[index + 1][0] : left + inner), begin = clipX(x);
          if (end <= begin) return;
          if (share < 0.02) box(begin, floor - 3, end - begin, 3, "warn");
          else box(begin, floor - share * (tall - 4), end - begin, share * (tall - 4), "pale");
        });
        const empty = points.find(([x, share]) => share < 0.02 && x >= left && x < left + inner - 50);
        if (empty) label(empty[0] + 5, middle, "empty", "warnly");
        label(left - 10, middle, row.name, "dim", "end", room);
        label(x2, middle, `${Math.round(row.share[row.share.length - 1] * 100)} % left`, "dim", "start", roomRight);
      } else if (one.kind === "span") {
        const [x, end] = stretch(row);
        box(x, top + tall / 2 - 2.5, Math.max(end - x, 2), 5, row.bad ? "bad" : "slate");
        if (row.bad && row.until !== null) box(end - 2, top + 3, 2, tall - 6, "bad");
        label(left - 10, middle, row.name, "dim", "end", room);
        label(x2, middle, one.note, row.bad ? "badly" : "dim", "start", roomRight);
      } else {
        label(left - 10, middle, one.name, "dim", "end", room);
        label(x2, middle, one.note, "dim", "start", roomRight);
      }
    }
    if (brush) {
      const x = clipX(xOf(brush.since)), end = clipX(xOf(brush.until));
      if (end > x) words.append(svgOf("rect", { x, y: 20, width: end - x, height: height - 24, class: "brush" }));
    }
    if (hover !== null) words.append(svgOf("path", { d: `M${hover} 20V${height - 6}`, class: "hover" }));

    // words around it
    const { story } = data;
    head.replaceChildren(make("span", story.bad ? "tundra-bad" : story.calls ? "tundra-good" : "tundra-dim", story.who), ` ${story.what}`);
    set(before, story.before);
    set(beside, story.beside);
    const told = `${clock(now.since, offset, { day })} – ${clock(now.until, offset, { day })} ${data.zone} · ${counted(all)} calls, ${percent(bad, all)} not answered`;
    set(counts, `${told}${data.where ? ` · ${data.where}` : ""}${source.step ? ` · in groups of ${span(source.step)}` : ""}`);
    live.setAttribute("aria-pressed", String(isFollowing));
    live.hidden = !data.live;
    clearTimeout(speech);
    if (!isFollowing) speech = setTimeout(() => document.activeElement === stage && say(told), 250);
    root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1);
    if (asTable.open) tabulate();
  };
  const set = (where, text) => where.textContent !== text && (where.textContent = text);
  const say = (text) => set(said, text);

  const grid = (heads, rows) => make("table", "", make("thead", "", make("tr", "", ...heads.map((one) => make("th", "", one)))), make("tbody", "", ...rows.map((cells) => make("tr", "", ...cells.map((one) => make("td", "", one))))));
  const tabulate = () => {
    if (!summary) return;
    const s = summary, size = Math.max(Math.ceil(s.count / 24), 1), rows = [];
    for (let place = 0; place < s.count; place += size) {
      const sum = (values) => values.slice(place, place + size).reduce((a, b) => a + b, 0);
      const most = (values) => values.slice(place, place + size).reduce((a, b) => (b === null ? a : Math.max(a ?? 0, b)), null);
      rows.push([clock((s.first + place) * s.step, data.offset), counted(s.calls.reduce((a, b) => a + sum(b), 0)), counted(sum(s.calls[FAILED])), counted(sum(s.calls[REFUSED])), took(most(s.p50)), took(most(s.p95))]);
    }
    table.replaceChildren(
      grid([`from, each ${span(size * s.step)}`, "calls", "failed", "refused", "p50", "p95"], rows),
      grid(["profile", "attempts", "failed", "breaker"], s.profiles.map((row, index) => [s.source.names.profiles[index], counted(row.all), counted(row.bad), data.bands.filter((one) => one.name === s.source.names.profiles[index]).map((one) => `${one.word} from ${clock(one.since, data.offset)} ${one.until === null ? "on" : `to ${clock(one.until, data.offset)}`}`).join(", ")])),
      grid(["reason", "attempts"], s.reasons.map((row) => [row.name, counted(row.all)])),
      grid(["changed", "what", "by"], data.changes.map((one) => [clock(one.at, data.offset), one.words, one.author])),
    );
  };
  const buttons = () => {
    const shown = data.names.profiles.slice(0, 8);
    if (filters.dataset.names !== shown.join("\n")) {
      filters.dataset.names = shown.join("\n");
      filters.replaceChildren(...(shown.length > 1 ? shown : []).map((name) => {
        const made = button(name, `show or hide ${name}`, () => {
          if (!off.profiles.delete(name)) off.profiles.add(name);
          made.setAttribute("aria-pressed", String(!off.profiles.has(name)));
          filtered();
        });
        made.setAttribute("aria-pressed", String(!off.profiles.has(name)));
        return made;
      }), code, caller);
    }
    code.fill();
    caller.fill();
  };

  // --- keys, pointer, wheel
  const KEYS = {
    ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25), ArrowUp: () => zoom(0.5), ArrowDown: () => zoom(2), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
    0: whole, Home: () => show(data.since, data.since + now.until - now.since), End: () => follow(data.live), l: () => follow(!isFollowing),
    e: () => jump(1), E: () => jump(-1), w: () => jump(0), Enter: () => pick(now.since, now.until), Escape: () => pick(null),
  };
  stage.addEventListener("keydown", (event) => {
    const act = data && !event.ctrlKey && !event.metaKey && !event.altKey && KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
  for (const name of ["keydown", "keyup", "keypress"]) root.addEventListener(name, (event) => event.stopPropagation());
  let drag = null;
  const placeOf = (event) => Math.min(Math.max(event.clientX - stage.getBoundingClientRect().left, left), width - right);
  stage.addEventListener("pointerdown", (event) => {
    if (event.button || !data) return;
    drag = { x: placeOf(event), pan: event.shiftKey ? { ...now } : null };
    stage.setPointerCapture(event.pointerId);
    stage.focus({ preventScroll: true });
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!data || !summary) return;
    const x = placeOf(event);
    if (drag?.pan) {
      const moved = ((drag.x - x) / (width - left - right)) * (drag.pan.until - drag.pan.since);
      show(drag.pan.since + moved, drag.pan.until + moved);
      return;
    }
    if (drag && Math.abs(x - drag.x) > 3) brush = { since: atOf(Math.min(x, drag.x)), until: atOf(Math.max(x, drag.x)) };
    hover = x;
    const s = summary, place = Math.floor(atOf(x) / s.step) - s.first;
    const at = (s.first + place) * s.step;
    const sum = s.calls.reduce((a, b) => a + (b[place] ?? 0), 0);
    tip.textContent = `${clock(at, data.offset, { ms: s.step < 1 })} · ${counted(sum)} calls · ${counted(s.calls[FAILED][place] ?? 0)} failed · p95 ${took(s.p95[place] ?? null)}`;
    tip.hidden = false;
    tip.style.left = `${Math.min(x + 10, width - 260)}px`;
    draw();
  });
  const leave = () => {
    hover = null;
    tip.hidden = true;
    draw();
  };
  stage.addEventListener("pointerleave", leave);
  stage.addEventListener("pointerup", (event) => {
    const was = drag;
    drag = null;
    if (!was || was.pan) return;
    const x = placeOf(event);
    if (Math.abs(x - was.x) > 3) pick(atOf(Math.min(x, was.x)), atOf(Math.max(x, was.x)));
    else if (brush) pick(null);
  });
  stage.addEventListener("dblclick", (event) => zoom(0.25, atOf(placeOf(event))));
  stage.addEventListener("wheel", (event) => {
    if (!data || !(event.ctrlKey || event.metaKey || event.shiftKey || document.activeElement === stage)) return; // the page scrolls
    event.preventDefault();
    const move = Math.abs(event.deltaY) > Math.abs(event.deltaX) ? event.deltaY : event.deltaX;
    if (event.shiftKey) pan(Math.sign(move) * 0.1);
    else zoom(move > 0 ? 1.25 : 0.8, atOf(placeOf(event)));
  }, { passive: false });

  // --- what the kernel sends
  const hide = make("style", "");
  const taken = (message, buffers) => {
    const rows = (header) => {
      const made = { ...header, calls: new Rows(), attempts: new Rows() };
      made.calls.add(buffers.slice(0, 7), header.base, header.unit);
      made.attempts.add(buffers.slice(7), header.base, header.unit);
      return made;
    };
    if (message.type === "data") {
      const isFirst = !data, wasWhole = isWhole;
      data = rows(message);
      detail = null;
      hide.textContent = `.${model.get("still")} { display: none; }`; // only now: without a kernel it stays
      root.hidden = false;
      set(problem, message.problem);
      if (isFirst) measure();
      buttons();
      if (isFirst) whole();
      else if (wasWhole) show(data.since, data.until, { follows: isFollowing, all: true });
      else show(now.since, now.until, { follows: isFollowing });
    } else if (message.type === "detail") {
      detail = rows(message);
      draw();
    } else if (message.type === "more" && data) {
      const { base, unit, type, ...more } = message;
      data.calls.add(buffers.slice(0, 7), base, unit);
      data.attempts.add(buffers.slice(7), base, unit);
      Object.assign(data, more);
      set(problem, "");
      buttons();
      if (isFollowing && isWhole) now = { since: data.since, until: data.until };
      else if (isFollowing) now = { since: data.until - (now.until - now.since), until: data.until };
      draw();
    } else if (message.type === "problem") {
      set(problem, message.problem);
    } else if (message.type === "rows" && brush && message.since === brush.since && message.until === brush.until) {
      list(message);
    } else if (message.type === "why") {
      const image = make("img", "");
      image.alt = `why the call ${message.id} went as it did`;
      image.src = message.picture;
      const text = make("pre", "", message.words);
      const scroll = make("div", "tundra-scroll", image, text);
      scroll.tabIndex = 0;
      scroll.setAttribute("role", "group");
      scroll.setAttribute("aria-label", image.alt);
      why.replaceChildren(make("div", "tundra-dim", `%tundra why ${message.id}`), scroll);
      why.scrollIntoView?.({ block: "nearest" });
    }
  };
  const list = ({ rows, count, unanswered }) => {
    const told = `Selected ${clock(brush.since, data.offset)} – ${clock(brush.until, data.offset)} · ${counted(count)} calls, ${percent(unanswered, count)} not answered`;
    const found = rows.map(({ id, cells }) => [button(cells[0], `why the call ${id} went as it did`, () => model.send({ type: "why", id })), ...cells.slice(1)]);
    const scroll = make("div", "tundra-scroll", grid(["why", "at", "outcome", "profile", "code", "latency", "message"], found));
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", "calls of the selection");
    const note = count > rows.length ? `the worst ${rows.length}; ` : "";
    picked.replaceChildren(make("div", "tundra-bar", make("strong", "", told), make("span", "tundra-dim", `${note}all of them in Python: .selection`), button("Zoom", "show only what is selected", () => show(brush.since, brush.until)), button("Clear", "select nothing (Escape)", () => pick(null))), scroll);
    say(told);
  };

  // --- size, theme, being seen
  // At each drawing, not when something changes: while a theme is loaded the page has odd sizes for a moment.
  const fit = () => {
    width = Math.max(stage.clientWidth, 300);
    [left, right] = width < 700 ? [96, 92] : [150, 124];
    words.setAttribute("width", width);
  };
  const measure = () => {
    fit();
    const style = getComputedStyle(root);
    for (const name of ["bad", "warn", "slate", "pale", "line", "lane", "ink", "lost"]) colours[name] = style.getPropertyValue(`--tundra-${name}`).trim();
    draw();
  };
  const sized = new ResizeObserver(measure);
  const themed = new MutationObserver(() => setTimeout(measure, 50)); // its style comes a moment later
  const seen = new IntersectionObserver((entries) => {
    isSeen = entries.some((entry) => entry.isIntersecting);
    draw();
  });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  el.append(hide, root);
  sized.observe(root);
  seen.observe(root);
  for (const one of [document.body, document.documentElement]) themed.observe(one, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name"] });
  scheme.addEventListener("change", measure);
  tip.hidden = true;
  model.on("msg:custom", taken);
  model.send({ type: "opened", view });
  return () => {
    model.off("msg:custom", taken);
    for (const one of [sized, themed, seen]) one.disconnect();
    scheme.removeEventListener("change", measure);
    model.send({ type: "closed", view });
  };
}

export default { render };
export { render };
