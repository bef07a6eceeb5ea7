// All about one stream.

import { Chart } from "../common/chart";
import { count, lag, rate, size, span } from "../common/format";
import { isDefault, playerPage, ways } from "../common/urls";
import { CopyLines, Icon } from "../common/ui";
import type { Stream } from "./api";
import { kickStream } from "./actions";
import { ClientList } from "./clients";
import { Alerts } from "./overview";
import { link } from "./route";
import { smooth, useStore } from "./store";
import { audioOf, nameOf, videoOf } from "./streams";

export function StreamView({ id }: { id: string }) {
  const { streams, streamHistory, alerts, server, phase } = useStore();
  const stream = streams.find((one) => one.id === id);
  if (stream === undefined) {
    return (
      <section class="card">
        <Back />
        <p class="empty">
          {phase.link === "out" ? "Asking for the stream" : "This stream is not live any more."}
        </p>
      </section>
    );
  }
  const history = streamHistory.get(id) ?? [];
  const name = nameOf(stream);
  const own = alerts.filter((alert) => alert.stream === id);
  const mount = name.vhost in server.mounts
    ? server.mounts[name.vhost] : server.mounts["*"];
  return (
    <div class="stack">
      <section class="card">
        <Back />
        <div class="stream-head">
          <h1>
            {`${stream.app}/${stream.name}`}
            <span class={`pill ${stream.publish.active ? "live" : ""}`}>
              {stream.publish.active ? "live" : "waiting"}
            </span>
          </h1>
          <span class="row-buttons">
            <a
              class="button primary"
              href={playerPage(name, server.ports)}
              target="_blank"
              rel="noreferrer"
            >
              <Icon name="play" /> Play
            </a>
            <button
              type="button"
              class="button danger"
              disabled={!stream.publish.active}
              onClick={() => kickStream(stream, "publish")}
            >
              <Icon name="kick" /> Kick publisher
            </button>
            <button
              type="button"
              class="button danger"
              disabled={stream.ringcast.players === 0}
              onClick={() => kickStream(stream, "play")}
            >
              <Icon name="kick" /> Kick players
            </button>
          </span>
        </div>
        <Facts facts={[
          ["Live for", stream.publish.active ? span(stream.ringcast.published_ms / 1000) : "–"],
          ["Players", count(stream.ringcast.players)],
          ["In", rate(stream.kbps.recv_30s)],
          ["Out", rate(stream.kbps.send_30s)],
          ["Received", size(stream.recv_bytes)],
          ["Sent", size(stream.send_bytes)],
          ...(isDefault(name.vhost) ? [] : [["Vhost", name.vhost] as [string, string]]),
        ]} />
      </section>
      {own.length > 0 && (
        <section class="card" aria-labelledby="own-alerts">
          <h2 id="own-alerts">Alerts <span class="badge warn">{own.length}</span></h2>
          <Alerts alerts={own} />
        </section>
      )}
      <div class="split even">
        <section class="card">
          <Chart
            title="Traffic"
            times={history.map((sample) => sample.at)}
            series={[
              { label: "Out", tone: 1, values: smooth(history.map((sample) => sample.sent)) },
              { label: "In", tone: 2, values: smooth(history.map((sample) => sample.received)) },
            ]}
            format={rate}
            least={100}
          />
        </section>
        <section class="card">
          <Chart
            title="Players"
            times={history.map((sample) => sample.at)}
            series={[
              { label: "Players", tone: 1, values: history.map((sample) => sample.clients) },
            ]}
            format={count}
            least={4}
          />
        </section>
      </div>
      <div class="split even">
        <section class="card" aria-labelledby="media-title">
          <h2 id="media-title">Media</h2>
          <Facts facts={mediaOf(stream)} />
        </section>
        <section class="card" aria-labelledby="health-title">
          <h2 id="health-title">Health</h2>
          <Facts facts={healthOf(stream)} />
        </section>
      </div>
      <section class="card" aria-labelledby="play-title">
        <h2 id="play-title">Play it</h2>
        <CopyLines
          lines={ways(name, server.ports, mount).map((way) => ({
            label: way.label,
            text: way.url,
          }))}
        />
      </section>
      <section class="card flush" aria-labelledby="stream-clients">
        <div class="card-head">
          <h2 id="stream-clients">Clients <span class="badge">{count(stream.clients)}</span></h2>
        </div>
        <ClientList stream={id} />
      </section>
    </div>
  );
}

function Back() {
  return (
    <a class="back" href={link("streams")}><Icon name="back" /> All streams</a>
  );
}

export function Facts({ facts }: { facts: [string, string][] }) {
  return (
    <dl class="facts">
      {facts.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function mediaOf(stream: Stream): [string, string][] {
  const { video, audio, ringcast } = stream;
  const facts: [string, string][] = [["Video", ringcast.video ?? videoOf(stream)]];
  if (video !== null) {
    if (video.width > 0) facts.push(["Picture", `${video.width} × ${video.height}`]);
    facts.push(["Profile", `${video.profile}, level ${video.level}`]);
    facts.push(["Frames a second", ringcast.fps > 0 ? ringcast.fps.toFixed(1) : "–"]);
  }
  facts.push(["Audio", ringcast.audio ?? audioOf(stream)]);
  if (audio !== null) {
    facts.push(["Audio profile", audio.profile]);
  }
  return facts;
}

function healthOf(stream: Stream): [string, string][] {
  const { ringcast } = stream;
  const dropped = Object.entries(ringcast.dropped);
  return [
    ["Keyframe every", ringcast.gop_ms > 0 ? lag(ringcast.gop_ms) : "–"],
    ["Keyframes", count(ringcast.keyframes)],
    ["Video messages", count(stream.video_frames)],
    ["Audio messages", count(stream.audio_frames)],
    ["B-frames", count(ringcast.b_frames)],
    ["Timestamps back", count(ringcast.timestamps_backward)],
    ["Timestamp jumps", count(ringcast.timestamp_jumps)],
    ["Publisher came back", count(ringcast.resumed)],
    ...dropped.map(([reason, n]): [string, string] => [reasonText(reason), count(n)]),
  ];
}

/** A counter's name as words. */
export function reasonText(reason: string): string {
  const words = reason.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
