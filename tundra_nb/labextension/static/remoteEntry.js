// JupyterLab's and Notebook's way in: the container that their module federation asks for, by hand. What is committed is
// what runs. The file beside it is fetched under the same `?v=`: everything below `static` is cached for a year.
(() => {
  const here = document.currentScript.src;
  let shared = {};
  const names = {
    application: "@jupyterlab/application",
    apputils: "@jupyterlab/apputils",
    launcher: "@jupyterlab/launcher",
    notebook: "@jupyterlab/notebook",
    services: "@jupyterlab/services",
    statusbar: "@jupyterlab/statusbar",
    ui: "@jupyterlab/ui-components",
    widgets: "@lumino/widgets",
  };

  const numbers = (version) => version.split(/[.-]/).map((part) => parseInt(part, 10) || 0);
  const newestFirst = (a, b) => {
    const [left, right] = [numbers(a), numbers(b)];
    for (let i = 0; i < 3; i++) if ((left[i] ?? 0) !== (right[i] ?? 0)) return (right[i] ?? 0) - (left[i] ?? 0);
    return 0;
  };
  // One module of the application's own; null where this one has none. Tokens are compared by identity, so they must be its.
  const take = async (name) => {
    const versions = shared[name];
    if (!versions) return null;
    const all = Object.keys(versions).sort(newestFirst);
    return (await versions[all.find((version) => versions[version].loaded) ?? all[0]].get())();
  };

  (window._JUPYTERLAB ??= {})["tundra-nb"] = {
    init(scope) {
      shared = scope;
    },
    async get() {
      const own = import(new URL(`./tundra.js${new URL(here).search}`, here).href);
      const found = await Promise.all(Object.entries(names).map(async ([key, name]) => [key, await take(name)]));
      const plugins = (await own).plugins(Object.fromEntries(found));
      return () => ({ __esModule: true, default: plugins });
    },
  };
})();
