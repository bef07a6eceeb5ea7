// What the console knows: asked for every two seconds while somebody looks, with the history that
// the charts show.

import { useEffect, useState } from "preact/hooks";
import {
  Api, SignInNeeded, type Alert, type Client, type Credentials, type ServerInfo, type Shard,
  type Stream, type Summaries,
} from "./api";
import { follow, type Event } from "./events";

/** Sums at one moment. Rates in kbit/s. */
export interface Sample {
  at: number;
  sent: number;
  received: number;
  streams: number;
  clients: number;
  cpu: number;
  memory: number;
}

/** What clients are asked for. */
export interface ClientQuery {
  /** Only those of a stream. */
  stream?: string;
  start: number;
}

export interface Phase {
  /** `out` until the first answer. */
  link: "out" | "up" | "down" | "sign-in";
  /** Why it is down. */
  why: string;
  schemes: string[];
}

const POLL_MS = 2_000;
const HISTORY = 300;
const STREAM_HISTORY = 150;
const EVENTS_KEPT = 200;
export const CLIENTS_PAGE = 100;
const STREAMS_MAX = 2_000;

/** Used until the server says so itself, and by servers that do not. */
const UNKNOWN_SERVER: ServerInfo = {
  version: "",
  ports: { rtmp: 1935, http: 8080, api: 1985 },
  mounts: {},
  may_reload: false,
  connections: 0,
  max_connections: 0,
  media_memory: { used: 0, limit: 0 },
  hooks: { calls: 0, failed: 0, mean_ms: 0 },
  api: { connections: 0, refused: {} },
};

class Store {
  readonly api = new Api();
  phase: Phase = { link: "out", why: "", schemes: [] };
  server = UNKNOWN_SERVER;
  summaries: Summaries | null = null;
  streams: Stream[] = [];
  shards: Shard[] = [];
  alerts: Alert[] = [];
  clients: Client[] = [];
  /** What `clients` is the answer to. */
  clientsOf: ClientQuery | null = null;
  /** Newest first. */
  events: Event[] = [];
  history: Sample[] = [];
  streamHistory = new Map<string, Sample[]>();

  private query: ClientQuery | null = null;
  private listeners = new Set<() => void>();
  private before: { at: number; sent: number; received: number; streams: Map<string, Stream> }
    | null = null;
  private timer = 0;
  private turns = 0;
  private running = false;
  private following: AbortController | null = null;

  start(): void {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.poke();
    });
    void this.turn();
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  signIn(credentials: Credentials): void {
    this.api.signIn(credentials);
    this.poke();
  }

  signOut(): void {
    this.api.signOut();
    this.following?.abort();
    this.following = null;
    Object.assign(this, { streams: [], clients: [], alerts: [], events: [], shards: [] });
    this.summaries = null;
    this.poke();
  }

  /** Says which clients are looked at, if any. */
  want(query: ClientQuery | null): void {
    this.query = query;
    if (query !== null) this.poke();
  }

  /** Looks now instead of later. */
  poke(): void {
    clearTimeout(this.timer);
    void this.turn();
  }

  private async turn(): Promise<void> {
    if (this.running) {
      // What was asked for meanwhile comes right after.
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => void this.turn(), 100);
      return;
    }
    this.running = true;
    try {
      if (!document.hidden) await this.look();
    } finally {
      this.running = false;
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => void this.turn(), POLL_MS);
    }
  }

  private async look(): Promise<void> {
    const query = this.query;
    try {
      const [summaries, streams, shards, alerts, clients] = await Promise.all([
        this.api.json<{ data: Summaries }>("summaries"),
        this.api.json<{ streams: Stream[] }>(`streams/?count=${STREAMS_MAX}`),
        this.api.json<{ shards: Shard[] }>("shards"),
        this.api.json<{ alerts: Alert[] }>("alerts"),
        query === null ? null : this.api.json<{ clients: Client[] }>(`clients/?${text(query)}`),
      ]);
      if (this.turns % 5 === 0) await this.askServer();
      this.turns += 1;
      this.summaries = summaries.data;
      this.streams = streams.streams;
      this.shards = shards.shards;
      this.alerts = alerts.alerts;
      if (clients !== null) {
        this.clients = clients.clients;
        this.clientsOf = query;
      }
      this.note();
      this.phase = { link: "up", why: "", schemes: [] };
      this.following ??= this.follow();
    } catch (error) {
      if (error instanceof SignInNeeded) {
        const why = this.api.isSignedIn ? "The server does not accept that." : "";
        this.api.signOut();
        this.phase = { link: "sign-in", why, schemes: error.schemes };
      } else {
        const why = error instanceof TypeError || error instanceof DOMException
          ? "The server cannot be reached." : (error as Error).message;
        this.phase = { link: "down", why, schemes: [] };
      }
    }
    this.tell();
  }

  private async askServer(): Promise<void> {
    try {
      const { data } = await this.api.json<{ data?: ServerInfo }>("server");
      if (data !== undefined) this.server = data;
    } catch (error) {
      // An older server has no such route; the usual ports are a good guess.
      if (error instanceof SignInNeeded) throw error;
    }
  }

  private follow(): AbortController {
    const control = new AbortController();
    void follow(this.api, control.signal, EVENTS_KEPT, (event) => {
      this.events = [event, ...this.events].slice(0, EVENTS_KEPT);
      this.tell();
    });
    return control;
  }

  /** Adds to the history what has changed since the last look. */
  private note(): void {
    const at = Date.now();
    const sent = sum(this.shards, (shard) => shard.send_bytes);
    const received = sum(this.shards, (shard) => shard.recv_bytes);
    const before = this.before;
    const streams = new Map(this.streams.map((stream) => [stream.id, stream]));
    this.before = { at, sent, received, streams };
    if (before === null || at - before.at < POLL_MS / 2) return;
    const kbps = (now: number, then: number) => Math.max(0, ((now - then) * 8) / (at - before.at));
    push(this.history, HISTORY, {
      at,
      sent: kbps(sent, before.sent),
      received: kbps(received, before.received),
      streams: this.streams.length,
      clients: this.clientCount(),
      cpu: this.summaries?.self.cpu_percent ?? 0,
      memory: this.summaries?.self.mem_kbyte ?? 0,
    });
    for (const stream of this.streams) {
      const then = before.streams.get(stream.id);
      if (then === undefined) continue;
      let samples = this.streamHistory.get(stream.id);
      if (samples === undefined) this.streamHistory.set(stream.id, (samples = []));
      push(samples, STREAM_HISTORY, {
        at,
        sent: kbps(stream.send_bytes, then.send_bytes),
        received: kbps(stream.recv_bytes, then.recv_bytes),
        streams: 1,
        clients: stream.ringcast.players,
        cpu: 0,
        memory: 0,
      });
    }
    for (const id of this.streamHistory.keys()) {
      if (!streams.has(id)) this.streamHistory.delete(id);
    }
  }

  clientCount(): number {
    return sum(this.shards, (shard) => shard.players + shard.publishers);
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }
}

function push(samples: Sample[], most: number, sample: Sample): void {
  samples.push(sample);
  if (samples.length > most) samples.shift();
}

function text(query: ClientQuery): string {
  const params = new URLSearchParams({ start: String(query.start), count: String(CLIENTS_PAGE) });
  if (query.stream !== undefined) params.set("stream", query.stream);
  return params.toString();
}

export function sum<T>(list: T[], of: (one: T) => number): number {
  return list.reduce((total, one) => total + of(one), 0);
}

/** Means over a few samples: what a publisher sends comes in bursts, at each keyframe. */
export function smooth(values: number[], width = 3): number[] {
  return values.map((_, index) => {
    const part = values.slice(Math.max(0, index - width + 1), index + 1);
    return sum(part, (value) => value) / part.length;
  });
}

export const store = new Store();

/** The store, read anew whenever it changes. */
export function useStore(): Store {
  const [, setTurn] = useState(0);
  useEffect(() => store.subscribe(() => setTurn((turn) => turn + 1)), []);
  return store;
}
