// What happened lately, as it happens.

import { useState } from "preact/hooks";
import { clock, lag, size, span } from "../common/format";
import type { Event } from "./events";
import { meaningOf } from "./overview";
import { link } from "./route";
import { useStore } from "./store";
import { Search } from "./streams";

const VERBS: Record<string, string> = {
  publish: "publishes",
  unpublish: "stopped publishing",
  play: "plays",
  stop: "stopped playing",
  alert: "Alert:",
  alert_end: "Alert is over:",
};

export function EventList({ most, search = "" }: { most: number; search?: string }) {
  const { events } = useStore();
  const words = search.toLowerCase().split(/\s+/);
  const text = (event: Event) => `${event.kind} ${JSON.stringify(event.data)}`.toLowerCase();
  const found = events.filter((event) => words.every((word) => text(event).includes(word)));
  if (found.length === 0) {
    return (
      <p class="empty">
        {events.length === 0 ? "Nothing has happened yet." : "Nothing like that."}
      </p>
    );
  }
  return (
    <ol class="events">
      {found.slice(0, most).map((event) => <Line key={event.id} event={event} />)}
    </ol>
  );
}

function Line({ event: { kind, data } }: { event: Event }) {
  const field = (name: string) => {
    const value = data[name];
    return typeof value === "string" || typeof value === "number" ? String(value) : "";
  };
  const number = (name: string) => Number(data[name] ?? 0);
  const at = number("at_ms") || number("since_ms");
  const stream = (
    <a href={link("streams", field("stream"))}>{field("url").replace(/^\//, "")}</a>
  );
  return (
    <li class={`event ${kind}`}>
      <time>{at > 0 ? clock(at) : ""}</time>
      <span class="event-text">
        {kind === "lost"
          ? <>{field("events")} events came too fast to be told</>
          : kind.startsWith("alert")
            ? (
              <>
                {VERBS[kind]} {stream} {meaningOf(field("alert"))} <small>{field("detail")}</small>
              </>
            )
            : (
              <>
                <span class="mono">{field("ip")}</span> {VERBS[kind] ?? kind} {stream}{" "}
                <small>
                  {field("protocol")}
                  {data["reason"] !== undefined && (
                    <>
                      {" "}· {field("reason").replaceAll("_", " ")}
                      {" "}after {span(number("alive_ms") / 1000)}
                      {" "}· {size(Math.max(number("recv_bytes"), number("send_bytes")))}
                      {number("skips") > 0 && <> · {field("skips")} skips</>}
                      {number("lag_ms") > 0 && <> · {lag(number("lag_ms"))} behind</>}
                    </>
                  )}
                </small>
              </>
            )}
      </span>
    </li>
  );
}

export function Events() {
  const [search, setSearch] = useState("");
  return (
    <section class="card" aria-labelledby="events-title">
      <div class="card-head plain">
        <h1 id="events-title">Events</h1>
        <Search value={search} onInput={setSearch} label="Search events" />
      </div>
      <EventList most={200} search={search} />
    </section>
  );
}
