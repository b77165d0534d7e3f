// A widget whose script would weigh too much in each saved notebook: the page asks the kernel for it, once per version.
// Each view asks its own kernel, and waits as long as that is busy with other cells. Without a kernel nothing answers,
// and the static picture beside the view stays what it is.
const ask = (model) => new Promise((resolve, reject) => {
  const heard = (message, [bytes]) => {
    if (message.type !== "module") return;
    model.off("msg:custom", heard);
    new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text()
      .then((text) => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })))).then(resolve, reject);
  };
  model.on("msg:custom", heard);
  model.send({ type: "module" });
});

export default {
  async render({ model, el }) {
    const key = `tundra-${model.get("module")}`;
    globalThis[key] ??= await ask(model);
    return globalThis[key].render({ model, el });
  },
};
