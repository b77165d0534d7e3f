// The gateway widget's view. The kernel sends `state` (messages.GatewayState) at each change. Text is only ever set as text.

const COLUMNS = ["who", "client", "form", "calls", "now", "failed", "last"];

function render({ model, el }) {
  const root = make("div", "tundra-gateway");
  const draw = () => {
    const state = model.get("state");
    const shown = [];
    if (state.problem) shown.push(make("div", "tundra-problem", ...sentence(state.problem)));
    shown.push(make("div", "", ...(state.url ? ["listens at ", make("code", "", state.url)] : ["does not listen"])));
    if (state.callers.length) {
      const head = make("tr", "", ...COLUMNS.map((name) => make("th", "", name)));
      const body = make("tbody");
      for (const caller of state.callers) {
        const cells = caller.map((told, place) => make("td", COLUMNS[place] === "failed" ? "tundra-failed" : "", told));
        body.append(make("tr", "", ...cells));
      }
      shown.push(make("table", "", make("thead", "", head), body));
    } else shown.push(make("div", "tundra-dim", "nobody has called since the daemon's start"));
    root.replaceChildren(...shown);
    root.classList.toggle("tundra-stale", Boolean(state.problem));
  };
  return mount({ model, el }, root, draw);
}

export default { render };
