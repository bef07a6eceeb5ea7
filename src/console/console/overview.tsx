// The view that says at a glance whether all is well.

import type { ComponentChildren } from "preact";
import { Chart, Spark } from "../common/chart";
import { count, percent, plural, rate, size, span } from "../common/format";
import { publishUrl } from "../common/urls";
import { CopyLines, Icon } from "../common/ui";
import type { Alert } from "./api";
import { EventList } from "./events-view";
import { link } from "./route";
import { smooth, sum, useStore } from "./store";
import { StreamTable } from "./streams";

/** What each alert means for those who watch. */
const MEANINGS: Record<string, string> = {
  b_frames: "B-frames: WebRTC players cannot show them, and they cost latency",
  long_gop: "Keyframes far apart: joining takes long",
  bitrate: "Bit rate is far from what the publisher states",
  frame_rate: "Frame rate is far from what the publisher states",
  av_skew: "Audio and video are apart",
  timestamps: "Timestamps go back or jump",
  dropped: "Messages had to be dropped",
  recording: "It is not recorded as it should be",
  upload: "Files wait on disk, because the store does not take them",
};

export function meaningOf(alert: string): string {
  return MEANINGS[alert] ?? alert.replaceAll("_", " ");
}

export function Overview() {
  const { history, streams, shards, summaries, alerts, phase } = useStore();
  const last = history[history.length - 1];
  const sent = smooth(history.map((sample) => sample.sent));
  const received = smooth(history.map((sample) => sample.received));
  const players = sum(shards, (shard) => shard.players);
  const publishers = sum(shards, (shard) => shard.publishers);
  const own = summaries?.self;
  const system = summaries?.system;
  const live = streams.filter((stream) => stream.publish.active).length;
  return (
    <div class="stack">
      <h1 class="offscreen">Overview</h1>
      <section class="tiles" aria-label="Now">
        <Tile label="Streams" value={count(live)} values={history.map((s) => s.streams)}>
          {streams.length > live ? `${count(streams.length - live)} waiting` : "all live"}
        </Tile>
        <Tile label="Players" value={count(players)} values={history.map((s) => s.clients)}>
          {plural(publishers, "publisher")}
        </Tile>
        <Tile label="Out" value={rate(sent[sent.length - 1] ?? 0)} values={sent}>
          {size(sum(shards, (shard) => shard.send_bytes))} in all
        </Tile>
        <Tile
          label="In"
          value={rate(received[received.length - 1] ?? 0)}
          values={received}
          tone={2}
        >
          {size(sum(shards, (shard) => shard.recv_bytes))} in all
        </Tile>
        <Tile
          label="CPU, of one core"
          value={percent(own?.cpu_percent ?? 0)}
          values={history.map((s) => s.cpu)}
          tone={2}
        >
          host {percent(system?.cpu_percent ?? 0)}
        </Tile>
        <Tile
          label="Memory"
          value={size((last?.memory ?? own?.mem_kbyte ?? 0) * 1024)}
          values={history.map((s) => s.memory)}
          tone={2}
        >
          {percent(own?.mem_percent ?? 0)} of the host
        </Tile>
      </section>
      <div class="split">
        <section class="card" aria-label="Traffic">
          <Chart
            title="Traffic"
            times={history.map((sample) => sample.at)}
            series={[
              { label: "Out", tone: 1, values: sent },
              { label: "In", tone: 2, values: received },
            ]}
            format={rate}
            least={100}
          />
        </section>
        <section class="card" aria-labelledby="alerts-title">
          <h2 id="alerts-title">
            Alerts {alerts.length > 0 && <span class="badge warn">{alerts.length}</span>}
          </h2>
          <Alerts alerts={alerts} />
        </section>
      </div>
      <section class="card flush" aria-labelledby="now-title">
        <div class="card-head">
          <h2 id="now-title">Streams</h2>
        </div>
        {streams.length === 0 && phase.link === "up"
          ? <Welcome />
          : <StreamTable streams={streams} />}
      </section>
      <section class="card" aria-labelledby="lately-title">
        <div class="card-head plain">
          <h2 id="lately-title">Lately</h2>
          <a href={link("events")}>All events</a>
        </div>
        <EventList most={8} />
      </section>
    </div>
  );
}

interface TileProps {
  label: string;
  value: string;
  values: number[];
  tone?: 1 | 2;
  children: ComponentChildren;
}

function Tile({ label, value, values, tone = 1, children }: TileProps) {
  return (
    <div class="tile">
      <p class="tile-label">{label}</p>
      <p class="tile-value">{value}</p>
      <p class="tile-more">{children}</p>
      <Spark values={values} tone={tone} />
    </div>
  );
}

export function Alerts({ alerts }: { alerts: Alert[] }) {
  if (alerts.length === 0) {
    return <p class="calm"><Icon name="done" /> Nothing stands out.</p>;
  }
  return (
    <ul class="alerts">
      {alerts.map((alert) => (
        <li key={`${alert.stream} ${alert.alert}`}>
          <Icon name="warn" />
          <span>
            {alert.stream === ""
              ? <a href={link("recordings")}>{alert.vhost}</a>
              : <a href={link("streams", alert.stream)}>{alert.url.replace(/^\//, "")}</a>}
            <span class="alert-what">{meaningOf(alert.alert)}</span>
            <small>{alert.detail} · for {span((Date.now() - alert.since_ms) / 1000)}</small>
          </span>
        </li>
      ))}
    </ul>
  );
}

/** What to do with a server that nobody publishes to. */
function Welcome() {
  const { server } = useStore();
  const name = { vhost: "", app: "live", stream: "livestream" };
  const url = publishUrl(name, server.ports);
  return (
    <div class="welcome">
      <p>Nothing is live yet. Publish a stream and it shows up here:</p>
      <CopyLines
        lines={[
          { label: "ffmpeg", text: `ffmpeg -re -i input.mp4 -c copy -f flv ${url}` },
          { label: "OBS, server", text: url.replace(/\/livestream$/, "") },
          { label: "OBS, stream key", text: "livestream" },
        ]}
      />
    </div>
  );
}
