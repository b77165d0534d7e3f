// Put before each widget's own script: a widget's script is one file, so there is nothing that they could import.
// Text is only ever set as text.

const make = (tag, name, ...children) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
};

// A sentence; the commands that it has in backticks are code.
const sentence = (text) => text.split("`").map((part, place) => (place % 2 ? make("code", "", part) : part));

// Puts a view on the page and draws it at each change of `state`; gives what takes it off again.
const mount = ({ model, el }, root, draw) => {
  const view = crypto.randomUUID?.() ?? String(Math.random());
  // while this view lives it takes the place of the static picture that stands in the same output
  const hide = make("style", "");
  hide.textContent = `.${model.get("still")} { display: none; }`;
  root.classList.add("tundra-view");
  el.append(hide, root);
  model.on("change:state", draw);
  model.send({ type: "opened", view });
  draw();
  return () => {
    model.off("change:state", draw);
    model.send({ type: "closed", view });
  };
};
