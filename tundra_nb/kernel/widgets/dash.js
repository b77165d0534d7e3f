// The dashboard's view: the page around the picture, and what keys, pointer and kernel do to it. Text is only ever set as
// text. Before it stand shared.js, dash_rows.js and dash_lanes.js.

const LEAST_SECONDS = 0.05; // of a window
const SILENT_MS = 40000; // a live kernel says something every five seconds
const COLOURS = ["bad", "warn", "slate", "pale", "line", "lane", "ink", "lost"];

const button = (label, title, act, name) => {
  const made = put(make("button", "", label), { type: "button", title, ...(name ? { "aria-label": name } : {}) });
  made.addEventListener("click", act);
  return made;
};
const scrolled = (name, ...children) => put(make("div", "tundra-scroll", ...children), { tabindex: 0, role: "group", "aria-label": name });
const grid = (heads, rows) => {
  const row = (tag, cells) => make("tr", "", ...cells.map((cell) => make(tag, "", cell)));
  return make("table", "", make("thead", "", row("th", heads)), make("tbody", "", ...rows.map((cells) => row("td", cells))));
};
const set = (where, text) => where.textContent !== text && (where.textContent = text);

function render({ model, el }) {
  const view = crypto.randomUUID?.() ?? String(Math.random());
  let data = null, detail = null, asked = "", now = { since: 0, until: 1 }, isFollowing = false, isWhole = true;
  let brush = null, hover = null, drag = null, summary = null, colours = {}, size = { width: 0, left: 0, right: 0 };
  let isSeen = true, isWaiting = false, speech = 0, saying = "", episode = -1, heard = Date.now();
  const off = { profiles: new Set(), code: "", caller: "" };
  const time = (at, how) => clock(at, offsetAt(data.offsets, at), { day: summary?.isOtherDay, ...how });

  // --- what is on the page
  const [head, before, beside, counts, problem, filters, picked, why] = ["head", "before", "beside", "counts", "problem", "filters", "picked", "why"].map((name) => make("div", `tundra-${name}`));
  put(head, { role: "heading", "aria-level": 3 });
  const said = put(make("div", "tundra-said"), { "aria-live": "polite" });
  const select = (key) => {
    const made = put(make("select", ""), { "aria-label": key });
    made.addEventListener("change", () => {
      off[key] = made.value;
      filtered();
    });
    return made;
  };
  const selects = { code: select("code"), caller: select("caller") };
  const live = button("Live", "follow what happens now (l)", () => follow(!isFollowing));
  const tools = make("div", "tundra-tools",
    button("−", "zoom out (-)", () => zoom(2), "−: zoom out"), button("+", "zoom in (+)", () => zoom(0.5), "+: zoom in"),
    button("Worst", "jump to the worst stretch (e, E: next, previous)", () => jump(0)), button("All", "the whole window (0)", () => whole()), live);
  const canvas = put(make("canvas", ""), { "aria-hidden": true }), words = svgOf("svg", { "aria-hidden": true });
  const tip = make("div", "tundra-tip");
  const help = put(make("div", "tundra-said", "Arrows move, plus and minus zoom, e and E go to failing stretches, Enter selects what is shown, Escape clears, 0 shows all."), { id: `tundra-help-${view}` });
  const stage = put(make("div", "tundra-stage", canvas, words, tip), { tabindex: 0, role: "application", "aria-label": "picture of the window", "aria-describedby": help.id });
  const table = scrolled("the numbers of the picture");
  const asTable = make("details", "", make("summary", "", "As a table"), table);
  const root = put(make("div", "tundra-view tundra-dash", make("style", "", STYLE), head, before, beside, counts, problem, make("div", "tundra-bar", filters, tools), stage, help, picked, why, asTable, said),
    { role: "region", "aria-label": "Time line of calls", "data-lm-suppress-shortcuts": true }); // or `b` in the picture adds a cell
  const picture = new Picture(canvas, words);
  root.hidden = tip.hidden = true;
  asTable.addEventListener("toggle", () => asTable.open && tabulate());
  const say = (text) => set(said, text);
  const tell = (text) => problem.replaceChildren(...sentence(text));

  // --- moving about
  const show = (since, until, { follows = false, all = false, told = "" } = {}) => {
    const most = data.until - data.since, length = Math.min(Math.max(until - since, LEAST_SECONDS), most);
    since = Math.min(Math.max((since + until - length) / 2, data.since), data.until - length);
    now = { since, until: since + length };
    saying = told;
    isFollowing = follows;
    isWhole = all || length >= most;
    live.setAttribute("aria-pressed", follows);
    closer();
    draw();
  };
  const zoom = (factor, at = (now.since + now.until) / 2) => show(at - (at - now.since) * factor, at + (now.until - at) * factor);
  const pan = (share) => show(now.since + (now.until - now.since) * share, now.until + (now.until - now.since) * share);
  const whole = () => show(data.since, data.until, { follows: data.live, all: true });
  const follow = (wanted) => (wanted ? show(data.until - (now.until - now.since), data.until, { follows: true, all: isWhole }) : show(now.since, now.until));
  const jump = (which) => {
    const known = which ? [...data.episodes].sort((a, b) => a.since - b.since) : data.episodes;
    if (!known.length) return say("nothing failed in this window");
    episode = which ? (episode + which + known.length) % known.length : 0;
    const one = known[episode], around = Math.max((one.until - one.since) * 0.25, 2);
    return show(one.since - around, one.until + around, { told: `${one.words}. ${one.before}. ` });
  };
  // rows are groups: those of a closer view are asked for
  const source = () => (detail && now.since >= detail.since && now.until <= detail.until ? detail : data);
  const closer = () => {
    const { step } = source(), key = `${now.since}-${now.until}`;
    if (!step || stepFor(now.until - now.since, size.width - size.left - size.right) >= step || key === asked) return;
    asked = key;
    setTimeout(() => asked === key && model.send({ type: "zoomed", ...now }), 250);
  };
  const pick = (since, until) => {
    brush = since === null ? null : { since, until };
    picked.replaceChildren();
    why.replaceChildren();
    filtered();
  };
  const filtered = () => {
    const shown = off.profiles.size ? data.names.profiles.filter((name) => !off.profiles.has(name)) : [];
    model.send({ type: "picked", since: brush?.since ?? null, until: brush?.until ?? null, profiles: shown, code: off.code, caller: off.caller });
    draw();
  };

  // --- drawing
  const draw = () => {
    if (isWaiting || !data || !isSeen) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      if (root.isConnected) paint();
    });
  };
  const paint = () => {
    fit();
    const { names, ...rows } = source(), inner = size.width - size.left - size.right;
    const code = names.codes.indexOf(off.code), caller = names.callers.indexOf(off.caller);
    const keep = { profile: (one) => !off.profiles.has(names.profiles[one]), code: (one) => !off.code || one === code, caller: (one) => !off.caller || one === caller, byCall: Boolean(off.code || off.caller) };
    summary = summarise({ names, ...rows }, now.since, now.until, stepFor(now.until - now.since, inner, rows.step), keep);
    const dayOf = (at) => clock(at, offsetAt(data.offsets, at), { day: true }).slice(0, 5);
    summary.isOtherDay = now.until - now.since > 86400 || dayOf(now.since) !== dayOf(Date.now() / 1000);
    const lanes = lanesOf(data, summary, now, off, time);
    picture.begin({ ...data, ...rows }, summary, now, lanes, size, colours);
    stage.style.height = `${picture.height}px`;
    picture.paint(time);
    if (brush) {
      const [x, end] = picture.ends(brush);
      if (end > x) words.append(svgOf("rect", { x, y: 20, width: end - x, height: picture.height - 24, class: "brush" }));
    }
    if (hover !== null) words.append(svgOf("path", { d: `M${hover} 20V${picture.height - 6}`, class: "hover" }));

    const told = `${time(now.since)} – ${time(now.until)} ${data.zone} · ${callsOf(summary.all)}, ${percent(summary.unanswered, summary.all)} not answered`;
    const notes = [told, data.where, rows.step && `in groups of ${span(rows.step)}`, keep.byCall && "profiles and reasons are of calls, not of attempts"];
    set(counts, notes.filter(Boolean).join(" · "));
    clearTimeout(speech);
    if (!isFollowing) speech = setTimeout(() => (saying || document.activeElement === stage) && say(saying + told), 250);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
    if (asTable.open) tabulate();
  };
  const tabulate = () => {
    const s = summary, several = Math.max(Math.ceil(s.count / 24), 1), rows = [];
    for (let place = 0; place < s.count; place += several) {
      const part = (values) => [...values.slice(place, place + several)];
      const [all, failed, refused] = [s.calls, [s.calls[FAILED]], [s.calls[REFUSED]]].map((kinds) => counted(kinds.flatMap(part).reduce((a, b) => a + b, 0)));
      rows.push([time((s.first + place) * s.step), all, failed, refused, ...[s.p50, s.p95].map((values) => took(part(values).reduce((a, b) => (b === null ? a : Math.max(a, b)), null)))]);
    }
    const breaker = (name) => data.bands.filter((one) => one.name === name).map((one) => `${one.word} from ${time(one.since)} ${one.until === null ? "on" : `to ${time(one.until)}`}`).join(", ");
    table.replaceChildren(
      grid([`from, each ${span(several * s.step)}`, "calls", "failed", "refused", "p50", "p95"], rows),
      grid(["profile", s.of, "failed", "breaker"], s.profiles.map((row) => [row.name, counted(row.all), counted(row.bad), breaker(row.name)])),
      grid(["reason", s.of], s.reasons.map((row) => [row.name, counted(row.all)])),
      grid(["changed", "what", "by"], data.changes.map((one) => [time(one.at), one.words, one.author])),
    );
  };
  // What stands around the picture, also while that is out of sight.
  const offer = () => {
    const { story } = data;
    head.replaceChildren(make("span", story.bad ? "tundra-bad" : story.calls ? "tundra-good" : "tundra-dim", story.who), ` ${story.what}`);
    set(before, story.before);
    set(beside, story.beside);
    live.hidden = !data.live;
    const { profiles, codes, callers } = data.names, some = profiles.filter(Boolean), shown = some.length > 1 ? some.slice(0, 8) : []; // a call may have no profile
    if (filters.dataset.names !== shown.join("\n")) {
      filters.dataset.names = shown.join("\n");
      filters.replaceChildren(...shown.map((name) => {
        const press = () => made.setAttribute("aria-pressed", !off.profiles.has(name));
        const made = button(name, `show or hide ${name}`, () => {
          if (!off.profiles.delete(name)) off.profiles.add(name);
          press();
          filtered();
        });
        press();
        return made;
      }), selects.code, selects.caller);
    }
    for (const [key, names] of [["code", codes], ["caller", callers]]) {
      const known = [`any ${key}`, ...names.filter(Boolean)], made = selects[key];
      if (made.length !== known.length) made.replaceChildren(...known.map((name, index) => Object.assign(make("option", "", name), { value: index ? name : "" })));
      made.value = off[key];
      made.hidden = known.length < 3 && !off[key];
    }
  };

  // --- keys, pointer, wheel
  const KEYS = {
    ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25), ArrowUp: () => zoom(0.5), ArrowDown: () => zoom(2), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
    0: whole, Home: () => show(data.since, data.since + now.until - now.since), End: () => follow(data.live), l: () => follow(!isFollowing),
    e: () => jump(1), E: () => jump(-1), w: () => jump(0), Enter: () => pick(now.since, now.until), Escape: () => pick(null),
  };
  stage.addEventListener("keydown", (event) => {
    const act = !event.ctrlKey && !event.metaKey && !event.altKey && KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  for (const name of ["keydown", "keyup", "keypress"]) root.addEventListener(name, (event) => event.stopPropagation());
  const placeOf = (event) => Math.min(Math.max(event.clientX - stage.getBoundingClientRect().left, size.left), size.width - size.right);
  const atOf = (x) => now.since + ((x - size.left) / (size.width - size.left - size.right)) * (now.until - now.since);
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    drag = { x: placeOf(event), pan: event.shiftKey ? { ...now } : null };
    stage.setPointerCapture(event.pointerId);
    stage.focus({ preventScroll: true });
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    const s = summary, x = placeOf(event);
    if (!s) return;
    if (drag?.pan) {
      const moved = drag.pan.since - now.since + atOf(drag.x) - atOf(x);
      show(now.since + moved, now.until + moved);
      return;
    }
    if (drag && Math.abs(x - drag.x) > 3) brush = { since: atOf(Math.min(x, drag.x)), until: atOf(Math.max(x, drag.x)) };
    hover = x;
    const place = Math.min(Math.floor(atOf(x) / s.step) - s.first, s.count - 1);
    set(tip, `${time((s.first + place) * s.step, { ms: s.step < 1 })} · ${callsOf(s.calls.reduce((sum, kind) => sum + kind[place], 0))} · ${counted(s.calls[FAILED][place])} failed · p95 ${took(s.p95[place])}`);
    tip.hidden = false;
    tip.style.left = `${Math.max(Math.min(x + 10, size.width - 270), 0)}px`;
    draw();
  });
  stage.addEventListener("pointerleave", () => {
    hover = null;
    tip.hidden = true;
    draw();
  });
  stage.addEventListener("pointerup", (event) => {
    const from = drag, x = placeOf(event);
    drag = null;
    if (!from || from.pan) return;
    if (Math.abs(x - from.x) > 3) pick(atOf(Math.min(x, from.x)), atOf(Math.max(x, from.x)));
    else if (brush) pick(null);
  });
  stage.addEventListener("dblclick", (event) => zoom(0.25, atOf(placeOf(event))));
  stage.addEventListener("wheel", (event) => {
    if (!(event.ctrlKey || event.metaKey || event.shiftKey || document.activeElement === stage)) return; // the page scrolls
    event.preventDefault();
    const move = Math.abs(event.deltaY) > Math.abs(event.deltaX) ? event.deltaY : event.deltaX;
    if (event.shiftKey) pan(Math.sign(move) * 0.1);
    else zoom(move > 0 ? 1.25 : 0.8, atOf(placeOf(event)));
  }, { passive: false });

  // --- what the kernel sends
  const hide = make("style", "");
  const withRows = (message, buffers) => {
    const made = { ...message, calls: new Rows("calls"), attempts: new Rows("attempts") };
    for (const kind of ["calls", "attempts"]) made[kind].add(buffers, message);
    return made;
  };
  const HEARD = {
    data(message, buffers) {
      const isFirst = !data;
      [data, detail] = [withRows(message, buffers), null];
      hide.textContent = `.${model.get("still")} { display: none; }`; // only now: without a kernel it stays
      root.hidden = false;
      tell(message.problem);
      if (isFirst) measure();
      offer();
      if (isFirst) whole();
      else if (isWhole) show(data.since, data.until, { follows: isFollowing, all: true });
      else show(now.since, now.until, { follows: isFollowing });
    },
    detail(message, buffers) {
      detail = withRows(message, buffers);
      draw();
    },
    more({ type, ...message }, buffers) {
      if (!data) return;
      for (const kind of ["calls", "attempts"]) data[kind].add(buffers, message);
      Object.assign(data, message);
      tell("");
      offer();
      if (isFollowing) now = { since: isWhole ? data.since : data.until - (now.until - now.since), until: data.until };
      draw();
    },
    problem: (message) => tell(message.problem),
    rows({ since, until, rows, count, unanswered }) {
      if (since !== brush?.since || until !== brush.until) return;
      const told = `Selected ${time(since)} – ${time(until)} · ${callsOf(count)}, ${percent(unanswered, count)} not answered`;
      const cells = rows.map(({ id, cells: [first, ...others] }) => [button(first, `why the call ${id} went as it did`, () => model.send({ type: "why", id })), ...others]);
      const note = make("span", "tundra-dim", `${count > rows.length ? `the worst ${rows.length}; ` : ""}all of them in Python: .selection`);
      const bar = make("div", "tundra-bar", make("strong", "", told), note, button("Zoom", "show only what is selected", () => show(since, until)), button("Clear", "select nothing (Escape)", () => pick(null)));
      picked.replaceChildren(bar, scrolled("calls of the selection", grid(["why", "at", "outcome", "profile", "code", "latency", "message"], cells)));
      say(told);
    },
    why({ id, picture: src, words: text }) {
      const alt = `why the call ${id} went as it did`;
      why.replaceChildren(make("div", "tundra-dim", `%tundra why ${id}`), scrolled(alt, put(make("img", ""), { alt, src }), make("pre", "", text)));
      why.scrollIntoView?.({ block: "nearest" });
    },
  };
  const taken = (message, buffers) => {
    heard = Date.now();
    HEARD[message.type]?.(message, [...buffers]);
  };
  const listening = setInterval(() => {
    if (data?.live && Date.now() - heard > SILENT_MS) tell(`no word from the kernel since ${time(heard / 1000)}: this is what was known then. If it was restarted, run the cell again`);
  }, 5000);

  // --- size, theme, being seen
  // At each drawing, not when something changes: while a theme is loaded the page has odd sizes for a moment.
  const fit = () => {
    const width = Math.max(stage.clientWidth, 240), [left, right] = width < 420 ? [90, 90] : width < 700 ? [96, 92] : [150, 124];
    size = { width, left, right };
    words.setAttribute("width", width);
  };
  const measure = () => {
    const style = getComputedStyle(root);
    colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--tundra-${name}`).trim()]));
    fit();
    draw();
  };
  const sized = new ResizeObserver(measure), themed = new MutationObserver(() => setTimeout(measure, 50)); // its style comes a moment later
  const seen = new IntersectionObserver((entries) => {
    isSeen = entries.some((entry) => entry.isIntersecting);
    draw();
  });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  el.append(hide, root);
  for (const one of [sized, seen]) one.observe(root);
  for (const one of [document.body, document.documentElement]) themed.observe(one, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name"] });
  scheme.addEventListener("change", measure);
  model.on("msg:custom", taken);
  model.send({ type: "opened", view });
  return () => {
    clearInterval(listening);
    model.off("msg:custom", taken);
    for (const one of [sized, themed, seen]) one.disconnect();
    scheme.removeEventListener("change", measure);
    model.send({ type: "closed", view });
  };
}

export default { render };
export { render };
