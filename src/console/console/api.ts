// The HTTP API: what it answers, and how it is asked. Everything is relative to the page, so the
// console also works behind a proxy that serves it below a path of its own.

import type { Ports } from "../common/urls";

export interface Kbps {
  recv_30s: number;
  send_30s: number;
}

export interface Stream {
  id: string;
  name: string;
  app: string;
  url: string;
  clients: number;
  audio_frames: number;
  video_frames: number;
  send_bytes: number;
  recv_bytes: number;
  kbps: Kbps;
  publish: { active: boolean; cid?: string };
  video: null | { codec: string; profile: string; level: string; width: number; height: number };
  audio: null | { codec: string; sample_rate: number; channel: number; profile: string };
  ringcast: {
    vhost_name: string;
    players: number;
    published_ms: number;
    resumed: number;
    keyframes: number;
    gop_ms: number;
    b_frames: number;
    timestamps_backward: number;
    timestamp_jumps: number;
    fps: number;
    video: string | null;
    audio: string | null;
    dropped: Record<string, number>;
  };
}

export interface Client {
  id: string;
  stream: string;
  ip: string;
  pageUrl: string;
  tcUrl: string;
  url: string;
  name: string;
  type: string;
  publish: boolean;
  alive: number;
  send_bytes: number;
  recv_bytes: number;
  kbps: Kbps;
  ringcast: { port: number; protocol: string; lag_ms: number; skips: number };
}

/** A stream's recording. */
export interface Recording {
  stream: string;
  url: string;
  state: string;
  file: string;
  since_ms: number;
  bytes: number;
  files: number;
  gaps: number;
  lost_ms: number;
  detail: string | null;
}

/** What a vhost uploads. */
export interface Upload {
  vhost: string;
  state: string;
  waiting: number;
  waiting_bytes: number;
  oldest_ms: number | null;
  retry_ms: number | null;
  files: number;
  bytes: number;
  failed: number;
  given_up: number;
  detail: string | null;
}

export interface Alert {
  alert: string;
  stream: string;
  vhost: string;
  url: string;
  since_ms: number;
  detail: string;
}

export interface Shard {
  accepted: number;
  connections: number;
  players: number;
  publishers: number;
  recv_bytes: number;
  send_bytes: number;
  messages: number;
  sends: number;
  busy_permille: number;
  window_us: number;
  reasons: Record<string, number>;
}

export interface Summaries {
  ok: boolean;
  now_ms: number;
  self: {
    version: string;
    pid: number;
    argv: string;
    cwd: string;
    mem_kbyte: number;
    mem_percent: number;
    cpu_percent: number;
    srs_uptime: number;
  };
  system: {
    cpu_percent: number;
    mem_ram_kbyte: number;
    mem_ram_percent: number;
    cpus_online: number;
    uptime: number;
    load_1m: number;
    load_5m: number;
    load_15m: number;
  };
}

/** What the server is and allows: `/api/v1/server`. */
export interface ServerInfo {
  version: string;
  ports: Ports;
  /** Path templates by vhost, `*` for the rest; null where nothing is served. */
  mounts: Record<string, string | null>;
  may_reload: boolean;
  connections: number;
  max_connections: number;
  media_memory: { used: number; limit: number };
  hooks: { calls: number; failed: number; mean_ms: number };
  api: { connections: number; refused: Record<string, number> };
}

/** How the console says who it is. */
export type Credentials = { name: string; password: string } | { token: string };

/** What a server wants to know before it answers. */
export class SignInNeeded extends Error {
  constructor(readonly schemes: string[]) {
    super("The server asks who you are.");
  }
}

const KEY = "ringcast-credentials";

export class Api {
  private header: string | null = null;

  constructor() {
    try {
      this.header = sessionStorage.getItem(KEY);
    } catch {
      // Without storage a sign-in lasts as long as the page.
    }
  }

  get isSignedIn(): boolean {
    return this.header !== null;
  }

  signIn(credentials: Credentials): void {
    this.header = "token" in credentials
      ? `Bearer ${credentials.token}`
      : `Basic ${base64(`${credentials.name}:${credentials.password}`)}`;
    try {
      sessionStorage.setItem(KEY, this.header);
    } catch {
      // As above.
    }
  }

  signOut(): void {
    this.header = null;
    try {
      sessionStorage.removeItem(KEY);
    } catch {
      // As above.
    }
  }

  /** Asks for something below `/api/v1/` and gives the answer, whose status is good. */
  async ask(path: string, options: RequestInit = {}): Promise<Response> {
    const response = await fetch(`../api/v1/${path}`, {
      ...options,
      // Nothing from the browser's own store: otherwise it would put up a dialog of its own.
      credentials: "omit",
      cache: "no-store",
      headers: { ...(this.header === null ? {} : { Authorization: this.header }) },
    });
    if (response.status === 401) {
      const schemes = response.headers.get("www-authenticate") ?? "Basic";
      throw new SignInNeeded(schemes.split(",").map((one) => one.trim().split(" ")[0] ?? ""));
    }
    if (!response.ok) throw new Error(await complaint(response));
    return response;
  }

  /** The same for JSON; a code other than 0 is a failure. */
  async json<T>(path: string, options: RequestInit = {}): Promise<T> {
    const response = await this.ask(path, { signal: AbortSignal.timeout(10_000), ...options });
    const body = (await response.json()) as T & { code?: number };
    if (body.code !== undefined && body.code !== 0) throw new Error(meaning(body.code));
    return body;
  }

  post(path: string): Promise<unknown> {
    return this.json(path, { method: "POST" });
  }

  remove(path: string): Promise<unknown> {
    return this.json(path, { method: "DELETE" });
  }
}

async function complaint(response: Response): Promise<string> {
  const text = (await response.text().catch(() => "")).trim();
  return text.length > 0 && text.length < 200 ? text : `The server answered ${response.status}.`;
}

function meaning(code: number): string {
  const known: Record<number, string> = {
    1060: "The configuration does not allow that (http_api.raw_api.allow_reload).",
    1061: "The configuration does not allow that (http_api.raw_api.enabled).",
    2014: "That vhost is gone.",
    2048: "That stream is gone.",
    2049: "That client is gone.",
  };
  return known[code] ?? `The server answered with code ${code}.`;
}

/** Base64 of a text as UTF-8. */
function base64(text: string): string {
  return btoa(Array.from(new TextEncoder().encode(text), (b) => String.fromCharCode(b)).join(""));
}
