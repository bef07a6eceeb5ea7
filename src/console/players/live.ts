// The list of live streams of the server that the page came from.

import { useEffect, useState } from "preact/hooks";

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

/** The streams, or `null` while the server cannot be asked. */
export function useLive(): Live[] | null {
  const [streams, setStreams] = useState<Live[] | null>(null);
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

async function ask(): Promise<Live[] | null> {
  try {
    const options = { cache: "no-store", signal: AbortSignal.timeout(10_000) } as const;
    const response = await fetch("../streams.json", options);
    if (!response.ok) return null;
    const body = (await response.json()) as { streams: Live[] };
    const key = (one: Live) => `${one.vhost}/${one.app}/${one.name}`;
    return body.streams.toSorted((a, b) => (key(a) < key(b) ? -1 : 1));
  } catch {
    return null;
  }
}
