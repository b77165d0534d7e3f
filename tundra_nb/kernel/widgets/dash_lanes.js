// The dashboard's picture: lanes over one axis. Marks are on a canvas, words and rules in an SVG over it.

const SVG = ["http", "//www.w3.org/2000/svg"].join(":"); // a name: nothing is loaded, as a test checks for every script
const MOST = { profiles: 6, reasons: 6, levels: 3, terminals: 4, connections: 4 };
const STATES = { open: "bad", parked: "lost", "half open": "warn" };
const TOP = 26;
const GAP = 4;
const FAILING_SHARE = 0.25;

const put = (made, attributes) => {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const svgOf = (tag, attributes, ...children) => {
  const made = put(document.createElementNS(SVG, tag), attributes);
  made.append(...children);
  return made;
};

// Which lanes there are. Each has a height, a name at its left, notes at its right (texts with a kind), and what draws it.
const lanesOf = (data, s, now, off, time) => {
  const isWithin = (one) => one.since <= now.until && (one.until ?? data.until) >= now.since;
  const changes = data.changes.filter((one) => one.at >= now.since && one.at <= now.until);
  const known = s.p50.filter((ms) => ms !== null).sort((a, b) => a - b);
  const lanes = [
    { height: 22, name: "changes", isStrong: true, notes: [[data.knows_changes ? (changes.length ? `${changes.length} in view` : "none") : "not recorded"]], draw: (p) => p.changes(changes, time) },
    {
      height: 78, name: "calls", isStrong: true, under: `${span(s.step)} a bar`, draw: (p) => p.calls(),
      notes: [[counted(s.all), "strong"], [`${counted(s.totals[FAILED])} failed`, s.totals[FAILED] && "badly"], ...(s.totals[REFUSED] ? [[`${counted(s.totals[REFUSED])} refused`, "warnly"]] : [])],
    },
    {
      height: 66, name: "latency", isStrong: true, draw: (p) => p.latency(),
      notes: known.length ? [["of answered"], [`p50 ${took(known[known.length >> 1])}`]] : [["none answered"]],
    },
  ];
  const profiles = s.profiles
    .map((row) => ({ ...row, bands: data.bands.filter((one) => one.name === row.name && isWithin(one)) }))
    .filter((row) => (row.all || row.bands.length) && !off.profiles.has(row.name))
    .sort((a, b) => b.bands.length - a.bands.length || b.bad - a.bad || b.all - a.all);
  const some = (rows, most, note, lane) => {
    lanes.push(...rows.slice(0, most).map(lane));
    if (rows.length > most) lanes.push({ height: 18, name: `${rows.length - most} more`, notes: [[note]] });
  };
  some(profiles, MOST.profiles, "with less trouble", (row) => {
    const last = row.bands.find((band) => band.until === null && band.bad);
    const note = last ? `still ${last.word}` : row.all ? `${percent(row.bad, row.all)} failed` : "not asked";
    return { height: 26, name: row.name, isStrong: true, notes: [[note, (last || row.bad * 20 > row.all) && "badly"]], draw: (p) => p.profile(row) };
  });
  const loudest = Math.max(1, ...s.reasons.map((row) => Math.max(...row.counts)));
  const both = new Set(s.reasons.filter((row) => row.isBad).map((row) => row.name)); // what was met, then refused for
  some(s.reasons, MOST.reasons, "reasons", (row) => ({ height: 20, name: !row.isBad && both.has(row.name) ? `${row.name}, refused` : row.name, notes: [[counted(row.all)]], draw: (p) => p.bars([[row.counts, row.isBad ? "bad" : "warn"]], loudest, 2) }));
  some(data.levels, MOST.levels, "buckets", (row) => {
    const last = row.at.findLastIndex((at) => at <= now.until);
    return { height: 28, name: row.name, notes: [[last < 0 ? "" : `${Math.round(row.share[last] * 100)} % left`]], draw: (p) => p.level(row) };
  });
  for (const kind of ["terminals", "connections"]) {
    const rows = data[kind].filter(isWithin).sort((a, b) => b.bad - a.bad || b.since - a.since);
    some(rows, MOST[kind], kind, (row) => ({ height: 19, name: row.name, notes: [[row.word || kind, row.bad && "badly"]], draw: (p) => p.stretch(row) }));
  }
  let top = TOP;
  for (const lane of lanes) {
    lane.top = top;
    top += lane.height + GAP;
  }
  return lanes;
};

// Draws one lane after the other.
class Picture {
  constructor(canvas, words) {
    Object.assign(this, { canvas, words });
  }

  // `s`: the counts; `size`: width and the columns at both sides; `colours`: by name.
  begin(data, s, now, lanes, size, colours) {
    Object.assign(this, { data, s, now, lanes, colours }, size);
    this.end = this.width - this.right;
    this.height = lanes.reduce((sum, lane) => sum + lane.height + GAP, TOP);
    const { canvas, words, width, height } = this, scale = globalThis.devicePixelRatio || 1;
    const [w, h] = [width, height].map((length) => Math.round(length * scale));
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    words.setAttribute("viewBox", `0 0 ${width} ${height}`);
    words.replaceChildren();
    this.c = canvas.getContext("2d");
    this.c.setTransform(scale, 0, 0, scale, 0, 0);
    this.c.clearRect(0, 0, width, height);
  }

  x(at) {
    return this.left + ((at - this.now.since) / (this.now.until - this.now.since)) * (this.end - this.left);
  }

  inside(at) {
    return Math.min(Math.max(this.x(at), this.left), this.end);
  }

  // Left and right end of a bucket, or of a stretch that may go on.
  bucket(place) {
    const { first, step } = this.s;
    return [this.inside((first + place) * step), this.inside((first + place + 1) * step)];
  }

  ends(one) {
    return [this.inside(one.since), this.inside(one.until ?? this.data.until)];
  }

  box(x, top, width, height, colour) {
    this.c.fillStyle = this.colours[colour];
    this.c.fillRect(x, top, width, height);
  }

  say(x, y, text, kind = "dim", anchor = "start", room = Infinity) {
    const made = svgOf("text", { x, y, class: kind, "text-anchor": anchor }, text);
    this.words.append(made);
    if (room === Infinity) return;
    this.family ??= getComputedStyle(made).fontFamily;
    this.c.font = `${kind === "dim" ? 400 : 600} 11.5px ${this.family}`;
    const width = (shown) => this.c.measureText(shown).width, letters = [...text], all = width(text);
    if (all <= room) return;
    let most = Math.max(Math.floor((letters.length * room) / all), 1), shown;
    do shown = `${letters.slice(0, most--).join("")}…`;
    while (most > 0 && width(shown) > room);
    made.replaceChildren(shown, svgOf("title", {}, text));
  }

  paint(time) {
    const { left, right, end, height, lanes } = this;
    for (const lane of lanes) if (lane.draw) this.box(left, lane.top, end - left, lane.height, "lane");
    const length = this.now.until - this.now.since, ticks = stepFor(length, end - left, 0, 76), offset = offsetAt(this.data.offsets, this.now.since);
    for (let at = Math.ceil((this.now.since + offset) / ticks) * ticks - offset; at <= this.now.until; at += ticks) {
      this.box(Math.round(this.x(at)), 20, 1, height - 24, "line");
      this.say(Math.round(this.x(at)), 14, ticks >= 86400 ? time(at, { day: true }).slice(0, 5) : time(at, { seconds: ticks < 60, ms: ticks < 1, day: false }), "dim", "middle");
    }
    for (const lane of lanes) {
      const isLow = lane.height < 40, y = isLow ? lane.top + lane.height / 2 + 4 : lane.top + 16;
      Object.assign(this, { top: lane.top, floor: lane.top + lane.height, tall: lane.height, middle: lane.top + lane.height / 2 + 4 });
      this.say(left - 10, y, lane.name, lane.isStrong ? "strong" : "dim", "end", left - 14);
      if (lane.under) this.say(left - 10, y + 15, lane.under, "dim", "end", left - 14);
      for (const [index, [text, kind]] of lane.notes.entries()) this.say(end + 8, y + 15 * index, text, kind || "dim", "start", right - 12);
      lane.draw?.(this);
    }
  }

  changes(changes, time) {
    const { words, top, tall, middle, left, end, height } = this;
    changes.forEach((change, index) => {
      const x = this.x(change.at), next = index + 1 < changes.length ? this.x(changes[index + 1].at) : end;
      const mark = svgOf("path", { d: `M${x} ${top + tall / 2 - 6}l6 6l-6 6l-6 -6z`, class: change.commit ? "commit" : "change" });
      mark.append(svgOf("title", {}, `${time(change.at)} ${change.words} ${change.author && `(${change.author})`}`));
      words.append(svgOf("path", { d: `M${x} ${top + tall}V${height - 6}`, class: "rule" }), mark);
      const before = index ? this.x(changes[index - 1].at) : left;
      if (next - x > 70) this.say(x + 10, middle, change.words, "strong", "start", next - x - 16);
      else if (next === end && x - before > 140) this.say(x - 10, middle, change.words, "strong", "end", 120);
    });
  }

  // Bars upon each other, from the lane's floor on. `most`: how much fills the lane; `least`: pixels of what there is.
  bars(parts, most, least = 1.5) {
    const { floor, tall } = this;
    for (let place = 0; place < this.s.count; place++) {
      const [x, end] = this.bucket(place), width = Math.max(end - x - (end - x > 5 ? 1 : 0), 1);
      let base = floor;
      for (const [values, colour] of parts) {
        if (!values[place]) continue;
        const height = Math.max((values[place] / most) * (tall - 5), least);
        this.box(x, (base -= height), width, height, colour);
      }
    }
  }

  calls() {
    const { calls, count } = this.s;
    let most = 1;
    for (let place = 0; place < count; place++) most = Math.max(most, calls[OK][place] + calls[FAILED][place] + calls[REFUSED][place] + calls[CANCELLED][place]);
    this.bars([[calls[FAILED], "bad"], [calls[REFUSED], "warn"], [calls[OK], "slate"], [calls[CANCELLED], "line"]], most);
  }

  // On a logarithmic scale of whole decades; each call where they are few.
  latency() {
    const { s, data, top, floor, tall, left, end } = this, { at, latency } = data.calls;
    const values = [...s.p50, ...s.p95].filter((ms) => ms !== null);
    if (!values.length) return;
    const low = Math.floor(Math.log10(Math.max(Math.min(...values), 1))), high = Math.max(Math.ceil(Math.log10(Math.max(...values))), low + 1);
    const level = (ms) => floor - 2 - ((Math.log10(Math.max(ms, 1)) - low) / (high - low)) * (tall - 4);
    for (let decade = low; decade <= high; decade++) {
      const y = level(10 ** decade);
      this.box(left, y, end - left, 1, "line");
      if (y >= top + 24) this.say(left - 10, y + 4, took(10 ** decade), "dim", "end");
    }
    if (!data.step && s.dots.length <= MOST_DOTS && s.dots.length < (end - left) * 3) {
      for (const i of s.dots) this.box(this.x(at[i]) - 1.5, Math.max(level(latency[i]), top) - 1.5, 3, 3, "slate");
      return;
    }
    s.p50.forEach((p50, place) => {
      if (p50 === null) return;
      const [x, to] = this.bucket(place), width = Math.max(to - x, 1), y = level(s.p95[place]);
      this.box(x, y, width, Math.max(level(p50) - y, 1), "pale");
      this.box(x, level(p50) - 1, width, 2, "ink");
    });
  }

  // Its breaker as bands, and below whether it was asked and whether that failed.
  profile({ bands, tried, failed }) {
    const { top, floor, tall } = this;
    for (let place = 0; place < this.s.count; place++) {
      if (!tried[place]) continue;
      const [x, end] = this.bucket(place);
      this.box(x, floor - 6, Math.max(end - x, 1), 5, failed[place] && failed[place] >= tried[place] * FAILING_SHARE ? "bad" : "slate");
    }
    const runs = []; // one word has room in a row of openings, between which the breaker let a probe through
    for (const band of bands) {
      const [x, end] = this.ends(band), { word } = band, run = runs[runs.length - 1];
      this.box(x, top + 1, Math.max(end - x, 2), tall - 8, STATES[word] ?? "warn");
      if (word === "half open" && end - x < 6) continue;
      if (run?.word === word && x - run.end < 6) run.end = end;
      else runs.push({ x, end, word });
    }
    for (const { x, end, word } of runs) if (end - x >= 8 * word.length) this.say(x + 5, top + 14, word, "on");
  }

  // What was left in a bucket; an empty one is a line on the floor, which a filled block would not be read as.
  level({ at, share }) {
    const { floor, tall, end } = this;
    let told = false;
    at.forEach((since, index) => {
      const [x, to] = [since, at[index + 1] ?? this.now.until].map((time) => Math.round(this.inside(time))), isEmpty = share[index] < 0.02;
      const height = isEmpty ? 3 : share[index] * (tall - 4);
      this.box(x, floor - height, to - x, height, isEmpty ? "warn" : "pale");
      if (!isEmpty || told || to <= x || x > end - 50) return;
      this.say(x + 5, this.middle, "empty", "warnly");
      told = true;
    });
  }

  stretch(row) {
    const { top, tall } = this, [x, end] = this.ends(row), colour = row.bad ? "bad" : "slate";
    this.box(x, top + tall / 2 - 2.5, Math.max(end - x, 2), 5, colour);
    if (row.bad && row.until !== null) this.box(end - 2, top + 3, 2, tall - 6, colour);
  }
}
