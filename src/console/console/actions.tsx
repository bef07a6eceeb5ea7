// What can be done to others: asked for first, and said afterwards how it went.

import { useEffect, useState } from "preact/hooks";
import { Confirm } from "../common/ui";
import type { Client, Stream } from "./api";
import { store } from "./store";

interface Action {
  title: string;
  text: string;
  /** What the button says. */
  label: string;
  done: string;
  run: () => Promise<unknown>;
}

interface Toast {
  text: string;
  bad: boolean;
}

let showAction: (action: Action) => void = () => {};

export function kickClient(client: Client): void {
  const who = `${client.ip}:${client.ringcast.port}`;
  showAction({
    title: client.publish ? "Disconnect this publisher?" : "Disconnect this player?",
    text: `${who} ${client.publish ? "publishes" : "plays"} ${client.url}. `
      + "It may connect again at once.",
    label: "Disconnect",
    done: `${who} was disconnected.`,
    run: () => store.api.remove(`clients/${encodeURIComponent(client.id)}`),
  });
}

export function kickStream(stream: Stream, role: "publish" | "play"): void {
  const { players } = stream.ringcast;
  const what = role === "publish" ? "the publisher" : `all ${players} players`;
  showAction({
    title: `Disconnect ${what}?`,
    text: role === "publish"
      ? `Players of ${stream.url} see no picture until it is published again.`
      : `They watch ${stream.url} and may connect again at once.`,
    label: "Disconnect",
    done: `${stream.url}: ${what} of it disconnected.`,
    run: () => store.api.remove(`streams/${encodeURIComponent(stream.id)}?role=${role}`),
  });
}

export function record(stream: Stream, begin: boolean): void {
  const path = `dvrs/${encodeURIComponent(stream.id)}`;
  showAction({
    title: begin ? "Record this stream?" : "Stop this recording?",
    text: begin
      ? `${stream.url} is recorded as the vhost's dvr settings say, until it ends.`
      : `The file of ${stream.url} is finished. It is not recorded again until it ends.`,
    label: begin ? "Record" : "Stop",
    done: begin ? `${stream.url} is recorded.` : `${stream.url} is not recorded any more.`,
    run: () => (begin ? store.api.post(path) : store.api.remove(path)),
  });
}

export function reload(): void {
  showAction({
    title: "Read the configuration anew?",
    text: "It is checked first. When it is wrong, nothing changes. Connections are kept.",
    label: "Reload",
    done: "The configuration was read anew. What needs a restart is in the log.",
    run: async () => {
      await store.api.json("raw?rpc=reload");
      const answer = await store.api.json<{ data: { err: number; msg: string } }>(
        "raw?rpc=reload-fetch",
      );
      if (answer.data.err !== 0) throw new Error(`Nothing was changed: ${answer.data.msg}`);
    },
  });
}

export function Dialogs() {
  const [action, setAction] = useState<Action | null>(null);
  const [toast, setToast] = useState<Toast | null>(null);
  useEffect(() => {
    showAction = setAction;
  }, []);
  useEffect(() => {
    if (toast === null) return undefined;
    const timer = setTimeout(() => setToast(null), toast.bad ? 10_000 : 4_000);
    return () => clearTimeout(timer);
  }, [toast]);
  const run = async (wanted: Action) => {
    setAction(null);
    try {
      await wanted.run();
      setToast({ text: wanted.done, bad: false });
    } catch (error) {
      setToast({ text: (error as Error).message, bad: true });
    }
    store.poke();
  };
  return (
    <>
      {action !== null && (
        <Confirm
          title={action.title}
          action={action.label}
          onDone={() => void run(action)}
          onCancel={() => setAction(null)}
        >
          <p>{action.text}</p>
        </Confirm>
      )}
      <div class="toasts" role="status" aria-live="polite">
        {toast !== null && (
          <p class={`toast ${toast.bad ? "bad" : ""}`}>{toast.text}</p>
        )}
      </div>
    </>
  );
}
