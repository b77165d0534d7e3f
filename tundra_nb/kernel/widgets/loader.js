// A widget whose script would weigh too much in each saved notebook: the page asks the kernel for it, once per version.
// Without a kernel nothing answers, and the static picture beside it stays what it is.
const WAIT_MS = 20000;

const ask = (model, key) => new Promise((resolve, reject) => {
  const heard = (message, [bytes]) => {
    if (message.type !== "module") return;
    model.off("msg:custom", heard);
    new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text()
      .then((text) => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })))).then(resolve, reject);
  };
  model.on("msg:custom", heard);
  model.send({ type: "module" });
  setTimeout(() => {
    model.off("msg:custom", heard);
    reject(new Error("no kernel"));
  }, WAIT_MS);
}).catch(() => void delete globalThis[key]);

export default {
  async render({ model, el }) {
    const key = `tundra-${model.get("module")}`;
    const module = await (globalThis[key] ??= ask(model, key));
    return module?.render({ model, el });
  },
};
