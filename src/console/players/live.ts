// The list of live streams of the server that the page came from.

import { useEffect, useState } from "preact/hooks";
import { isDefault, type Name } from "../common/urls";
import { heard } from "./clock";

export interface Live {
  vhost: string;
  app: string;
  name: string;
  players: number;
  video: string;
  audio: string;
  kbps: number;
}

const EVERY_MS = 2_000;

/** The streams, `null` while the server cannot be asked, `undefined` before its first answer. */
export function useLive(): Live[] | null | undefined {
  const [streams, setStreams] = useState<Live[] | null>();
  useEffect(() => {
    let timer = 0;
    let over = false;
    const look = async () => {
      if (!document.hidden) setStreams(await ask());
      if (!over) timer = window.setTimeout(() => void look(), EVERY_MS);
    };
    void look();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, []);
  return streams;
}

export async function ask(): Promise<Live[] | null> {
  try {
    const options = { cache: "no-store", signal: AbortSignal.timeout(10_000) } as const;
    const asked = performance.now();
    const response = await fetch("../streams.json", options);
    const answered = performance.now();
    if (!response.ok) return null;
    const body = (await response.json()) as { now_ms?: number; streams: Live[] };
    if (body.now_ms !== undefined) heard(body.now_ms, asked, answered);
    const key = (one: Live) => `${one.vhost}/${one.app}/${one.name}`;
    return body.streams.toSorted((a, b) => (key(a) < key(b) ? -1 : 1));
  } catch {
    return null;
  }
}

export function isNamed(one: Live, name: Name): boolean {
  const isVhost = one.vhost === name.vhost || (isDefault(one.vhost) && isDefault(name.vhost));
  return isVhost && one.app === name.app && one.name === name.stream;
}
