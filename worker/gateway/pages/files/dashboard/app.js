// The dashboard's frame: navigation, the feed, and one view at a time.
//
// A view is `{title, mount(context, parameters) -> {element, update(changed), close()}}`. Routes are in the address'
// hash: `#/tasks/ID`, `#/usage?period=7d&by=model`.

import { onKeyWanted } from "../kit/api.js";
import { keyButton, themeButton } from "../kit/corner.js";
import { askForKey } from "../kit/dialog.js";
import { h, patch } from "../kit/dom.js";
import { count } from "../kit/format.js";
import { failed } from "../kit/notice.js";
import { problemBanner } from "./banners.js";
import { Fleet } from "./fleet.js";
import { approvals } from "./views/approvals.js";
import { budgets } from "./views/budgets.js";
import { dead } from "./views/dead.js";
import { overview } from "./views/overview.js";
import { providers } from "./views/providers.js";
import { queue } from "./views/queue.js";
import { run } from "./views/run.js";
import { runs } from "./views/runs.js";
import { task } from "./views/task.js";
import { tasks } from "./views/tasks.js";
import { team } from "./views/team.js";
import { teams } from "./views/teams.js";
import { usage } from "./views/usage.js";
import { workers } from "./views/workers.js";

const VIEWS = { overview, queue, tasks, runs, teams, approvals, workers, dead, usage, budgets, providers };
const PAGES = { tasks: task, runs: run, teams: team };
const STATES = {
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  failed: "not connected",
  ended: "not connected",
};

const byId = (id) => document.getElementById(id);
const main = byId("main");
const banner = h("div");
const slot = h("div");
const fleet = new Fleet();
let shown = { path: null, view: null };

/** What the address asks for: the view, the rest of its path, its parameters. */
function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name = "", ...rest] = path.split("/");
  return { name: Object.hasOwn(VIEWS, name) ? name : "overview", id: decoded(rest.join("/")), query: new URLSearchParams(query) };
}

/** Addresses are typed by people too: what is no encoding stands for itself. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  const { name, id, query } = route();
  const page = id && Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  const view = page ?? VIEWS[name];
  const path = `${name}/${page ? id : ""}`;
  drawNavigation(name);
  const title = view.titleOf?.(id) ?? view.title;
  byId("title").textContent = title;
  document.title = `${title} · Shoal`;
  byId("nav").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  if (shown.path === path && shown.view?.navigate) return shown.view.navigate({ id, query });
  const isFirst = shown.path === null;
  shown.view?.close();
  shown = { path, view: view.mount(fleet, { id, query }) };
  slot.replaceChildren(shown.view.element);
  shown.view.update(new Set(fleet.parts.keys()));
  if (!isFirst) {
    main.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function drawNavigation(current) {
  const numbers = {
    tasks: fleet.queue?.running,
    approvals: fleet.part("approvals")?.open,
    dead: fleet.queue?.dead,
    workers: fleet.part("workers")?.length,
  };
  patch(byId("nav"), [
    h(
      "ul",
      { class: "nav" },
      Object.entries(VIEWS).map(([name, view]) =>
        h(
          "li",
          { "data-key": name },
          h(
            "a",
            { href: `#/${name}`, "aria-current": name === current ? "page" : null },
            h("span", {}, view.title),
            numbers[name]
              ? h("span", { class: `nav-count${name === "dead" ? " bad" : ""}` }, count(numbers[name]))
              : null,
          ),
        ),
      ),
    ),
  ]);
}

function drawState(state, error) {
  const live = byId("live");
  const text = state === "failed" && error ? error.message : STATES[state];
  live.className = `live is-${state === "connecting" ? "connecting" : state}`;
  if (live.textContent !== text) live.textContent = text;
}

function drawAbout(about) {
  byId("about").textContent = about
    ? [about.queue, about.tenant && `tenant ${about.tenant}`, `shoal ${about.version}`].filter(Boolean).join(" · ")
    : "";
}

main.replaceChildren(banner, slot);
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
onKeyWanted((reason) => askForKey(reason));
themeButton(byId("theme"));
keyButton(byId("key"), () => askForKey(""));
fleet.onState(drawState);
fleet.onChange((changed) => {
  if (changed.has("about")) drawAbout(fleet.about);
  if (changed.has("queue")) patch(banner, [problemBanner(fleet)]);
  if (["queue", "workers", "approvals"].some((part) => changed.has(part))) drawNavigation(route().name);
  shown.view?.update(changed);
});
window.addEventListener("hashchange", show);
show();
fleet.start(failed);
