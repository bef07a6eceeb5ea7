// The frame: header, views, what stands in the way of them.

import { useEffect } from "preact/hooks";
import { span } from "../common/format";
import { Icon, ThemeButton } from "../common/ui";
import { Clients } from "./clients";
import { Dialogs } from "./actions";
import { Events } from "./events-view";
import { Overview } from "./overview";
import { Recordings } from "./recordings";
import { link, useRoute, type Route } from "./route";
import { Server } from "./server";
import { SignIn } from "./sign-in";
import { useStore } from "./store";
import { StreamView } from "./stream";
import { Streams } from "./streams";

const TABS: [Route["view"], string][] = [
  ["overview", "Overview"],
  ["streams", "Streams"],
  ["clients", "Clients"],
  ["recordings", "Recordings"],
  ["events", "Events"],
  ["server", "Server"],
];

const STATES = { out: "connecting", up: "", down: "not reachable", "sign-in": "" };

export function App() {
  const route = useRoute();
  const { phase, api, alerts, summaries, server } = useStore();
  const name = TABS.find(([view]) => view === route.view)?.[1] ?? "";
  useEffect(() => {
    document.title = `${name} · ringcast console`;
  }, [name]);
  const version = summaries?.self.version ?? server.version;
  return (
    <>
      <a class="skip" href="#main" onClick={focusMain}>Skip to the content</a>
      <header class="bar">
        <div class="bar-inner">
          <a class="brand" href={link("overview")}>
            <img src="../page/favicon.svg" alt="" width="26" height="26" />
            <span>ringcast</span>
          </a>
          <nav class="tabs" aria-label="Views">
            {TABS.map(([view, label]) => (
              <a
                key={view}
                href={link(view)}
                aria-current={view === route.view ? "page" : undefined}
              >
                {label}
                {view === "overview" && alerts.length > 0 && (
                  <span class="badge warn" aria-label={`${alerts.length} alerts`}>
                    {alerts.length}
                  </span>
                )}
              </a>
            ))}
          </nav>
          <div class="bar-end">
            <p class={`link ${phase.link}`} role="status">
              {STATES[phase.link]}
              {phase.link === "up" && `v${version}`}
              {phase.link === "up" && (
                <span class="wide"> · up {span(summaries?.self.srs_uptime ?? 0)}</span>
              )}
            </p>
            <ThemeButton />
            {api.isSignedIn && <SignOut />}
          </div>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {phase.link === "sign-in"
          ? <SignIn />
          : (
            <>
              {phase.link === "down" && (
                <p class="notice bad" role="alert">
                  <Icon name="warn" /> {phase.why} What you see is the last that was known.
                </p>
              )}
              <View route={route} />
            </>
          )}
      </main>
      <Dialogs />
    </>
  );
}

function View({ route }: { route: Route }) {
  switch (route.view) {
    case "streams":
      return route.id === null ? <Streams /> : <StreamView id={route.id} />;
    case "clients":
      return <Clients />;
    case "recordings":
      return <Recordings />;
    case "events":
      return <Events />;
    case "server":
      return <Server />;
    case "overview":
      return <Overview />;
  }
}

function SignOut() {
  const store = useStore();
  return (
    <button
      type="button"
      class="button ghost"
      title="Sign out"
      aria-label="Sign out"
      onClick={() => store.signOut()}
    >
      <Icon name="out" />
    </button>
  );
}

/** The link's own target would be taken for a view. */
function focusMain(event: MouseEvent): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
