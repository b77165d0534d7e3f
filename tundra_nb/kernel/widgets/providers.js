// The provider widget's view. The kernel sends `state` (messages.Providers) at each change; between two of them the
// countdowns go on here. Text is only ever set as text.

const TICK_MS = 200;

const number = (value) =>
  value === null ? "?" : value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

const seconds = (left) => (left < 10 ? `${left.toFixed(1)} s` : left < 120 ? `${left.toFixed(0)} s` : `${(left / 60).toFixed(0)} min`);

const TONE = {
  ready: "good", closed: "good", cooling: "warn", half_open: "warn", disabled: "dim", parked: "bad", breaker_open: "bad",
  open: "bad",
};

function render({ model, el }) {
  const root = make("div", "tundra-providers");
  root.dataset.lmSuppressShortcuts = "true"; // keys press buttons here, and edit no cells
  root.addEventListener("keydown", (event) => event.stopPropagation());
  const live = make("div", "");
  const said = make("div", "tundra-hidden");
  said.setAttribute("role", "status");
  let countdowns = [];
  let came = 0;

  const pill = (word, more, left) => {
    const made = make("span", `tundra-pill tundra-${TONE[word] ?? "dim"}`, word.replace("_", " "));
    made.dataset.state = word;
    if (left > 0) {
      const rest = make("span", "tundra-countdown");
      countdowns.push({ rest, left, more });
      made.append(rest);
    }
    return made;
  };

  const level = (bucket) => {
    const share = bucket.limit ? Math.min(Math.max((bucket.remaining ?? 0) / bucket.limit, 0), 1) : 0;
    const fill = make("div", share < 0.15 ? "tundra-fill tundra-low" : "tundra-fill");
    fill.style.width = `${share * 100}%`;
    const track = make("div", "tundra-track", fill);
    track.setAttribute("role", "meter");
    track.setAttribute("aria-valuemin", "0");
    track.setAttribute("aria-valuemax", String(bucket.limit ?? 0));
    track.setAttribute("aria-valuenow", String(bucket.remaining ?? 0));
    track.setAttribute("aria-label", bucket.resource);
    const limit = bucket.limit === null ? "" : ` of ${number(bucket.limit)}`;
    const told = make("span", "tundra-told", `${bucket.resource} ${number(bucket.remaining)}${limit}`);
    if (bucket.waiting) told.append(`, ${bucket.waiting} waiting`);
    const left = bucket.penalised_s || bucket.reset_s || 0;
    if (left > 0) {
      const rest = make("span", "tundra-countdown");
      countdowns.push({ rest, left, more: bucket.penalised_s ? "shut for" : "full in" });
      told.append(rest);
    }
    return make("div", "tundra-level", track, told);
  };

  const press = (action, profile, fault = "") => model.send({ type: "pressed", action, profile, fault });

  const button = (label, profile, action, more) => {
    const made = make("button", "", label);
    made.type = "button";
    made.title = more;
    made.dataset.key = `${action}-${profile.name}`;
    made.setAttribute("aria-label", `${label}: ${profile.name}`);
    made.disabled = profile.is_busy;
    made.addEventListener("click", () => press(action, profile.name));
    return made;
  };

  const buttons = (profile) => {
    const shown = [button("Test", profile, "test", "ask for its list of models, and how long that takes")];
    if (["parked", "cooling"].includes(profile.state)) shown.push(button("Recheck", profile, "recheck", "take it back in if it answers"));
    else if (profile.state !== "disabled") shown.push(button("Park", profile, "park", "take it out of use until it is rechecked"));
    if (profile.breaker !== "closed" || profile.failures) shown.push(button("Reset breaker", profile, "reset", "close its breaker now"));
    if (profile.is_drilled) shown.push(button("End drill", profile, "end", "reach it directly again"));
    const told = make("div", "tundra-reason", profile.is_busy ? "…" : profile.told);
    return cell("tundra-buttons", make("div", "", ...shown), told);
  };

  // the drill picker is built once: what a person is choosing must not be taken away by the next state
  const who = make("select", "");
  who.setAttribute("aria-label", "profile to break");
  const kind = make("select", "");
  kind.setAttribute("aria-label", "fault to inject");
  const inject = make("button", "tundra-inject", "Inject");
  inject.type = "button";
  inject.addEventListener("click", () => press("inject", who.value, kind.value));
  const does = make("span", "tundra-dim", "");
  const drill = make("fieldset", "tundra-drill", make("legend", "", "Drill: break it on purpose"), who, kind, inject, does);
  let summaries = {};
  const tell = () => { does.textContent = (summaries[kind.value] ?? "").replaceAll("`", ""); };
  kind.addEventListener("change", tell);
  const choose = (select, names) => {
    const before = select.value;
    if ([...select.options].map((one) => one.value).join() === names.join()) return;
    select.replaceChildren(...names.map((name) => make("option", "", name)));
    if (names.includes(before)) select.value = before;
  };

  const cell = (name, ...children) => make("td", name, ...children);
  const HEADS = ["profile", "state", "breaker", "our buckets", "the provider's own", "do"];

  const draw = () => {
    const state = model.get("state");
    countdowns = [];
    came = performance.now();
    const body = make("tbody");
    for (const profile of state.profiles) {
      const named = cell("tundra-name", make("b", "", profile.name), make("div", "tundra-dim", profile.model || profile.kind));
      const how = cell("", pill(profile.state, "for", profile.cooling_s ?? 0));
      if (profile.reason) how.append(make("div", "tundra-reason", profile.reason));
      if (profile.is_drilled) {
        how.append(make("div", "", make("span", "tundra-pill tundra-drilled", "DRILL"), " faults on purpose"));
      }
      const breaker = cell("", pill(profile.breaker, "probe in", profile.probe_s));
      breaker.classList.add("tundra-breaker");
      if (profile.failures) breaker.append(make("div", "tundra-dim", `${profile.failures} failure${profile.failures === 1 ? "" : "s"} in a row`));
      const row = make("tr", "", named, how, breaker);
      row.append(cell("", ...profile.ours.map(level)), cell("", ...profile.theirs.map(level)), buttons(profile));
      row.dataset.profile = profile.name;
      [...row.children].forEach((one, place) => { one.dataset.head = HEADS[place]; }); // where there is no room for a table
      body.append(row);
    }
    const head = make("tr", "");
    for (const name of HEADS) head.append(make("th", "", name));
    const shown = [];
    if (state.problem) shown.push(make("div", "tundra-problem", ...sentence(state.problem)));
    if (state.profiles.length) shown.push(make("table", "", make("thead", "", head), body));
    else if (!state.problem) shown.push(make("div", "tundra-dim", "no profile yet: %tundra status tells how to make one"));
    if (state.shared.length) {
      const tiers = state.shared.map((tier) => make("div", "tundra-tier", make("b", "", tier.name), ...tier.buckets.map(level)));
      shown.push(make("div", "tundra-shared", ...tiers));
    }
    const key = live.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    live.replaceChildren(...shown);
    if (key) live.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
    const news = state.profiles.filter((one) => one.told).map((one) => `${one.name}: ${one.told}`).join(". ");
    if (said.textContent !== news) said.textContent = news;
    choose(who, state.profiles.map((one) => one.name));
    choose(kind, state.kinds.map(([name]) => name));
    summaries = Object.fromEntries(state.kinds);
    tell();
    drill.hidden = !state.profiles.length || !state.kinds.length;
    root.classList.toggle("tundra-stale", Boolean(state.problem));
    tick();
  };

  const tick = () => {
    const passed = (performance.now() - came) / 1000;
    for (const { rest, left, more } of countdowns) {
      rest.textContent = left > passed ? `, ${more} ${seconds(left - passed)}` : "";
    }
  };

  root.append(live, drill, said);
  const unmount = mount({ model, el }, root, draw);
  const timer = setInterval(tick, TICK_MS);
  return () => {
    clearInterval(timer);
    unmount();
  };
}

export default { render };
