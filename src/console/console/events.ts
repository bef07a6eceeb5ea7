// Server-sent events by `fetch`, since an `EventSource` cannot say who it is.

import { SignInNeeded, type Api } from "./api";

export interface Event {
  id: number;
  kind: string;
  data: Record<string, unknown>;
}

/** Reads events for ever, from behind the last one seen, at first with so many recent ones; ends
 * with the signal. */
export async function follow(
  api: Api,
  signal: AbortSignal,
  recent: number,
  onEvent: (event: Event) => void,
): Promise<void> {
  let last = "";
  let wait = 1_000;
  while (!signal.aborted) {
    try {
      const query = last === "" ? `?recent=${recent}` : `?last_event_id=${last}`;
      const response = await api.ask(`events${query}`, { signal });
      wait = 1_000;
      for await (const block of blocks(response)) {
        const event = parse(block);
        if (event === null) continue;
        if (event.id > 0) last = String(event.id);
        onEvent(event);
      }
    } catch (error) {
      // Who is asked for a password is asked once, by the requests for everything else.
      if (signal.aborted || error instanceof SignInNeeded) return;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 30_000);
  }
}

/** Pieces of text between empty lines. */
async function* blocks(response: Response): AsyncGenerator<string> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop() ?? "";
    yield* parts;
  }
}

function parse(block: string): Event | null {
  const event: Event = { id: 0, kind: "", data: {} };
  for (const line of block.split("\n")) {
    const [field, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)];
    if (field === "id") event.id = Number(value);
    if (field === "event") event.kind = value.trim();
    if (field === "data") event.data = JSON.parse(value) as Record<string, unknown>;
  }
  return event.kind === "" ? null : event;
}
