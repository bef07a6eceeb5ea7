// The player page: an address, a picture, its figures, and what else is live.

import { useEffect, useRef, useState } from "preact/hooks";
import { Chart } from "../common/chart";
import { clock, count, lag, plural, rate, span } from "../common/format";
import { isDefault, type Name } from "../common/urls";
import { CopyButton, Icon, ThemeButton } from "../common/ui";
import { useLive, type Live } from "./live";
import { Playing, type Facts } from "./playing";
import { asked, find, PROTOCOLS, switched, urlOf } from "./protocols";

/** Distances from the newest media at which to jump forward, seconds. */
const LATENCIES = [1, 2, 5, 0];

export function App() {
  const [, setTurn] = useState(0);
  const video = useRef<HTMLVideoElement>(null);
  const [playing, setPlaying] = useState<Playing | null>(null);
  const [first] = useState(() => asked(location.search));
  const [protocolId, setProtocolId] = useState(first.protocol.id);
  const [address, setAddress] = useState(first.address);
  const [muted, setMuted] = useState(true);
  const live = useLive();
  const protocol = PROTOCOLS.find((one) => one.id === protocolId) ?? PROTOCOLS[0]!;

  useEffect(() => {
    if (video.current === null) return;
    const made = new Playing(video.current, () => setTurn((turn) => turn + 1));
    setPlaying(made);
    if (first.address !== "" && first.start) made.play(first.address, first.protocol.id);
  }, []);

  const play = (wanted: string, id: string) => {
    setAddress(wanted);
    playing?.play(wanted, id);
    const found = find(wanted, id);
    if ("engine" in found) setProtocolId(found.id);
    const query = new URLSearchParams({ protocol: "engine" in found ? found.id : id, url: wanted });
    history.replaceState(null, "", `?${query}`);
  };
  const choose = (id: string) => {
    setProtocolId(id);
    const chosen = PROTOCOLS.find((one) => one.id === id);
    const next = chosen === undefined ? null : switched(address, chosen);
    if (next === null) return;
    if (playing !== null && playing.status !== "idle") play(next, id);
    else setAddress(next);
  };
  const status = playing?.status ?? "idle";
  const isOn = status !== "idle" && status !== "refused";
  return (
    <>
      <a class="skip" href="#main">Skip to the player</a>
      <header class="bar">
        <div class="bar-inner">
          <a class="brand" href="../">
            <img src="../page/favicon.svg" alt="" width="26" height="26" />
            <span>ringcast</span>
          </a>
          <nav class="tabs" aria-label="Pages">
            <a href="./" aria-current="page">Players</a>
            <a href="../console/">Console</a>
          </nav>
          <div class="bar-end">
            <p class={`link ${live ? "up" : live === null ? "down" : ""}`} role="status">
              {live === null ? "no list" : live && plural(live.length, "live stream")}
            </p>
            <ThemeButton />
          </div>
        </div>
      </header>
      <main id="main" class="watch" tabIndex={-1}>
        <h1 class="offscreen">Player</h1>
        <div class="stack">
          <form
            class="card address"
            onSubmit={(event) => {
              event.preventDefault();
              play(address.trim(), protocolId);
            }}
          >
            <fieldset class="switch">
              <legend class="offscreen">Protocol</legend>
              {PROTOCOLS.map((one) => (
                <label key={one.id}>
                  <input
                    type="radio"
                    name="protocol"
                    value={one.id}
                    checked={one.id === protocol.id}
                    onChange={() => choose(one.id)}
                  />
                  <span>{one.label}</span>
                </label>
              ))}
            </fieldset>
            <input
              type="url"
              class="url"
              value={address}
              aria-label="Address of the stream"
              placeholder={urlOf(protocol, { vhost: "", app: "live", stream: "livestream" })}
              spellcheck={false}
              onInput={(event) => setAddress(event.currentTarget.value)}
            />
            <span class="address-buttons">
              <button type="submit" class="button primary"><Icon name="play" /> Play</button>
              <button
                type="button"
                class="button"
                disabled={!isOn}
                onClick={() => playing?.stop()}
              >
                Stop
              </button>
            </span>
          </form>
          <section class="card screen-card" aria-label="Picture">
            <div class="screen">
              <video
                ref={video}
                muted={muted}
                playsInline
                controls
                aria-describedby="status"
                onVolumeChange={(event) => setMuted(event.currentTarget.muted)}
              />
              {status !== "playing" && status !== "paused" && (
                <div class="cover"><p>{coverText(status, playing?.text ?? "", live)}</p></div>
              )}
              {status === "playing" && muted && (
                <button type="button" class="button unmute" onClick={() => setMuted(false)}>
                  Sound on
                </button>
              )}
            </div>
            <div class="screen-bar">
              <p id="status" role="status" aria-live="polite" class={`status ${status}`}>
                {playing?.text === "" || playing === null ? "Nothing is played" : playing.text}
              </p>
              {protocol.chases && <label class="inline">
                <span>Stay within</span>
                <select
                  value={playing?.latencyMax ?? 2}
                  onChange={(event) => {
                    if (playing === null) return;
                    playing.latencyMax = Number(event.currentTarget.value);
                    if (isOn) playing.play(playing.address, protocolId);
                  }}
                >
                  {LATENCIES.map((seconds) => (
                    <option key={seconds} value={seconds}>
                      {seconds === 0 ? "no limit" : `${seconds} s of live`}
                    </option>
                  ))}
                </select>
              </label>}
              {address !== "" && <CopyButton text={address} what="address" />}
            </div>
            {playing !== null && isOn && <Figures facts={playing.facts} playing={playing} />}
          </section>
          {playing !== null && playing.samples.length > 1 && (
            <div class="pair">
              <section class="card">
                <Chart
                  title="Behind live"
                  times={playing.samples.map((sample) => sample.at)}
                  series={[
                    { label: "", tone: 1, values: playing.samples.map((s) => s.behind) },
                  ]}
                  format={lag}
                  least={500}
                />
              </section>
              <section class="card">
                <Chart
                  title="Received"
                  times={playing.samples.map((sample) => sample.at)}
                  series={[
                    { label: "", tone: 2, values: playing.samples.map((s) => s.kbps ?? 0) },
                  ]}
                  format={rate}
                  least={100}
                />
              </section>
            </div>
          )}
        </div>
        <aside class="stack">
          <section class="card" aria-labelledby="live-title">
            <h2 id="live-title">
              Live now <span class="badge">{live?.length ?? 0}</span>
            </h2>
            <List
              live={live}
              isCurrent={(one) => urlOf(protocol, nameOf(one)) === playing?.address && isOn}
              onPick={(one) => play(urlOf(protocol, nameOf(one)), protocolId)}
            />
          </section>
          {playing !== null && playing.log.length > 0 && (
            <section class="card" aria-labelledby="log-title">
              <h2 id="log-title">What happened</h2>
              <ol class="log">
                {playing.log.map((line, index) => (
                  <li key={playing.log.length - index}>
                    <time>{clock(line.at)}</time> <span>{line.text}</span>
                  </li>
                ))}
              </ol>
            </section>
          )}
        </aside>
      </main>
      <footer>
        <p>
          FLV and TS are played by <a href="../page/mpegts.LICENSE.txt">mpegts.js</a>, HLS
          by <a href="../page/hls.LICENSE.txt">hls.js</a> (both Apache-2.0), DASH
          by <a href="../page/dash.LICENSE.txt">dash.js</a> (BSD-3-Clause). This page loads nothing
          from elsewhere.
        </p>
      </footer>
    </>
  );
}

function Figures({ facts, playing }: { facts: Facts; playing: Playing }) {
  const last = playing.samples[playing.samples.length - 1];
  const share = facts.decoded > 0 ? (facts.dropped / facts.decoded) * 100 : 0;
  const from = last?.byClock ? "" : " (buffer)";
  const rows: [string, string][] = [
    ["Behind live", last === undefined ? "–" : `${lag(last.behind)}${from}`],
    ["Received", last === undefined || last.kbps === null ? "–" : rate(last.kbps)],
    ["Picture", facts.picture],
    ["Pictures a second", facts.fps === null ? "–" : facts.fps.toFixed(1)],
    ["Dropped pictures", `${count(facts.dropped)} (${share.toFixed(1)} %)`],
    ["Stalls", count(facts.stalls)],
    ["First picture after", facts.join === null ? "–" : lag(facts.join)],
    ["Played", span(facts.played)],
    ...facts.more,
  ];
  return (
    <dl class="facts figures">
      {rows.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

interface ListProps {
  live: Live[] | null | undefined;
  isCurrent: (one: Live) => boolean;
  onPick: (one: Live) => void;
}

function List({ live, isCurrent, onPick }: ListProps) {
  if (live === undefined) return <p class="empty">Asking what is live</p>;
  if (live === null) return <p class="empty">The server cannot be asked what is live.</p>;
  if (live.length === 0) {
    return (
      <p class="empty">
        Nothing is live. <a href="../#publish-title">How to publish</a>
      </p>
    );
  }
  return (
    <ul class="live">
      {live.map((one) => (
        <li key={`${one.vhost}/${one.app}/${one.name}`}>
          <button
            type="button"
            class="live-stream"
            aria-current={isCurrent(one) ? "true" : undefined}
            onClick={() => onPick(one)}
          >
            <span class="dot live" />
            <span>
              <b>{`${one.app}/${one.name}`}</b>
              <small>{describe(one)}</small>
            </span>
          </button>
        </li>
      ))}
    </ul>
  );
}

function describe(one: Live): string {
  const parts = [isDefault(one.vhost) ? "" : one.vhost, one.video, one.audio];
  parts.push(one.kbps > 0 ? rate(one.kbps) : "", plural(one.players, "player"));
  return parts.filter((part) => part !== "").join(" · ");
}

function nameOf(one: Live): Name {
  return { vhost: one.vhost, app: one.app, stream: one.name };
}

function coverText(status: string, text: string, live: Live[] | null | undefined): string {
  if (status !== "idle") return text;
  if (!live?.length) return "Give an address to play";
  return "Pick a stream, or give an address";
}
