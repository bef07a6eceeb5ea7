// Small parts that both pages are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { copy } from "./copy";
import { apply, setTheme, theme, type Theme } from "./theme";

const PATHS = {
  play: "M5 3.5v9l7.5-4.5z",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  done: "M3 8.5l3.2 3.2L13 4.8",
  kick: "M4 4l8 8M12 4l-8 8",
  sun: "M8 4.8a3.2 3.2 0 100 6.4 3.2 3.2 0 000-6.4M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 "
    + "12l1 1M3 13l1-1M12 4l1-1",
  moon: "M13 9.6A5.6 5.6 0 016.4 3 5.6 5.6 0 1013 9.6z",
  system: "M2 3h12v8H2zM6 14h4M8 11v3",
  warn: "M8 2.2l6.3 11.3H1.7zM8 6.4v3.4M8 11.4v.6",
  back: "M9.5 3L4.5 8l5 5",
  next: "M6.5 3l5 5-5 5",
  reload: "M13 8a5 5 0 11-1.6-3.7M13.2 2.2v2.9h-2.9",
  search: "M7 2.5a4.5 4.5 0 100 9 4.5 4.5 0 000-9M10.3 10.3l3.4 3.4",
  publish: "M8 13V4M4.2 7.5L8 3.7l3.8 3.8",
  out: "M6 2.5H3v11h3M6.5 8h7M10.8 5.2L13.5 8l-2.7 2.8",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface CopyProps {
  text: string;
  /** What is copied, for those who cannot see where the button stands. */
  what: string;
}

export function CopyButton({ text, what }: CopyProps) {
  const [state, setState] = useState<"idle" | "done" | "failed">("idle");
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const onClick = async () => {
    setState((await copy(text)) ? "done" : "failed");
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => setState("idle"), 1600);
  };
  return (
    <button type="button" class="button small copy" onClick={onClick} aria-label={`Copy ${what}`}>
      <Icon name={state === "done" ? "done" : "copy"} />
      <span aria-live="polite">
        {state === "done" ? "Copied" : state === "failed" ? "Copy by hand" : "Copy"}
      </span>
    </button>
  );
}

/** Lines of a label, a text to copy, and a button that does. */
export function CopyLines({ lines }: { lines: { label: string; text: string }[] }) {
  return (
    <dl class="lines">
      {lines.map((line) => (
        <div class="line" key={line.label}>
          <dt>{line.label}</dt>
          <dd>
            <code>{line.text}</code>
            <CopyButton text={line.text} what={line.label} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const THEME_ICON: Record<Theme, IconName> = { system: "system", light: "sun", dark: "moon" };

export function ThemeButton() {
  const [now, setNow] = useState(theme);
  useEffect(() => apply(now), [now]);
  const next = () => {
    const wanted = NEXT[now];
    setTheme(wanted);
    setNow(wanted);
  };
  return (
    <button
      type="button"
      class="button ghost"
      onClick={next}
      title={`Colours: ${now}`}
      aria-label={`Colours: ${now}. Change to ${NEXT[now]}`}
    >
      <Icon name={THEME_ICON[now]} />
    </button>
  );
}

interface DialogProps {
  title: string;
  children: ComponentChildren;
  /** What the button that does it says. */
  action: string;
  onDone: () => void;
  onCancel: () => void;
}

/** Asks before something that cannot be taken back. */
export function Confirm({ title, children, action, onDone, onCancel }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog}
      class="dialog"
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        onCancel();
      }}
    >
      <h2 id="dialog-title">{title}</h2>
      <div class="dialog-text">{children}</div>
      <div class="dialog-buttons">
        <button type="button" class="button" onClick={onCancel} autofocus>Cancel</button>
        <button type="button" class="button danger" onClick={onDone}>{action}</button>
      </div>
    </dialog>
  );
}
