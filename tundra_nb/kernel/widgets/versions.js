// The versions widget's view. What is picked goes to the kernel as a whole (messages.VersionsAsked); the answer comes back as
// `state` (messages.VersionsState). Until it does, the page shows what was picked, not what the kernel last knew.

const MORE = 30;
const WAIT_MS = 1000; // of silence before the page tells that it waits
const KINDS = [["added", "+", "good"], ["removed", "-", "bad"], ["modified", "~", "warn"]];

const short = (ref) => (/^[0-9a-v]{32,}$/.test(ref) ? ref.slice(0, 10) : ref);

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function render({ model, el }) {
  const root = make("div", "tundra-versions");
  root.dataset.lmSuppressShortcuts = "true"; // arrow keys pick commits here, not cells
  root.addEventListener("keydown", (event) => event.stopPropagation());
  const ids = crypto.randomUUID?.() ?? String(Math.random());
  let count = 0;
  let waiting = null;
  let since = 0;

  const asked = () => waiting ?? model.get("state").asked;
  const ask = (more) => {
    since = performance.now();
    waiting = { ...asked(), ...more, id: `${ids}-${++count}` };
    model.send(waiting);
    draw();
  };

  const button = (label, act) => {
    const made = make("button", "", label);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  };
  const labelled = (label, input) => make("label", "", make("span", "tundra-dim", label), input);

  // --- the bar: A and B by name
  const names = make("datalist", "");
  names.id = `tundra-names-${ids}`;
  const ref = (side, label) => {
    const input = make("input", "tundra-ref");
    input.setAttribute("list", names.id);
    input.setAttribute("aria-label", label);
    input.spellcheck = false;
    input.autocomplete = "off";
    input.title = "a commit, branch, tag or time";
    input.addEventListener("change", () => {
      const told = input.value.trim();
      if (told) ask({ [side]: told });
      else draw();
    });
    return input;
  };
  const refs = { a: ref("a", "A, from"), b: ref("b", "B, to") };
  const swap = button("⇄", () => ask({ a: asked().b, b: asked().a }));
  swap.title = "swap A and B";
  swap.setAttribute("aria-label", "swap A and B");
  const again = button("Refresh", () => ask({}));
  again.title = "look for newer commits";
  const branch = make("select", "");
  branch.addEventListener("change", () => ask({ at: branch.value }));
  const branches = labelled("commits of", branch);
  const wait = make("span", "tundra-wait tundra-dim");
  const status = make("span", "tundra-hidden");
  status.setAttribute("role", "status");
  const bar = make("div", "tundra-bar", labelled("A (from)", refs.a), swap, labelled("B (to)", refs.b), branches, again, wait, status, names);

  // what is scrolled must be reached by keys
  const scrolled = (label, ...children) => {
    const made = make("div", "tundra-scroll", ...children);
    made.tabIndex = 0;
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", label);
    return made;
  };

  // --- the list of commits
  const radio = (side, value, label) => {
    const made = make("input", "");
    made.type = "radio";
    made.name = `tundra-${side}-${ids}`;
    made.value = value;
    made.dataset.key = `${side}-${value}`;
    made.setAttribute("aria-label", `${side.toUpperCase()}: ${label}`);
    made.addEventListener("change", () => ask({ [side]: value }));
    return made;
  };
  const pick = (...children) => make("td", "tundra-pick", ...children);
  const head = (...cells) => make("thead", "", make("tr", "", ...cells.map(([name, kind]) => {
    const made = make("th", kind, name);
    made.scope = "col";
    return made;
  })));
  const rows = make("tbody", "");
  const older = button("Older", () => ask({ limit: asked().limit + MORE }));
  older.dataset.key = "older";
  const commits = make("table", "", head(["A", "tundra-pick"], ["B", "tundra-pick"], ["commit", ""], ["message", ""]), rows);
  commits.setAttribute("aria-label", "commits, newest first");
  const list = make("div", "tundra-list", scrolled("commits", commits), older);

  const nowRow = () => {
    const told = make("td", "tundra-dim", "with what is not committed yet");
    return make("tr", "", pick(), pick(radio("b", "now", "now, with what is not committed yet")), make("td", "tundra-hash", "now"), told);
  };
  const commitRow = (commit) => {
    const label = `${short(commit.commit)} ${commit.message}`;
    const told = make("td", "tundra-message", ...commit.names.map((name) => make("span", "tundra-name", name)), commit.message);
    told.append(make("div", "tundra-dim", `${commit.at} · ${commit.author}`));
    return make("tr", "", pick(radio("a", commit.commit, label)), pick(radio("b", commit.commit, label)),
      make("td", "tundra-hash", short(commit.commit)), told);
  };

  // --- what differs
  const found = make("div", "tundra-found");

  const tables = (state) => {
    const body = make("tbody", "");
    for (const one of state.tables) {
      const open = button(one.table, () => ask({ table: one.table }));
      open.className = "tundra-table";
      open.dataset.key = `table-${one.table}`;
      open.setAttribute("aria-pressed", String(one.table === state.table));
      const numbers = KINDS.map(([kind, sign, tone]) =>
        make("td", `tundra-number tundra-${one[kind] ? tone : "dim"}`, one[kind] ? `${sign} ${one[kind].toLocaleString("en")}` : "0"));
      body.append(make("tr", "", make("td", "", open), ...numbers));
    }
    return make("table", "", head(["table", ""], ...KINDS.map(([kind]) => [kind, "tundra-number"])), body);
  };

  const changes = (state) => {
    const body = make("tbody", "");
    for (const [sign, name, change] of state.rows) {
      const [kind] = KINDS.find(([, known]) => known === sign[0]) ?? [""];
      const signed = make("td", `tundra-${sign[1]}`, sign[0]);
      signed.title = kind;
      signed.setAttribute("aria-label", kind);
      const row = make("tr", "", signed, make("td", "", name[0]), make("td", `tundra-change tundra-${change[1]}`, change[0]));
      row.dataset.kind = kind;
      body.append(row);
    }
    return scrolled("changes", make("table", "", head(["", ""], ["row", ""], ["change", ""]), body));
  };

  const drawFound = (state) => {
    if (state.problem) {
      const problem = make("div", "tundra-problem", ...sentence(state.problem));
      problem.setAttribute("role", "alert");
      return [problem];
    }
    if (!state.command) return [];
    const term = (name) => make("dt", "tundra-strong", name);
    const drawn = [make("dl", "tundra-stands", term("A"), make("dd", "", state.a.told), term("B"), make("dd", "", state.b.told))];
    if (state.tables.length) drawn.push(tables(state), make("div", "tundra-title", state.table), changes(state));
    else drawn.push(make("p", "tundra-dim", state.commits.length < 2 ? "nothing differs; there is one commit so far" : "nothing differs between A and B"));
    if (state.more) drawn.push(make("p", "tundra-dim", `${counted(state.more, "more row")} in the frame:`));
    const command = make("input", "tundra-command");
    command.readOnly = true;
    command.value = state.command;
    command.dataset.key = "command";
    command.addEventListener("focus", () => command.select());
    drawn.push(labelled("the same as a frame", command));
    return drawn;
  };

  // --- drawing: each part again only where it has changed, so that nothing is lost that a person is in the middle of
  const drawnOf = new Map();
  const redraw = (part, from, draw) => {
    const told = JSON.stringify(from);
    if (drawnOf.get(part) === told) return;
    drawnOf.set(part, told);
    const key = part.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    part.replaceChildren(...draw());
    if (key) part.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  };

  const announce = (state) =>
    state.problem || (state.tables.length ? `${counted(state.tables.length, "table")} differ${state.tables.length === 1 ? "s" : ""}` : "nothing differs");

  const draw = () => {
    const state = model.get("state");
    if (waiting?.id === state.asked.id && !state.is_busy) waiting = null;
    const now = asked();
    const is_busy = Boolean(waiting) || state.is_busy;
    root.classList.toggle("tundra-busy", is_busy);
    if (!is_busy) status.textContent = announce(state);
    redraw(names, [state.branches, state.tags], () => ["now", ...state.branches, ...state.tags].map((name) => {
      const option = make("option", "");
      option.value = name;
      return option;
    }));
    redraw(branch, state.branches, () => state.branches.map((name) => make("option", "", name)));
    branch.value = now.at || "main";
    branches.hidden = state.branches.length < 2;
    redraw(rows, state.commits, () => (state.commits.length ? [nowRow(), ...state.commits.map(commitRow)] : []));
    list.hidden = !state.commits.length;
    older.hidden = !state.has_older;
    redraw(found, [state.problem, state.a, state.b, state.tables, state.table, state.rows, state.command, state.commits.length < 2], () => drawFound(state));
    for (const side of ["a", "b"]) {
      // a name is the commit that it stands for, once the kernel has told
      const value = !waiting && state[side].commit ? state[side].commit : now[side];
      for (const one of rows.querySelectorAll(`input[name="tundra-${side}-${ids}"]`)) one.checked = one.value === value;
      if (document.activeElement !== refs[side] || !is_busy) refs[side].value = short(now[side]);
    }
    for (const row of rows.children) row.classList.toggle("tundra-picked", row.querySelector(":checked") !== null);
    swap.disabled = now.b === "now";
    tick();
  };

  const tick = () => {
    const passed = performance.now() - since;
    const is_busy = root.classList.contains("tundra-busy");
    wait.textContent = is_busy && passed > WAIT_MS ? `comparing… ${Math.floor(passed / 1000)} s` : "";
    if (is_busy && passed > WAIT_MS) status.textContent = "comparing…";
  };

  root.append(bar, make("div", "tundra-sides", list, found));
  since = performance.now();
  const timer = setInterval(tick, 250);
  const unmount = mount({ model, el }, root, draw);
  return () => {
    clearInterval(timer);
    unmount();
  };
}

export default { render };
