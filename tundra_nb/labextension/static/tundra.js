// Tundra in JupyterLab and Notebook 7: a panel, an item of the status bar, a card of the launcher, and commands.
// Plain JavaScript on purpose: nothing is built, so there is no build to prove. Text is only ever set as text.
//
// It looks and never wakes: `wake=0` leaves a daemon alone that is not there. The live feed is held only while the page
// is seen (each holds one of the browser's six connections), and nothing is polled, for that would keep a hub awake.

const KINDS = "breaker_event,session_event,error_event,incident,profile,setting";
const SETTLE_MS = 300; // events that come so soon after each other are one
const LEAST_MS = 2000; // between two looks: an outage has many events
const BACK_OFF_MS = [500, 1000, 2000, 5000, 10000, 30000];
const AFTER_END_MS = [1000, 2000, 5000, 10000, 20000, 30000]; // looks, and no more: each keeps a hub awake
const MOST = { errors: 5, terminals: 8, incidents: 5, callers: 6 };
const ICON = '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24"><path class="jp-icon3" fill="#616161" d="M12 3 2 21h20L12 3zm0 5.2L18.1 19H5.9L12 8.2z"/></svg>';

// --- what follows from data alone

// The cell that shows more of something: made of ids, codes and known words only, whatever the daemon sent.
export const cellFor = (kind, value = "") => {
  const text = String(value);
  if (kind === "why" && /^\d{1,20}$/.test(text)) return `%tundra why ${text}`;
  if (kind === "explain" && /^[A-Za-z]+(::[A-Za-z]+)?$/.test(text)) return `%tundra explain ${text}`;
  if (kind === "incident" && /^\d{1,20}$/.test(text)) return `%tundra incident open ${text}`;
  if (kind === "show" && /^[0-9a-z]{1,32}$/.test(text)) return `%tundra pty show ${text}`;
  return ["dash", "status", "last", "doctor", "gateway"].includes(kind) ? `%tundra ${kind}` : "";
};

// Health in a headline: what is worst, in words, with a tone.
export const headline = (status) => {
  const names = (rows) => rows.map((row) => row.profile).join(", ");
  const problem = (status.problems ?? [])[0] ?? status.store?.error;
  if (problem) return { tone: "bad", words: `degraded: ${problem.message}` };
  const { profiles = [], breakers = [] } = status;
  if (!profiles.length) return { tone: "dim", words: "no profile yet" };
  const open = breakers.filter((one) => one.state === "open");
  const parked = profiles.filter((one) => one.state === "parked");
  if (open.length) return { tone: "bad", words: `${names(open)} open` };
  if (parked.length) return { tone: "warn", words: `${names(parked)} parked` };
  const waits = profiles.filter((one) => one.state !== "ready");
  if (waits.length) return { tone: "warn", words: `${names(waits)} ${waits[0].state}` };
  const half = breakers.filter((one) => one.state === "half_open");
  if (half.length) return { tone: "warn", words: `${names(half)} half open` };
  return { tone: "good", words: profiles.length === 1 ? "well: 1 profile ready" : `well: ${profiles.length} profiles ready` };
};

// The short form for the status bar.
export const short = (state, status) => {
  if (state !== "ready") return `tundra: ${{ asleep: "not running", held: "stopped", died: "crashed", refused: "refused" }[state] ?? state}`;
  const open = (status.breakers ?? []).filter((one) => one.state === "open").length;
  const parked = (status.profiles ?? []).filter((one) => one.state === "parked").length;
  const told = headline(status);
  if (told.words.startsWith("degraded")) return "tundra: degraded";
  const parts = [open && `${open} open`, parked && `${parked} parked`].filter(Boolean);
  return `tundra: ${parts.join(", ") || (told.tone === "good" ? "well" : told.words)}`;
};

// What an answer that is none says of the daemon: `absent` is the extension of the server, not the daemon.
export const stateOf = (status, body) => {
  if (status === 404 && !body?.code) return "absent";
  if (status === 401 || status === 403) return "refused";
  if (status === 503 && body?.reason === "held") return "held";
  if (status === 503 && body?.reason === "died") return "died";
  return status === 503 ? "asleep" : "broken";
};

// A breaker in words; `passed`: seconds since it was told.
export const breakerWords = (breaker, passed = 0) => {
  const state = (breaker?.state ?? "closed").replace("_", " ");
  const left = Math.ceil((breaker?.open_for_s ?? 0) - passed);
  return state === "open" && left > 0 ? `open, probe in ${left} s` : state;
};

// A text in which times of the daemon's form are local ones, with the day where it is not today.
export const local = (text, now = new Date()) => text.replace(/\b\d{4}-\d\d-\d\dT[\d:]{8}(\.\d+)?Z/g, (told) => {
  const at = new Date(told);
  return at.toDateString() === now.toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
});

// A text's parts: each second one stood between backticks.
export const parts = (text) => text.split(/`([^`\n]+)`/);

// An error in words that name its profile once: many messages begin with it.
export const named = ({ profile, message }) => (!profile || message.startsWith(`${profile}: `) ? message : `${profile}: ${message}`);

// The narrowest bucket of a profile, as a share.
export const narrowest = (limits, profile) => {
  const mine = (limits ?? []).filter((row) => row.owner === "tundra" && row.tier === "profile" && row.limit_key === profile && row.limit > 0);
  const shares = mine.map((row) => ({ share: Math.min(Math.max(row.remaining / row.limit, 0), 1), words: `${Math.floor(row.remaining)} of ${row.limit} ${row.resource}` }));
  return shares.sort((a, b) => a.share - b.share)[0] ?? null;
};

// Errors that differ in no more than their call are one, the newest, with how many there are.
export const grouped = (errors) => {
  const found = new Map();
  for (const row of errors ?? []) {
    const key = JSON.stringify([row.code, row.profile]);
    const seen = found.get(key);
    if (seen) seen.count += 1;
    else found.set(key, { ...row, count: 1 });
  }
  return [...found.values()];
};

// Kinds of the events in a piece of the feed, and what is left of it.
export const kindsIn = (text) => {
  const lines = text.split("\n");
  const rest = lines.pop();
  return { kinds: lines.filter((line) => line.startsWith("event: ")).map((line) => line.slice(7).trim()), rest };
};

const ago = (at) => {
  const seconds = (Date.now() - Date.parse(at)) / 1000;
  if (!(seconds >= 0)) return "";
  return seconds < 90 ? `${Math.round(seconds)} s ago` : seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : seconds < 129600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} d ago`;
};

const STYLE = `
.tundra-panel { overflow: auto; padding: 8px 12px; color: var(--jp-ui-font-color1); background: var(--jp-layout-color1);
  font-size: var(--jp-ui-font-size1); min-width: 200px; }
.tundra-panel h2, .tundra-panel h3 { margin: 14px 0 4px; font-size: var(--jp-ui-font-size1); font-weight: 600; color: var(--jp-ui-font-color1); }
.tundra-panel h2 { margin-top: 4px; font-size: var(--jp-ui-font-size2); }
.tundra-panel [hidden] { display: none !important; }
.tundra-panel ul { list-style: none; margin: 0; padding: 0; }
.tundra-panel li { padding: 5px 0; border-top: 1px solid var(--jp-border-color2); }
.tundra-panel .row { display: flex; gap: 6px; align-items: center; flex-wrap: wrap; }
.tundra-panel .grow { flex: 1 1 80px; max-width: 100%; overflow-wrap: break-word; }
.tundra-panel .dim { color: var(--jp-ui-font-color1); opacity: 0.75; font-size: var(--jp-ui-font-size0); }
.tundra-panel code { font-size: inherit; }
.tundra-panel .pill { border: 1px solid currentcolor; border-radius: 9px; padding: 0 8px; font-size: var(--jp-ui-font-size0); }
.tundra-panel .dot { display: inline-block; width: 9px; height: 9px; border-radius: 50%; background: currentcolor; margin-right: 6px; }
.tundra-panel .good { color: #1f7a43; } .tundra-panel .warn { color: #8f5d0e; } .tundra-panel .bad { color: #c22c2c; }
[data-jp-theme-light="false"] .tundra-panel .good { color: #3fb566; } [data-jp-theme-light="false"] .tundra-panel .warn { color: #d9a13a; }
[data-jp-theme-light="false"] .tundra-panel .bad { color: #f4776f; }
.tundra-panel button { font: inherit; font-size: var(--jp-ui-font-size0); padding: 2px 7px; cursor: pointer; border-radius: 3px;
  color: var(--jp-ui-font-color1); background: var(--jp-layout-color2); border: 1px solid var(--jp-border-color1); }
.tundra-panel button:disabled { opacity: 0.5; cursor: default; }
.tundra-panel button.link { padding: 0; border: none; background: none; text-align: left; text-decoration: underline; font-size: inherit; overflow-wrap: break-word; max-width: 100%; }
.tundra-panel:focus { outline: none; }
.tundra-panel .row { margin: 4px 0; } .tundra-panel li.row { margin: 0; }
.tundra-panel :focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }
.tundra-panel .level { height: 5px; border-radius: 3px; background: var(--jp-layout-color3); margin-top: 4px; }
.tundra-panel .level div { height: 100%; border-radius: 3px; background: #7188a0; }
.tundra-item { background: none; border: none; padding: 0 4px; font: inherit; height: 22px; line-height: 22px; display: block; color: inherit; cursor: pointer; }
.tundra-item:focus-visible { outline: 2px solid var(--jp-brand-color1); }
`;

const make = (tag, kind, ...children) => {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
};
const marked = (text) => parts(text).map((part, index) => (index % 2 ? make("code", "", part) : part));
const set = (where, text) => where.textContent !== text && (where.textContent = text);
const press = (label, act, { kind = "", title = "", name = "" } = {}) => {
  const made = make("button", kind, label);
  made.type = "button";
  if (title) made.title = title;
  if (name) made.setAttribute("aria-label", name);
  made.addEventListener("click", act);
  return made;
};

// Asks the bridge for what the panel shows, and follows the feed while the page is seen.
class Watch {
  constructor(services, onChange) {
    this.services = services;
    this.onChange = onChange;
    this.state = "looking";
    this.problem = null;
    this.status = {};
    this.told = { terminals: [], incidents: [], callers: [] };
    this.at = Date.now();
    this.failures = 0;
    this.awaited = 0; // looks that are left after a crash, or a stop that may be the first half of a restart
    this.looking = null;
    this.abort = null;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.follow());
  }

  async ask(path, init = {}) {
    const { settings, ServerConnection } = this.services;
    // `no-cache` of our own: with `no-store`, JupyterLab appends a number to the address
    const answer = await ServerConnection.makeRequest(`${settings.baseUrl}tundra/api/${path}`, { cache: "no-cache", ...init }, settings);
    const body = init.signal ? null : await answer.json().catch(() => null);
    return { answer, status: answer.status, body };
  }

  // Look once. `wakes`: a person wants the daemon started.
  look(wakes = false) {
    this.looking ??= this.read(wakes).finally(() => (this.looking = null));
    return this.looking;
  }

  async read(wakes) {
    const only = wakes ? "" : "wake=0";
    let found;
    try {
      found = await this.ask(`status?${only}`);
    } catch (error) {
      this.become("broken", { message: `no answer from the server: ${error.message}`, hint: "" });
      return;
    }
    this.at = Date.now();
    if (found.status !== 200) {
      this.become(stateOf(found.status, found.body), found.body);
      // after a crash the server starts the daemon again, which takes a while: until then it is only not there yet
      if (this.state === "died") this.awaited = AFTER_END_MS.length;
      if (["died", "asleep", "held"].includes(this.state) && this.awaited) this.soon(1000 * (found.body.retry_after ?? 0) + AFTER_END_MS[AFTER_END_MS.length - this.awaited--]);
      return;
    }
    this.awaited = 0;
    this.status = found.body;
    const rows = async (path) => (await this.ask(path).catch(() => ({}))).body ?? {};
    const [ptys, incidents, gateway] = await Promise.all([rows("ptys?wake=0"), rows("history/incidents?since=all&limit=20&newest=true&wake=0"), rows("gateway?wake=0")]);
    this.told = { terminals: ptys.rows ?? [], incidents: incidents.rows ?? [], callers: gateway.callers ?? [] };
    this.become("ready", null);
    this.follow();
  }

  become(state, problem) {
    this.state = state;
    this.problem = problem;
    if (state !== "ready") this.told = { terminals: [], incidents: [], callers: [] };
    this.onChange();
  }

  soon(least = SETTLE_MS) {
    if (document.visibilityState !== "visible") return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), Math.max(least, LEAST_MS - (Date.now() - this.at)));
  }

  // Hold the feed while the page is seen and a daemon is there; let it go otherwise.
  follow() {
    if (document.visibilityState !== "visible") {
      this.abort?.abort();
      clearTimeout(this.timer);
      return;
    }
    if (this.state === "ready" && !this.abort) this.hold();
    else if (this.state !== "ready" && this.state !== "absent" && this.state !== "refused") this.look();
  }

  async hold() {
    const control = (this.abort = new AbortController());
    let wasOpen = false;
    try {
      const { answer } = await this.ask(`events?attach=lab&kinds=${KINDS}&wake=0`, { signal: control.signal });
      if (answer.status === 200) {
        wasOpen = true;
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let text = "";
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          const { kinds, rest } = kindsIn(text + value);
          text = rest;
          this.failures = 0;
          if (kinds.some((kind) => kind !== "hello")) this.soon();
        }
      }
    } catch {
      // let go on purpose, or broken off: the look below tells which
    }
    this.abort = null;
    if (document.visibilityState !== "visible") return;
    const pause = BACK_OFF_MS[Math.min(this.failures++, BACK_OFF_MS.length - 1)];
    clearTimeout(this.timer);
    // a few looks: a daemon that stays stopped is then asked again only by a click or when the page is seen again
    if (wasOpen) this.awaited = AFTER_END_MS.length;
    this.timer = setTimeout(() => this.look(), wasOpen ? SETTLE_MS : pause);
  }
}

// The panel's content. `act`: what its buttons do.
class Panel {
  constructor(watch, act) {
    Object.assign(this, { watch, act });
    this.busy = new Set();
    this.said = new Map();
    this.node = make("div", "tundra-panel");
    this.node.tabIndex = -1;
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", "Tundra");
    this.dot = make("span", "dot");
    this.words = make("span", "");
    this.head = make("h2", "", this.dot, this.words);
    this.live = make("div", "dim");
    this.live.setAttribute("role", "status");
    this.next = make("div", "dim");
    this.buttons = make("div", "row");
    this.parts = Object.fromEntries(["Profiles", "Last errors", "Terminals", "Incidents", "Gateway callers"].map((title) => {
      const list = make("ul", "");
      list.setAttribute("aria-label", title);
      return [title, { list, part: make("section", "", make("h3", "", title), list) }];
    }));
    this.node.append(make("style", "", STYLE), make("div", "dim", "Tundra"), this.head, this.live, this.next, this.buttons, ...Object.values(this.parts).map(({ part }) => part));
    setInterval(() => this.tick(), 1000);
  }

  tick() {
    if (this.watch.state !== "ready" || !this.node.isConnected || document.visibilityState !== "visible") return;
    for (const pill of this.node.querySelectorAll("[data-breaker]")) {
      const breaker = (this.watch.status.breakers ?? []).find((one) => one.profile === pill.dataset.breaker);
      if (breaker?.state === "open") set(pill, breakerWords(breaker, (Date.now() - this.watch.at) / 1000));
    }
  }

  draw() {
    const { state, problem, status, told } = this.watch;
    const isReady = state === "ready";
    const shown = isReady ? headline(status) : STATES[state] ?? { tone: "bad", words: problem?.message ?? state };
    this.head.className = shown.tone;
    set(this.words, shown.words);
    set(this.live, isReady ? "" : shown.more ?? problem?.message ?? "");
    const next = isReady ? local((status.next_steps ?? [])[0] ?? "").split("\n")[0] : problem?.hint && state !== "absent" ? problem.hint : "";
    this.next.replaceChildren(...marked(next));
    this.buttons.replaceChildren(
      ...(state === "asleep" ? [press("Start", () => this.watch.look(true), { title: "start the daemon" })] : []),
      ...(isReady || state === "absent" ? [] : [press("Look again", () => this.watch.look())]),
      press("Dashboard", () => this.act.insert(cellFor("dash")), { title: "insert a cell: %tundra dash" }),
      press("Status", () => this.act.insert(cellFor("status")), { title: "insert a cell: %tundra status" }),
    );
    for (const button of this.buttons.children) if (state === "absent") button.disabled = true;
    const fill = (title, rows) => {
      const { list, part } = this.parts[title];
      part.hidden = !isReady || !rows.length;
      const key = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      list.replaceChildren(...rows);
      if (key) list.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
    };
    fill("Profiles", (status.profiles ?? []).map((row) => this.profile(row)));
    fill("Last errors", grouped(status.last_errors).slice(0, MOST.errors).map((row) => this.error(row)));
    const running = told.terminals.filter((row) => row.state === "running");
    fill("Terminals", running.slice(0, MOST.terminals).map((row) => make("li", "row",
      press(row.command || row.pty_id, () => this.act.terminal(row.pty_id), { kind: "link grow", name: `open terminal ${row.pty_id}: ${row.command}` }), make("span", "dim", row.pty_id))));
    const open = told.incidents.filter((row) => row.state === "open");
    fill("Incidents", open.slice(0, MOST.incidents).map((row) => make("li", "row",
      press(row.title, () => this.act.insert(cellFor("incident", row.incident_id)), { kind: "link grow", title: "insert a cell that opens it" }), make("span", "dim", ago(row.at)))));
    fill("Gateway callers", told.callers.slice(0, MOST.callers).map((row) => make("li", "row",
      make("span", "grow", `${row.name}${row.client ? ` · ${row.client}` : ""}`), make("span", row.failed ? "bad dim" : "dim", `${row.calls} call${row.calls === 1 ? "" : "s"}${row.failed ? `, ${row.failed} failed` : ""}`))));
  }

  profile(row) {
    const { status, at } = this.watch;
    const name = row.profile, breaker = (status.breakers ?? []).find((one) => one.profile === name);
    const isParked = row.state === "parked", isOpen = breaker?.state === "open";
    const words = isParked ? "parked" : isOpen || breaker?.state === "half_open" ? breakerWords(breaker, (Date.now() - at) / 1000) : row.state;
    const pill = make("span", `pill ${isOpen ? "bad" : words === "ready" ? "good" : "warn"}`, words);
    if (!isParked) pill.dataset.breaker = name;
    const act = (label, path, told) => {
      const made = press(label, () => this.press(name, path, told), { name: `${label}: ${name}` });
      made.dataset.key = `${label} ${name}`;
      made.disabled = this.busy.has(name);
      return made;
    };
    const level = narrowest(status.limits, name), bucket = make("div", "");
    if (level) {
      bucket.append(make("div", "dim", `${level.words} left`), make("div", "level", make("div", "")));
      bucket.lastChild.firstChild.style.width = `${Math.round(level.share * 100)}%`;
    }
    const buttons = [act("Test", `providers/${encodeURIComponent(name)}/test`, "answered"), act("Recheck", `providers/${encodeURIComponent(name)}/recheck`, "can be used")];
    if (isOpen || breaker?.state === "half_open") buttons.push(act("Reset", `breakers/${encodeURIComponent(name)}/reset`, "breaker closed"));
    if (!isParked) buttons.push(act("Park", `providers/${encodeURIComponent(name)}/park`, "parked until it is rechecked"));
    const notes = [row.failure && !isParked ? row.failure.hint || row.failure.message : row.reason, this.said.get(name)].filter(Boolean);
    return make("li", "", make("div", "row", make("strong", "grow", name), pill), ...notes.map((note) => make("div", "dim", ...marked(local(note)))), bucket, make("div", "row", ...buttons));
  }

  async press(name, path, told) {
    this.busy.add(name);
    this.draw();
    try {
      const { status, body } = await this.watch.ask(path, { method: "POST", body: "{}", headers: { "Content-Type": "application/json" } });
      const failed = status >= 400 || body?.ok === false;
      this.said.set(name, failed ? `${body?.message ?? `the server answered ${status}`}. ${body?.hint ?? ""}`.trim() : told);
    } catch (error) {
      this.said.set(name, `no answer from the server: ${error.message}`);
    }
    this.busy.delete(name);
    await this.watch.look();
    set(this.live, `${name}: ${this.said.get(name)}`);
  }

  error(row) {
    const id = String(row.operation_id ?? ""), why = cellFor("why", id), explain = cellFor("explain", row.code);
    const label = make("div", "row", explain ? press(row.code, () => this.act.insert(explain), { kind: "link grow", title: `insert a cell: ${explain}` }) : make("span", "grow", row.code), make("span", "dim", `${row.count > 1 ? `× ${row.count}, ` : ""}${ago(row.at)}`));
    const made = make("li", "", label, make("div", "dim", ...marked(local(named(row)).slice(0, 200))));
    if (why) made.append(press(`why …${id.slice(-5)}`, () => this.act.insert(why), { title: `insert a cell: ${why}` }));
    return made;
  }
}

const STATES = {
  looking: { tone: "dim", words: "looking" },
  absent: { tone: "dim", words: "not on this server", more: "The server extension is off. In a terminal: jupyter server extension enable tundra_nb, then start Jupyter again." },
  refused: { tone: "warn", words: "not allowed", more: "This server does not let you look at tundra." },
  asleep: { tone: "dim", words: "not running" },
  held: { tone: "warn", words: "stopped by hand" },
  died: { tone: "bad", words: "crashed" },
};

export function plugins({ apputils, application, launcher, notebook, services, statusbar, ui, widgets }) {
  const tokens = [application?.ILayoutRestorer, apputils?.ICommandPalette, notebook?.INotebookTracker, statusbar?.IStatusBar, launcher?.ILauncher];
  const asked = tokens.filter(Boolean);

  const activate = (app, ...found) => {
    const given = (token) => (token ? found[asked.indexOf(token)] ?? null : null);
    const [restorer, palette, tracker, bar, cards] = tokens.map(given);
    const { commands, shell } = app;
    const icon = ui?.LabIcon ? new ui.LabIcon({ name: "tundra-nb:icon", svgstr: ICON }) : undefined;

    const needsLoading = (panel) => {
      const cells = [...(panel.content.model?.cells ?? [])].map((cell) => cell.sharedModel.getSource());
      return panel.sessionContext?.session?.kernel?.name !== "tundra" && !cells.some((source) => /%(re)?load_ext tundra_nb|extensions.*tundra_nb/.test(source));
    };
    // Put a cell below the active one of the current notebook; it is not run.
    const insert = async (source) => {
      const panel = tracker?.currentWidget;
      if (!source || !panel) return;
      shell.activateById(panel.id); // else the focus goes nowhere
      const text = needsLoading(panel) ? `%load_ext tundra_nb\n${source}` : source;
      await commands.execute("notebook:insert-cell-below");
      const cell = panel.content.activeCell;
      cell.model.sharedModel.setSource(text);
      await cell.ready;
      panel.content.activate();
      panel.content.mode = "edit";
    };
    const terminal = (id) => {
      if (!/^[0-9a-z]{1,32}$/.test(id)) return;
      if (commands.hasCommand("terminal:open")) commands.execute("terminal:open", { name: `tundra-${id}` });
      else window.open(`${app.serviceManager.serverSettings.baseUrl}terminals/tundra-${id}`, "_blank", "noopener");
    };

    const item = make("button", "tundra-item");
    item.type = "button";
    item.title = "Show Tundra";
    item.addEventListener("click", () => commands.execute("tundra:show"));
    let shown = null;
    const watch = new Watch({ settings: app.serviceManager.serverSettings, ServerConnection: services.ServerConnection }, () => {
      view.draw();
      set(item, short(watch.state, watch.status));
      if (shown) shown.update?.();
    });
    const view = new Panel(watch, { insert, terminal });
    const panel = new widgets.Widget({ node: view.node });
    panel.id = "tundra-nb-panel";
    panel.title.caption = "Tundra";
    if (icon) panel.title.icon = icon;
    else panel.title.label = "Tundra";
    view.draw();
    shell.add(panel, "left", { rank: 600 });
    restorer?.add(panel, panel.id);

    const show = () => {
      shell.activateById(panel.id);
      if (!panel.isVisible) shell.expandLeft?.(panel.id); // Notebook's own
      view.node.focus({ preventScroll: true });
    };
    const isNotebook = () => Boolean(tracker?.currentWidget);
    const command = (id, label, execute, isEnabled = () => true) => {
      commands.addCommand(id, { label, caption: label, icon, execute, isEnabled });
      palette?.addItem({ command: id, category: "Tundra" });
    };
    command("tundra:show", "Tundra Panel", show);
    command("tundra:dash", "Insert Tundra Dashboard", () => insert(cellFor("dash")), isNotebook);
    command("tundra:status", "Insert Tundra Status", () => insert(cellFor("status")), isNotebook);
    command("tundra:last", "Insert the Last Tundra Error", () => insert(cellFor("last")), isNotebook);
    if (commands.hasCommand("notebook:create-new") || cards) {
      command("tundra:new", "Tundra Dashboard", async () => {
        const specs = app.serviceManager.kernelspecs?.specs;
        const kernelName = specs?.kernelspecs?.tundra ? "tundra" : specs?.default;
        const made = await commands.execute("notebook:create-new", { kernelName });
        if (!made) return;
        await made.context.ready;
        await made.revealed;
        const cell = made.content.widgets[0] ?? made.content.activeCell;
        cell.model.sharedModel.setSource(kernelName === "tundra" ? "%tundra dash" : "%load_ext tundra_nb\n%tundra dash");
      });
      cards?.add({ command: "tundra:new", category: "Other", rank: 50 });
    }
    if (bar) {
      const node = new widgets.Widget({ node: make("div", "", item) });
      bar.registerStatusItem("tundra-nb:status", { item: node, align: "left", rank: 600, isActive: () => watch.state !== "absent" && watch.state !== "looking", activeStateChanged: signal((emit) => (shown = { update: emit })) });
    }
    // a cell may have started the daemon: look again where none was there
    notebook?.NotebookActions?.executed?.connect(() => ["asleep", "held", "died"].includes(watch.state) && watch.soon());
    app.restored.then(() => watch.look());
  };

  return [{ id: "tundra-nb:plugin", description: "Tundra's panel, status and commands.", autoStart: true, requires: [], optional: asked, activate }];
}

// What the status bar listens to.
const signal = (give) => {
  const slots = new Set();
  give(() => {
    for (const slot of slots) slot();
  });
  return { connect: (slot, that) => Boolean(slots.add(slot.bind(that))), disconnect: () => false };
};
