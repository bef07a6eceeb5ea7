// The table of streams.

import { useState } from "preact/hooks";
import { count, rate, span } from "../common/format";
import { isDefault, playerPage, type Name } from "../common/urls";
import { Icon } from "../common/ui";
import type { Alert, Stream } from "./api";
import { kickStream } from "./actions";
import { link } from "./route";
import { useStore } from "./store";
import { Table, ordered, type Column, type Order } from "./table";

/** Rows that are drawn before somebody asks for more. */
const ROWS = 100;

export function nameOf(stream: Stream): Name {
  return { vhost: stream.ringcast.vhost_name, app: stream.app, stream: stream.name };
}

export function videoOf(stream: Stream): string {
  const { video, ringcast } = stream;
  if (video === null) return ringcast.video ?? "–";
  const codec = video.codec === "Other" && ringcast.video !== null ? ringcast.video : video.codec;
  return video.width > 0 ? `${codec} ${video.width}×${video.height}` : codec;
}

export function audioOf(stream: Stream): string {
  const { audio, ringcast } = stream;
  if (audio === null) return ringcast.audio ?? "–";
  return audio.codec === "Other" && ringcast.audio !== null ? ringcast.audio : audio.codec;
}

export function StreamTable({ streams }: { streams: Stream[] }) {
  const { alerts, server } = useStore();
  const [order, setOrder] = useState<Order | null>({ label: "Out", down: true });
  const [all, setAll] = useState(false);
  const columns: Column<Stream>[] = [
    {
      label: "Stream",
      by: (stream) => stream.url,
      cell: (stream) => <StreamName stream={stream} alerts={alerts} />,
    },
    {
      label: "Video",
      wide: true,
      by: videoOf,
      cell: (stream) => (
        <>
          {videoOf(stream)}
          {stream.ringcast.fps > 0 && <small>{stream.ringcast.fps.toFixed(0)} fps</small>}
        </>
      ),
    },
    { label: "Audio", wide: true, by: audioOf, cell: audioOf },
    {
      label: "Live for",
      number: true,
      by: (stream) => stream.ringcast.published_ms,
      cell: (stream) => (stream.publish.active ? span(stream.ringcast.published_ms / 1000) : "–"),
    },
    {
      label: "Players",
      number: true,
      by: (stream) => stream.ringcast.players,
      cell: (stream) => count(stream.ringcast.players),
    },
    {
      label: "In",
      number: true,
      by: (stream) => stream.kbps.recv_30s,
      cell: (stream) => rate(stream.kbps.recv_30s),
    },
    {
      label: "Out",
      number: true,
      by: (stream) => stream.kbps.send_30s,
      cell: (stream) => rate(stream.kbps.send_30s),
    },
    {
      label: "",
      cell: (stream) => (
        <span class="row-buttons">
          <a
            class="button small"
            href={playerPage(nameOf(stream), server.ports)}
            target="_blank"
            rel="noreferrer"
            aria-label={`Play ${stream.url}`}
          >
            <Icon name="play" /> Play
          </a>
          <button
            type="button"
            class="button small danger"
            disabled={!stream.publish.active}
            onClick={() => kickStream(stream, "publish")}
            aria-label={`Kick the publisher of ${stream.url}`}
          >
            <Icon name="kick" /> Kick
          </button>
        </span>
      ),
    },
  ];
  const rows = ordered(streams, columns, order);
  return (
    <>
      <Table
        caption="Streams"
        columns={columns}
        rows={all ? rows : rows.slice(0, ROWS)}
        id={(stream) => stream.id}
        order={order}
        onOrder={setOrder}
        empty="Nothing is live. A stream shows up here as soon as it is published or waited for."
      />
      {!all && rows.length > ROWS && (
        <button type="button" class="button more" onClick={() => setAll(true)}>
          Show all {count(rows.length)}
        </button>
      )}
    </>
  );
}

function StreamName({ stream, alerts }: { stream: Stream; alerts: Alert[] }) {
  const own = alerts.filter((alert) => alert.stream === stream.id);
  const { vhost_name } = stream.ringcast;
  return (
    <span class="stream-name">
      <span
        class={`dot ${stream.publish.active ? "live" : ""}`}
        title={stream.publish.active ? "Live" : "Waiting for its publisher"}
      />
      <span>
        <a href={link("streams", stream.id)}>{`${stream.app}/${stream.name}`}</a>
        {!isDefault(vhost_name) && <small>{vhost_name}</small>}
        {!stream.publish.active && <small>waiting for its publisher</small>}
        {own.length > 0 && (
          <small class="warn-text">
            <Icon name="warn" /> {own.map((alert) => alert.alert.replaceAll("_", " ")).join(", ")}
          </small>
        )}
      </span>
    </span>
  );
}

export function Streams() {
  const { streams } = useStore();
  const [wanted, setWanted] = useState("");
  const words = wanted.toLowerCase().split(/\s+/);
  const text = (stream: Stream) =>
    `${stream.url} ${videoOf(stream)} ${audioOf(stream)}`.toLowerCase();
  const found = streams.filter((stream) => words.every((word) => text(stream).includes(word)));
  return (
    <section class="card flush" aria-labelledby="streams-title">
      <div class="card-head">
        <h1 id="streams-title">Streams <span class="badge">{count(streams.length)}</span></h1>
        <Search value={wanted} onInput={setWanted} label="Search streams" />
      </div>
      <StreamTable streams={found} />
    </section>
  );
}

export function Search(props: { value: string; onInput: (text: string) => void; label: string }) {
  return (
    <label class="search">
      <Icon name="search" />
      <input
        type="search"
        value={props.value}
        placeholder={props.label}
        aria-label={props.label}
        spellcheck={false}
        onInput={(event) => props.onInput(event.currentTarget.value)}
      />
    </label>
  );
}
